//! From the kernel's hand-over to a guest that can serve: mounts, a root that containers can
//! pivot away from, kernel modules, cgroups. Nothing here reads `boot_id` or asks for entropy:
//! a template of this state is restored many times.

mod modules;
mod mounts;

pub use modules::Modules;

use std::fs;

use crate::error::{Context, Result};
use crate::paths;

const AUTOPROBE: &str = "/sys/bus/virtio/drivers_autoprobe";

/// What the agent's own cgroup is kept from losing to the pod, bytes.
const AGENT_MEMORY_MIN: &str = "16777216";

/// Brings the guest up; the modules that are left are loaded when they are asked for.
pub fn bring_up() -> Result<Modules> {
    mounts::system()?;
    let modules = Modules::open()?;
    modules.load("boot")?;
    // A template is restored with another network behind the device: it is probed at Configure,
    // when its driver is there already.
    fs::write(AUTOPROBE, "0").context("hold the drivers back")?;
    modules.load("net")?;
    fs::write(AUTOPROBE, "1").context("let the drivers go")?;
    mounts::leave_initramfs()?;
    for dir in [
        paths::IMAGES,
        paths::SCRATCH,
        paths::VOLUMES,
        paths::CONTAINERS,
        paths::OCI,
        "/run/vk/sandbox/ns",
    ] {
        fs::create_dir_all(dir).context(format!("make {dir}"))?;
    }
    cgroups()?;
    protect_self()?;
    let_the_kernel_sleep()?;
    Ok(modules)
}

fn cgroups() -> Result<()> {
    fs::create_dir_all("/sys/fs/cgroup/vk").context("make the agent's own cgroup")?;
    pass_on_controllers(paths::CGROUP)?;
    pod_cgroup()
}

/// Makes the cgroup that all containers are below.
pub fn pod_cgroup() -> Result<()> {
    fs::create_dir_all(paths::POD_CGROUP).context("make the pod's cgroup")?;
    pass_on_controllers(paths::POD_CGROUP)
}

fn pass_on_controllers(dir: &str) -> Result<()> {
    let file = format!("{dir}/cgroup.subtree_control");
    fs::write(&file, "+cpu +cpuset +io +memory +pids").context(format!("write {file}"))
}

/// An idle VM costs the host what its kernel wakes up for: by default each half second to see
/// whether memory is in fragments, each second to add up statistics, and each five seconds to
/// look for neighbours that are to be known at all times (nothing here makes one of those).
fn let_the_kernel_sleep() -> Result<()> {
    for (key, value) in [
        ("vm/compaction_proactiveness", "0"),
        ("vm/stat_interval", "120"),
        ("net/ipv4/neigh/default/interval_probe_time_ms", "86400000"),
        ("net/ipv6/neigh/default/interval_probe_time_ms", "86400000"),
    ] {
        let file = format!("/proc/sys/{key}");
        fs::write(&file, value).context(format!("write {file}"))?;
    }
    Ok(())
}

fn protect_self() -> Result<()> {
    fs::write("/sys/fs/cgroup/vk/cgroup.procs", "1").context("enter the agent's own cgroup")?;
    fs::write("/sys/fs/cgroup/vk/memory.min", AGENT_MEMORY_MIN).context("reserve memory")?;
    fs::write("/proc/self/oom_score_adj", "-1000").context("set the agent's OOM score")
}
