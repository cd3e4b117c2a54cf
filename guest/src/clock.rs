//! The wall clock, nanoseconds since 1970.

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{clock_gettime, clock_settime, ClockId};

use crate::error::{Context, Error, Result};
use crate::pb::SetClockRequest;

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

/// Does what the host asks for; returns by how much the clock was behind.
pub fn set(request: &SetClockRequest) -> Result<i64> {
    if request.adjust_ns == 0 {
        return set_ns(request.clock_ns);
    }
    let by = request.adjust_ns;
    if request.slew {
        slew(by)?;
    } else {
        // What is left of an earlier slew was meant for the clock as it was.
        slew(0)?;
        step(by)?;
    }
    Ok(by)
}

/// Has the kernel make up for so much, half a millisecond a second.
fn slew(by_ns: i64) -> Result<()> {
    let mut change = no_change();
    change.modes = libc::ADJ_OFFSET_SINGLESHOT;
    change.offset = by_ns / 1000;
    adjtimex(&mut change)
}

fn step(by_ns: i64) -> Result<()> {
    let mut change = no_change();
    // In microseconds: ADJ_NANO would have everybody's adjtimex speak in nanoseconds from then on.
    change.modes = libc::ADJ_SETOFFSET;
    change.time.tv_sec = (by_ns / 1000).div_euclid(1_000_000);
    change.time.tv_usec = (by_ns / 1000).rem_euclid(1_000_000);
    adjtimex(&mut change)
}

fn no_change() -> libc::timex {
    // SAFETY: a struct of integers, for which zeros are values.
    unsafe { std::mem::zeroed() }
}

fn adjtimex(change: &mut libc::timex) -> Result<()> {
    // SAFETY: the pointer is to a whole timex, for the time of the call.
    Errno::result(unsafe { libc::adjtimex(change) })
        .map(drop)
        .context("adjust the clock")
}
