//! Configure: gives the guest its identity, after a boot or the restore of a template.

mod entropy;
mod interface;
mod netlink;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use nix::mount::{mount, MsFlags};

use crate::container::blocking;
use crate::error::{Context, Error, Result};
use crate::pb::{ConfigureRequest, ConfigureResponse};
use crate::service::Guest;
use crate::{clock, oci, paths};

const ENTROPY_BYTES: usize = 64;
const MACHINE_ID: &str = "/etc/machine-id";

impl Guest {
    /// Configures once; a repeat for the same sandbox sets the clock alone.
    pub async fn configure(
        self: &Arc<Self>,
        request: ConfigureRequest,
    ) -> Result<ConfigureResponse> {
        let _turn = self.configuring.lock().await;
        let known = self.sandbox_id();
        if !known.is_empty() {
            if known != request.sandbox_id {
                return Err(Error::precondition(format!(
                    "this guest is sandbox {known} and cannot become {}",
                    request.sandbox_id
                )));
            }
            clock::set_ns(request.clock_ns)?;
            return identity();
        }
        check(&request)?;
        let guest = self.clone();
        blocking(move || {
            apply(&request)?;
            *crate::lock(&guest.sandbox) = request.sandbox_id;
            identity()
        })
        .await
    }
}

fn identity() -> Result<ConfigureResponse> {
    let machine_id = fs::read_to_string(MACHINE_ID).context("read the machine id")?;
    Ok(ConfigureResponse {
        boot_id: boot_id()?,
        machine_id: machine_id.trim().to_owned(),
    })
}

/// The kernel makes it at the first read: not before Configure, or all clones of a template
/// would have the same.
pub fn boot_id() -> Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read the boot id")?;
    Ok(text.trim().to_owned())
}

fn check(request: &ConfigureRequest) -> Result<()> {
    if request.sandbox_id.is_empty() {
        return Err(Error::invalid("Configure names no sandbox"));
    }
    let hex = request.machine_id.bytes().all(|b| b.is_ascii_hexdigit());
    if request.machine_id.len() != 32 || !hex {
        return Err(Error::invalid("a machine id has 32 hex digits"));
    }
    for key in request.sysctls.keys() {
        if key.contains("..") || key.starts_with(['/', '.']) {
            return Err(Error::invalid(format!("{key:?} is no sysctl")));
        }
    }
    Ok(())
}

/// Does what needs no identity: before Configure, or as its first part. May be repeated.
pub fn prepare(entropy: &[u8]) -> Result<()> {
    check_entropy(entropy)?;
    // Entropy first: nothing else may draw on what every clone of the template shares.
    entropy::credit(entropy)?;
    for name in ["hostname", "resolv.conf"] {
        let file = Path::new(paths::SANDBOX).join(name);
        fs::write(&file, "").context(format!("make {}", file.display()))?;
    }
    interface::loopback()?;
    interface::probe()?;
    keep_namespace("ipc", 1)?;
    keep_namespace("uts", 1)
}

fn check_entropy(entropy: &[u8]) -> Result<()> {
    if entropy.len() < ENTROPY_BYTES {
        return Err(Error::invalid(format!(
            "{} bytes of entropy came, and {ENTROPY_BYTES} are the least",
            entropy.len()
        )));
    }
    Ok(())
}

fn apply(request: &ConfigureRequest) -> Result<()> {
    prepare(&request.entropy)?;
    clock::set_ns(request.clock_ns)?;
    nix::unistd::sethostname(&request.hostname).context("set the host name")?;
    let sandbox = Path::new(paths::SANDBOX);
    let hostname = format!("{}\n", request.hostname);
    let machine_id = format!("{}\n", request.machine_id);
    for (name, text) in [
        ("hostname", &hostname),
        ("resolv.conf", &request.resolv_conf),
        ("machine-id", &machine_id),
    ] {
        fs::write(sandbox.join(name), text).context(format!("write {name}"))?;
    }
    fs::write(MACHINE_ID, &machine_id).context("write the machine id")?;
    if let Some(interface) = &request.interface {
        interface::configure(interface)?;
    }
    for (key, value) in &request.sysctls {
        let file = Path::new("/proc/sys").join(key.replace('.', "/"));
        fs::write(&file, value).context(format!("set the sysctl {key} to {value}"))?;
    }
    if request.share_process_namespace {
        keep_namespace("pid", oci::pause::start()?)?;
    }
    Ok(())
}

/// Binds a process's namespace to where OCI specs find it.
fn keep_namespace(kind: &str, pid: i32) -> Result<()> {
    let at = Path::new(paths::SANDBOX).join("ns").join(kind);
    if crate::disk::is_mounted_file(&at) {
        return Ok(());
    }
    let tried = || format!("keep the {kind} namespace");
    fs::File::create(&at).context(tried())?;
    let from = format!("/proc/{pid}/ns/{kind}");
    let none: Option<&str> = None;
    mount(Some(from.as_str()), &at, none, MsFlags::MS_BIND, none).context(tried())
}
