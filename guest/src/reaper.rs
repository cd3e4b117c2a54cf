//! Waiting for processes: PID 1 is every orphan's parent, so one place reaps them all and tells
//! those who asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;
use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::oneshot;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// As a shell counts: 128 + signal for a signalled one.
    pub code: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
}

/// Hands each exit to the one who watches that pid. Whoever starts a process watches it before
/// it can have been reaped: without an await in between, since all of it runs in one thread.
#[derive(Clone, Default)]
pub struct Reaper {
    watchers: Arc<Mutex<HashMap<i32, oneshot::Sender<Exit>>>>,
}

impl Reaper {
    /// Returns a receiver of the exit of `pid`.
    pub fn watch(&self, pid: i32) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        crate::lock(&self.watchers).insert(pid, sender);
        receiver
    }

    /// Reaps for ever.
    pub async fn run(self) -> std::io::Result<()> {
        let mut children = signal(SignalKind::child())?;
        loop {
            self.reap();
            if children.recv().await.is_none() {
                return Ok(());
            }
        }
    }

    fn reap(&self) {
        loop {
            let status = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(status) => status,
                Err(_) => continue,
            };
            let (pid, exit) = match status {
                WaitStatus::Exited(pid, code) => (pid, Exit { code, signal: 0 }),
                WaitStatus::Signaled(pid, signal, _) => {
                    let signal = signal as i32;
                    let code = 128 + signal;
                    (pid, Exit { code, signal })
                }
                _ => continue,
            };
            if let Some(watcher) = crate::lock(&self.watchers).remove(&pid.as_raw()) {
                // Nobody is left to tell when the one who watched has gone.
                let _ = watcher.send(exit);
            }
        }
    }
}
