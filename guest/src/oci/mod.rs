//! Making containers and execs with libcontainer, in a process of their own.
//!
//! libcontainer forks, changes its working directory and may fail in ways of its own; PID 1 has
//! an event loop and must not end. So `vk-guest oci` does the work and exits, and what it made
//! becomes PID 1's child.

mod executor;
pub mod helper;
pub mod pause;
mod runner;

pub use runner::{run, Failure, Job, Stdio, Target};
