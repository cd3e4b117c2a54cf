//! Messages that no honest guest sends.

use bytes::Bytes;

use vk_guest::pb::*;

const MANY: usize = 300_000;
const HUGE: usize = 3 << 20;

/// A resume with somebody else's cookie.
pub fn resume(cookie: &'static [u8]) -> OutputRecord {
    OutputRecord {
        resume: Some(OutputResume {
            acked_seq: 0,
            cookie: Bytes::from_static(cookie),
        }),
        ..OutputRecord::default()
    }
}

pub fn record(seq: i64, size: usize) -> OutputRecord {
    let mut data = vec![b'x'; size];
    data[size - 1] = b'\n';
    OutputRecord {
        seq,
        time_ns: if seq % 2 == 0 { i64::MIN } else { i64::MAX },
        data: data.into(),
        ..OutputRecord::default()
    }
}

/// An end of a container that was never started, at times that cannot be.
pub fn end(container_id: &str) -> ContainerInfo {
    ContainerInfo {
        container_id: container_id.into(),
        state: ContainerState::Exited.into(),
        pid: -1,
        started_at_ns: i64::MAX,
        finished_at_ns: i64::MIN,
        exit_code: i32::MIN,
        signal: i32::MAX,
        termination_message: vec![0xff; 12_000].into(),
        ..ContainerInfo::default()
    }
}

pub fn event(seq: i64, way: &str, container_id: &str) -> Event {
    let container = match way {
        "times" => end(container_id),
        "huge-events" => ContainerInfo {
            error: "e".repeat(HUGE),
            ..end(container_id)
        },
        _ => end(&format!("{seq:064x}")),
    };
    Event {
        seq: if seq % 2 == 0 { -seq } else { i64::MAX - seq },
        kind: event::Kind::Container.into(),
        container: Some(container),
    }
}

pub fn list(way: &str, honest: ListContainersResponse) -> ListContainersResponse {
    match way {
        "huge-list" => ListContainersResponse {
            containers: vec![ContainerInfo::default(); MANY],
            event_seq: -1,
        },
        _ => honest,
    }
}

pub fn stats(way: &str, container_ids: &[String]) -> Stats {
    if way == "huge-stats" {
        return Stats {
            containers: vec![ContainerStats::default(); MANY],
            filesystems: vec![FilesystemStats::default(); MANY],
            ..Stats::default()
        };
    }
    let most = CgroupStats {
        cpu_usec: u64::MAX,
        cpu_user_usec: u64::MAX,
        cpu_system_usec: u64::MAX,
        memory_current: u64::MAX,
        memory_inactive_file: 0,
        memory_anon: u64::MAX,
        memory_max: u64::MAX,
        pgfault: u64::MAX,
        io_read_bytes: u64::MAX,
        io_write_bytes: u64::MAX,
        pids_current: u64::MAX,
        ..CgroupStats::default()
    };
    let of = |id: &String| ContainerStats {
        container_id: id.clone(),
        cgroup: Some(most),
        rootfs_used_bytes: u64::MAX,
        rootfs_inodes_used: u64::MAX,
    };
    let odd = ["", "../..", "a\"} 1\nevil 1", "same", "same"];
    Stats {
        time_ns: i64::MIN,
        pod: Some(most),
        containers: container_ids.iter().chain(container_ids).map(of).collect(),
        interface: Some(InterfaceStats {
            name: "n".repeat(4096),
            rx_bytes: u64::MAX,
            tx_bytes: u64::MAX,
            ..InterfaceStats::default()
        }),
        filesystems: odd
            .map(|name| FilesystemStats {
                name: name.into(),
                capacity_bytes: u64::MAX,
                used_bytes: u64::MAX,
                inodes: 0,
                inodes_free: u64::MAX,
                ..FilesystemStats::default()
            })
            .to_vec(),
        memory_total_bytes: u64::MAX,
        memory_available_bytes: u64::MAX,
    }
}
