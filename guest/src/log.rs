//! Lines to the kernel's log, which the console keeps for a failed boot.

use std::io::Write;

/// Writes one line at level "warning"; a log that cannot be written is no reason to fail.
pub fn line(text: &str) {
    if let Ok(mut log) = std::fs::OpenOptions::new().write(true).open("/dev/kmsg") {
        // Each write is a line of its own.
        let _ = log.write_all(format!("<4>vk-guest: {text}\n").as_bytes());
    }
}
