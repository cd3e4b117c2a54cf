//! The guest agent turned against its host, for tests alone: it is the real one until Configure
//! gives it a hostname that names a way to break the contract. With any other hostname it stays
//! an honest guest, so that one host has both.

#[path = "../src/boot/mod.rs"]
mod boot;
#[path = "../src/clock.rs"]
mod clock;
#[path = "../src/configure/mod.rs"]
mod configure;
#[path = "../src/container/mod.rs"]
mod container;
#[path = "../src/disk.rs"]
mod disk;
#[path = "../src/error.rs"]
mod error;
#[path = "../src/events.rs"]
mod events;
#[path = "../src/frames.rs"]
mod frames;
#[path = "../src/log.rs"]
mod log;
#[path = "../src/oci/mod.rs"]
mod oci;
#[path = "../src/paths.rs"]
mod paths;
#[path = "../src/port.rs"]
mod port;
#[path = "../src/portforward.rs"]
mod portforward;
#[path = "../src/reaper.rs"]
mod reaper;
#[path = "../src/service/mod.rs"]
mod service;
#[path = "../src/stats/mod.rs"]
mod stats;
#[path = "../src/stdio/mod.rs"]
mod stdio;
#[path = "../src/volume/mod.rs"]
mod volume;

mod calls;
mod lies;
mod wire;

/// The generated messages and the service's trait.
#[allow(clippy::all, clippy::pedantic)]
pub mod pb {
    tonic::include_proto!("vk_provider.guest.v1");
}

use std::sync::{Mutex, MutexGuard, PoisonError};

use error::{Context, Result};

pub const PROTOCOL_VERSION: u32 = 1;

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("oci") => oci::helper::main(),
        Some("pause") => oci::pause::main(),
        _ if std::process::id() == 1 => {
            let why = pid1().err().map(|e| e.message);
            log::line(&format!("ended: {}", why.as_deref().unwrap_or("in peace")));
        }
        _ => eprintln!("vk-hostile is PID 1 of a test's microVM; it does nothing elsewhere"),
    }
}

fn pid1() -> Result<()> {
    let modules = boot::bring_up()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the event loop")?;
    runtime.block_on(async {
        let service = service::Service::new(modules)?;
        let reaper = service.guest().reaper.clone();
        let memory = service.guest().cgroup_watch.clone();
        let hostile = calls::Hostile::new(service.clone());
        log::line("ready");
        tokio::select! {
            end = reaper.run() => end.context("wait for processes"),
            end = memory.run(service.guest().clone()) => end.context("watch cgroups"),
            end = wire::serve("vk.control", hostile.clone()) => end.context("serve vk.control"),
            end = wire::serve("vk.bulk", hostile.clone()) => end.context("serve vk.bulk"),
        }
    })
}
