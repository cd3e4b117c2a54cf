//! Lines to the kernel's log, which the console keeps for a failed boot.

use std::io::Write;

/// Writes one line at level "warning"; a log that cannot be written is no reason to fail.
pub fn line(text: &str) {
    if let Ok(mut log) = std::fs::OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = writeln!(log, "<4>vk-guest: {text}");
    }
}
