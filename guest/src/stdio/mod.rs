//! Standard streams of containers and execs: pipes and terminals, cutting output into records,
//! and keeping it until the host has it.

mod attach;
mod file;
mod log;
mod pump;
mod records;

pub use attach::AttachHub;
pub use file::{pipe_pair, AsyncFile};
pub use log::OutputLog;
pub use pump::pump;
