//! UpdateContainer: OCI resources to cgroup v2 files, and back.

use std::fs;
use std::path::Path;

use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
};

use super::Container;
use crate::error::{Context, Error, Result};

/// The files that cgroup v2 may be asked to hold by `unified`; these are the container's limits.
const UNIFIED: [&str; 9] = [
    "cpu.max",
    "cpu.weight",
    "cpu.idle",
    "memory.max",
    "memory.high",
    "memory.low",
    "memory.min",
    "memory.oom.group",
    "memory.swap.max",
];

/// Changes a container's limits; returns what the kernel then has. A memory limit below what is
/// used is refused: the kernel would take it, and kill.
pub fn update(container: &Container, json: &str) -> Result<String> {
    let wanted: LinuxResources = serde_json::from_str(json)
        .map_err(|e| Error::invalid(format!("the OCI resources cannot be read: {e}")))?;
    let writes = plan(&wanted)?;
    let cgroup = container.cgroup();
    let number = |file: &str| {
        let text = fs::read_to_string(cgroup.join(file)).unwrap_or_default();
        text.trim().parse::<i64>().ok()
    };
    check_memory(&wanted, number("memory.max"), number("memory.current"))?;
    for (file, value) in &writes {
        fs::write(cgroup.join(file), value).context(format!(
            "set {file} of container {} to {value}",
            container.id
        ))?;
    }
    read_back(&cgroup)
}

/// `has`: the limit so far, None for none. `used`: None where it can't be told.
fn check_memory(wanted: &LinuxResources, has: Option<i64>, used: Option<i64>) -> Result<()> {
    let limit = wanted.memory().as_ref().and_then(|memory| memory.limit());
    match (limit, used) {
        (Some(limit), Some(used))
            if limit > 0 && limit <= used && has.is_none_or(|has| limit < has) =>
        {
            Err(Error::precondition(format!(
                "cannot set a memory limit ({limit}) below current usage ({used})"
            )))
        }
        _ => Ok(()),
    }
}

/// Returns (file, value) pairs in the order to write them.
fn plan(wanted: &LinuxResources) -> Result<Vec<(String, String)>> {
    let mut writes = Vec::new();
    let mut write = |file: &str, value: String| writes.push((file.to_owned(), value));
    if let Some(cpu) = wanted.cpu() {
        let period = cpu.period().unwrap_or(100_000);
        if let Some(quota) = cpu.quota() {
            let quota = limit(quota);
            write("cpu.max", format!("{quota} {period}"));
        }
        if let Some(shares) = cpu.shares() {
            write("cpu.weight", weight(shares).to_string());
        }
        if let Some(cpus) = cpu.cpus() {
            write("cpuset.cpus", cpus.clone());
        }
    }
    if let Some(memory) = wanted.memory() {
        if let Some(bytes) = memory.limit() {
            write("memory.max", limit(bytes));
            if memory.swap().is_some_and(|both| both != bytes) {
                return Err(Error::invalid("a microVM has no swap to give"));
            }
        }
        if let Some(bytes) = memory.reservation() {
            write("memory.low", bytes.to_string());
        }
    }
    if let Some(pids) = wanted.pids() {
        write("pids.max", limit(pids.limit()));
    }
    if let Some(unified) = wanted.unified() {
        let mut pairs: Vec<_> = unified.iter().collect();
        pairs.sort();
        for (file, value) in pairs {
            if !UNIFIED.contains(&file.as_str()) {
                return Err(Error::invalid(format!(
                    "{file} cannot be set for a container"
                )));
            }
            write(file, value.clone());
        }
    }
    Ok(writes)
}

fn limit(value: i64) -> String {
    if value > 0 {
        value.to_string()
    } else {
        "max".into()
    }
}

/// CPU shares (2 to 262144) as a weight (1 to 10000), linearly as the runtime spec's readers do.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

fn read_back(cgroup: &Path) -> Result<String> {
    let read = |file: &str| fs::read_to_string(cgroup.join(file)).unwrap_or_default();
    let number = |text: &str| text.trim().parse::<i64>().unwrap_or(-1);
    let cpu_max = read("cpu.max");
    let (quota, period) = cpu_max.trim().split_once(' ').unwrap_or(("max", "100000"));
    let cpu = LinuxCpuBuilder::default()
        .quota(number(quota))
        .period(period.parse::<u64>().unwrap_or(100_000))
        .build()
        .context("read a container's CPU limit")?;
    let memory = LinuxMemoryBuilder::default()
        .limit(number(&read("memory.max")))
        .build()
        .context("read a container's memory limit")?;
    let pids = LinuxPidsBuilder::default()
        .limit(number(&read("pids.max")))
        .build()
        .context("read a container's process limit")?;
    let unified = UNIFIED
        .iter()
        .map(|file| ((*file).to_owned(), read(file).trim().to_owned()))
        .filter(|(_, value)| !value.is_empty())
        .collect::<std::collections::HashMap<_, _>>();
    let resources = LinuxResourcesBuilder::default()
        .cpu(cpu)
        .memory(memory)
        .pids(pids)
        .unified(unified)
        .build()
        .context("read a container's limits")?;
    serde_json::to_string(&resources).context("write a container's limits down")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_become_files() {
        let wanted: LinuxResources = serde_json::from_str(
            r#"{"cpu":{"quota":50000,"period":100000},"memory":{"limit":-1,"swap":-1},
                "unified":{"memory.oom.group":"1","cpu.weight":"39"}}"#,
        )
        .expect("resources");
        let writes = plan(&wanted).expect("a plan");
        let pairs: Vec<_> = writes.iter().map(|(f, v)| (&f[..], &v[..])).collect();
        let expected = [
            ("cpu.max", "50000 100000"),
            ("memory.max", "max"),
            ("cpu.weight", "39"),
            ("memory.oom.group", "1"),
        ];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn a_limit_below_what_is_used_is_refused() {
        let wanted: LinuxResources =
            serde_json::from_str(r#"{"memory":{"limit":1000}}"#).expect("resources");
        for (has, used, fits) in [
            (Some(2000), Some(999), true),
            (Some(2000), Some(1000), false),
            (None, Some(5000), false),
            (Some(500), Some(1000), true),
            (Some(2000), None, true),
        ] {
            assert_eq!(
                check_memory(&wanted, has, used).is_ok(),
                fits,
                "{has:?} {used:?}"
            );
        }
        let lifted: LinuxResources =
            serde_json::from_str(r#"{"memory":{"limit":-1}}"#).expect("resources");
        assert!(check_memory(&lifted, Some(2000), Some(1000)).is_ok());
    }

    #[test]
    fn shares_become_weights() {
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
        assert_eq!((weight(0), weight(1 << 40)), (1, 10_000));
    }

    #[test]
    fn other_files_are_refused() {
        let wanted: LinuxResources =
            serde_json::from_str(r#"{"unified":{"cgroup.procs":"1"}}"#).expect("resources");
        assert!(plan(&wanted).is_err());
    }
}
