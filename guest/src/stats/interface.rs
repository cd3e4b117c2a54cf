//! The pod interface's counters.

use std::fs;
use std::path::Path;

use crate::pb::InterfaceStats;

/// Reads the counters of the interface that has a device; None where the pod has none.
pub fn read() -> Option<InterfaceStats> {
    let text = fs::read_to_string("/proc/net/dev").ok()?;
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, figures)| (name.trim(), figures))
        .find(|(name, _)| {
            Path::new("/sys/class/net")
                .join(name)
                .join("device")
                .exists()
        })
        .map(|(name, figures)| counters(name, figures))
}

/// Takes a line of proc_pid_net(5)'s `dev`: eight figures of what came, eight of what went.
fn counters(name: &str, figures: &str) -> InterfaceStats {
    let figures: Vec<u64> = figures
        .split_whitespace()
        .map(|word| word.parse().unwrap_or(0))
        .collect();
    let at = |place: usize| figures.get(place).copied().unwrap_or(0);
    InterfaceStats {
        name: name.to_owned(),
        rx_bytes: at(0),
        rx_packets: at(1),
        rx_errors: at(2),
        rx_dropped: at(3),
        tx_bytes: at(8),
        tx_packets: at(9),
        tx_errors: at(10),
        tx_dropped: at(11),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let found = counters("eth0", " 10 2 0 1 0 0 0 0   30 4 5 6 0 0 0 0");
        let wanted = InterfaceStats {
            name: "eth0".to_owned(),
            rx_bytes: 10,
            rx_packets: 2,
            rx_dropped: 1,
            tx_bytes: 30,
            tx_packets: 4,
            tx_errors: 5,
            tx_dropped: 6,
            ..InterfaceStats::default()
        };
        assert_eq!(found, wanted);
    }
}
