//! Usage: the pod's and the containers' cgroups, the interface, the file systems.

mod cgroup;
mod filesystem;
mod interface;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::clock::now_ns;
use crate::container::blocking;
use crate::error::Result;
use crate::paths;
use crate::pb::{CgroupStats, ContainerStats, Stats};
use crate::service::Guest;

/// A walk over writable layers and volumes is not made more often.
const WALK_EACH: Duration = Duration::from_secs(10);

/// What the last walk found, by folder.
#[derive(Default)]
pub struct Walked {
    at: Option<Instant>,
    /// What the pod had used of the processor then: one that has not run has written nothing.
    cpu_usec: u64,
    used: HashMap<PathBuf, filesystem::Used>,
}

impl Walked {
    /// Says whether there is to be another walk, and takes note of it.
    fn is_due(&mut self, pod: &CgroupStats) -> bool {
        let recent = self.at.is_some_and(|at| at.elapsed() < WALK_EACH);
        if recent || (self.at.is_some() && self.cpu_usec == pod.cpu_usec) {
            return false;
        }
        (self.at, self.cpu_usec) = (Some(Instant::now()), pod.cpu_usec);
        true
    }
}

pub type WalkCache = Arc<Mutex<Walked>>;

/// Takes a sample. All but the walk is done at once: a thread for it would end seconds later, and
/// have an idle VM wake up for that.
pub async fn sample(guest: &Arc<Guest>) -> Result<Stats> {
    let containers = guest.containers.list();
    let ids: Vec<String> = containers.iter().map(|c| c.id.clone()).collect();
    let volumes = filesystem::volumes();
    let pod = cgroup::read(Path::new(paths::POD_CGROUP));
    if crate::lock(&guest.walked).is_due(&pod) {
        walk(guest.walked.clone(), &ids, &volumes).await?;
    }
    let walked = crate::lock(&guest.walked);
    let (memory_total_bytes, memory_available_bytes) = memory();
    Ok(Stats {
        time_ns: now_ns(),
        pod: Some(pod),
        containers: ids.into_iter().map(|id| container(id, &walked)).collect(),
        interface: interface::read(),
        filesystems: filesystem::read(&volumes, &walked.used),
        memory_total_bytes,
        memory_available_bytes,
    })
}

fn container(id: String, walked: &Walked) -> ContainerStats {
    let layer = filesystem::layer(&id);
    let used = walked.used.get(&layer).copied().unwrap_or_default();
    ContainerStats {
        cgroup: Some(cgroup::read(&Path::new(paths::POD_CGROUP).join(&id))),
        container_id: id,
        rootfs_used_bytes: used.bytes,
        rootfs_inodes_used: used.inodes,
    }
}

async fn walk(cache: WalkCache, ids: &[String], volumes: &[filesystem::Volume]) -> Result<()> {
    let layers = ids.iter().map(|id| filesystem::layer(id));
    let folders = volumes.iter().filter(|v| v.on_scratch);
    let folders: Vec<PathBuf> = layers.chain(folders.map(|v| v.path.clone())).collect();
    blocking(move || {
        let found = folders.into_iter().map(|folder| {
            let used = filesystem::walk(&folder);
            (folder, used)
        });
        let found = found.collect();
        crate::lock(&cache).used = found;
        Ok(())
    })
    .await
}

/// Total and available, bytes.
pub fn memory() -> (u64, u64) {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())
            .unwrap_or(0)
            * 1024
    };
    (value("MemTotal:"), value("MemAvailable:"))
}
