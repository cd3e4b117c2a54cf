//! Usage: the pod's and the containers' cgroups, the interface, the file systems.

mod cgroup;
mod filesystem;
mod interface;

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::clock::now_ns;
use crate::container::blocking;
use crate::error::{Error, Result};
use crate::paths;
use crate::pb::{ContainerStats, Stats};
use crate::service::Guest;

/// A walk over writable layers and volumes is not made more often.
const WALK_EACH: Duration = Duration::from_secs(10);
const DEFAULT_INTERVAL_MS: u32 = 1000;
const LEAST_INTERVAL_MS: u32 = 100;

/// What the last walk found, by folder.
#[derive(Default)]
pub struct Walked {
    at: Option<Instant>,
    used: HashMap<PathBuf, filesystem::Used>,
}

pub type WalkCache = Arc<Mutex<Walked>>;

/// Returns how often to take a sample.
pub fn interval(asked_ms: u32) -> Result<Duration> {
    match asked_ms {
        0 => Ok(Duration::from_millis(DEFAULT_INTERVAL_MS.into())),
        LEAST_INTERVAL_MS.. => Ok(Duration::from_millis(asked_ms.into())),
        _ => Err(Error::invalid(format!(
            "interval_ms {asked_ms} is below {LEAST_INTERVAL_MS}"
        ))),
    }
}

/// Takes a sample.
pub async fn sample(guest: &Arc<Guest>) -> Result<Stats> {
    let (cache, ids) = (
        guest.walked.clone(),
        guest
            .containers
            .list()
            .iter()
            .map(|c| c.id.clone())
            .collect::<Vec<_>>(),
    );
    blocking(move || Ok(take(&cache, &ids))).await
}

fn take(cache: &WalkCache, ids: &[String]) -> Stats {
    let volumes = filesystem::volumes();
    refresh(cache, ids, &volumes);
    let walked = crate::lock(cache);
    let containers = ids
        .iter()
        .map(|id| {
            let layer = filesystem::layer(id);
            let used = walked.used.get(&layer).copied().unwrap_or_default();
            ContainerStats {
                container_id: id.clone(),
                cgroup: Some(cgroup::read(&PathBuf::from(paths::POD_CGROUP).join(id))),
                rootfs_used_bytes: used.bytes,
                rootfs_inodes_used: used.inodes,
            }
        })
        .collect();
    let (memory_total_bytes, memory_available_bytes) = memory();
    Stats {
        time_ns: now_ns(),
        pod: Some(cgroup::read(&PathBuf::from(paths::POD_CGROUP))),
        containers,
        interface: interface::read(),
        filesystems: filesystem::read(&volumes, &walked.used),
        memory_total_bytes,
        memory_available_bytes,
    }
}

fn refresh(cache: &WalkCache, ids: &[String], volumes: &[filesystem::Volume]) {
    {
        let mut walked = crate::lock(cache);
        if walked.at.is_some_and(|at| at.elapsed() < WALK_EACH) {
            return;
        }
        walked.at = Some(Instant::now());
    }
    let layers = ids.iter().map(|id| filesystem::layer(id));
    let folders = volumes
        .iter()
        .filter(|v| v.on_scratch)
        .map(|v| v.path.clone());
    let used = layers
        .chain(folders)
        .map(|folder| {
            let used = filesystem::walk(&folder);
            (folder, used)
        })
        .collect();
    crate::lock(cache).used = used;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_has_a_floor() {
        assert!(interval(0).is_ok_and(|d| d.as_millis() == 1000));
        assert!(interval(100).is_ok_and(|d| d.as_millis() == 100));
        assert!(interval(1).is_err());
    }
}
