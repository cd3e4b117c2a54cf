//! The first process of a PID namespace that the pod's containers share: it reaps, and waits.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sched::{unshare, CloneFlags};
use nix::sys::signal::{signal, SigHandler, Signal};
use nix::unistd::{fork, pause, ForkResult};

use crate::error::{Context, Error, Result};

/// In the process `vk-guest pause`: makes the namespace, prints the pid of its first process.
pub fn main() {
    if unshare(CloneFlags::CLONE_NEWPID).is_err() {
        return;
    }
    // SAFETY: this process has one thread.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => println!("{child}"),
        Ok(ForkResult::Child) => {
            // SAFETY: ignoring children makes the kernel reap them.
            if unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.is_ok() {
                loop {
                    pause();
                }
            }
        }
        Err(_) => {}
    }
}

/// Starts one; returns its pid.
pub fn start() -> Result<i32> {
    let mut helper = Command::new("/proc/self/exe")
        // The pod's containers see it in their list of processes.
        .arg0("/pause")
        .arg("pause")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start the pod's pause process")?;
    let mut text = String::new();
    if let Some(mut out) = helper.stdout.take() {
        // The pause process itself holds the pipe, so only the one line can be waited for.
        let mut byte = [0];
        while out.read(&mut byte).is_ok_and(|n| n == 1) && byte[0] != b'\n' {
            text.push(char::from(byte[0]));
        }
    }
    text.parse()
        .map_err(|_| Error::internal("cannot make the pod's PID namespace"))
}
