//! A cgroup's figures.

use std::fs;
use std::path::Path;

use crate::pb::CgroupStats;

/// Reads what the cgroup has; what it lacks is 0.
pub fn read(cgroup: &Path) -> CgroupStats {
    let text = |file: &str| fs::read_to_string(cgroup.join(file)).unwrap_or_default();
    let number = |file: &str| text(file).trim().parse().unwrap_or(0);
    let cpu = text("cpu.stat");
    let memory = text("memory.stat");
    let events = text("memory.events");
    let (io_read_bytes, io_write_bytes) = io(&text("io.stat"));
    CgroupStats {
        cpu_usec: flat(&cpu, "usage_usec"),
        cpu_user_usec: flat(&cpu, "user_usec"),
        cpu_system_usec: flat(&cpu, "system_usec"),
        throttled_usec: flat(&cpu, "throttled_usec"),
        memory_current: number("memory.current"),
        memory_inactive_file: flat(&memory, "inactive_file"),
        memory_anon: flat(&memory, "anon"),
        memory_max: number("memory.max"),
        pgfault: flat(&memory, "pgfault"),
        pgmajfault: flat(&memory, "pgmajfault"),
        io_read_bytes,
        io_write_bytes,
        pids_current: number("pids.current"),
        oom_kills: flat(&events, "oom_kill"),
    }
}

fn flat(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(k, _)| *k == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

/// Sums "MAJ:MIN rbytes=N wbytes=N …" over the devices.
fn io(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        text.split_whitespace()
            .filter_map(|word| word.strip_prefix(key))
            .filter_map(|value| value.parse::<u64>().ok())
            .sum()
    };
    (sum("rbytes="), sum("wbytes="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found() {
        assert_eq!(flat("usage_usec 5\nuser_usec 3\n", "user_usec"), 3);
        let text = "8:0 rbytes=10 wbytes=1 rios=1\n8:16 rbytes=5 wbytes=2 rios=1\n";
        assert_eq!(io(text), (15, 3));
        assert_eq!(read(Path::new("/nowhere")), CgroupStats::default());
    }
}
