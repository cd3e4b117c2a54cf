//! The pod interface's counters.

use std::fs;
use std::path::Path;

use crate::pb::InterfaceStats;

/// Reads the counters of the interface that has a device; None where the pod has none.
pub fn read() -> Option<InterfaceStats> {
    let entry = fs::read_dir("/sys/class/net")
        .ok()?
        .flatten()
        .find(|entry| entry.path().join("device").exists())?;
    let statistics = entry.path().join("statistics");
    let name = entry.file_name().to_string_lossy().into_owned();
    Some(counters(name, &statistics))
}

fn counters(name: String, folder: &Path) -> InterfaceStats {
    let number = |file: &str| {
        fs::read_to_string(folder.join(file))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    };
    InterfaceStats {
        name,
        rx_bytes: number("rx_bytes"),
        rx_packets: number("rx_packets"),
        rx_errors: number("rx_errors"),
        rx_dropped: number("rx_dropped"),
        tx_bytes: number("tx_bytes"),
        tx_packets: number("tx_packets"),
        tx_errors: number("tx_errors"),
        tx_dropped: number("tx_dropped"),
    }
}
