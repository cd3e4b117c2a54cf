//! The wall clock, nanoseconds since 1970.

use nix::sys::time::TimeSpec;
use nix::time::{clock_gettime, clock_settime, ClockId};

use crate::error::{Context, Error, Result};

/// Returns the guest's wall clock.
pub fn now_ns() -> i64 {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |t| t.tv_sec() * 1_000_000_000 + t.tv_nsec())
}

/// Sets the wall clock; returns by how much it was behind.
pub fn set_ns(to: i64) -> Result<i64> {
    if to <= 0 {
        return Err(Error::invalid(format!(
            "the clock cannot be set to {to} ns"
        )));
    }
    let offset = to - now_ns();
    let time = TimeSpec::new(to / 1_000_000_000, to % 1_000_000_000);
    clock_settime(ClockId::CLOCK_REALTIME, time).context("set the clock")?;
    Ok(offset)
}
