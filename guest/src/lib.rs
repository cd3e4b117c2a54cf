//! PID 1 of a pod's microVM. It holds no logic that could live on the host; it carries out what
//! the host's agent says over two virtio-serial ports (proto/vk_provider/_pb/guest.proto).
//!
//! Started as `vk-guest oci …` the same program is the short-lived process that makes a
//! container or an exec: libcontainer forks, and its failures stay out of PID 1.

mod boot;
mod clock;
mod configure;
mod container;
mod disk;
mod error;
mod events;
mod frames;
pub mod log;
mod oci;
mod paths;
pub mod port;
mod portforward;
mod reaper;
mod rehearse;
pub mod serve;
pub mod service;
mod stats;
mod stdio;
mod volume;

/// The generated messages and the service's trait.
#[allow(clippy::all, clippy::pedantic)]
pub mod pb {
    tonic::include_proto!("vk_provider.guest.v1");
}

use std::sync::{Mutex, MutexGuard, PoisonError};

use error::{Context, Result};
use service::Service;

pub const PROTOCOL_VERSION: u32 = 1;
/// The ports' names, as the VM's devices have them.
pub const PORTS: [&str; 2] = ["vk.control", "vk.bulk"];

/// Locks; a poisoned lock cannot be (a panic aborts).
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The whole program. As PID 1 it brings the guest up and leaves the ports to `serve`, which ends
/// with an error of theirs only.
pub fn run(serve: impl AsyncFnOnce(Service) -> std::io::Result<()>) {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("oci") => oci::helper::main(),
        Some("pause") => oci::pause::main(),
        Some(rehearse::ARGUMENT) => {}
        _ if std::process::id() == 1 => {
            // The kernel says "attempted to kill init" and resets the VM; the host sees the line.
            let why = pid1(serve).err().map(|e| e.message);
            log::line(&format!(
                "ended: {}",
                why.as_deref().unwrap_or("asked to stop")
            ));
        }
        _ => eprintln!("this is PID 1 of a microVM; it does nothing elsewhere"),
    }
}

fn pid1(serve: impl AsyncFnOnce(Service) -> std::io::Result<()>) -> Result<()> {
    let modules = boot::bring_up()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    runtime.block_on(async {
        let service = Service::new(modules)?;
        let reaper = service.guest().reaper.clone();
        let memory = service.guest().cgroup_watch.clone();
        log::line("ready");
        tokio::select! {
            end = reaper.run() => end.context("wait for processes"),
            end = memory.run(service.guest().clone()) => end.context("watch cgroups"),
            end = serve(service.clone()) => end.context("serve the host"),
        }
    })
}
