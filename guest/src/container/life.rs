//! Starting a container's program, and what follows from its end.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use tokio::sync::oneshot;

use super::Container;
use crate::clock::now_ns;
use crate::error::{Context, Error, Result};
use crate::oci::{self, Failure, Job, Stdio, Target};
use crate::pb::event::Kind;
use crate::pb::{ContainerState, StartContainerResponse};
use crate::reaper::Exit;
use crate::service::Guest;
use crate::stdio::{pipe_pair, pump, AsyncFile};

/// What the kubelet reads of a termination message, from its end
/// (`kubecontainer.MaxContainerTerminationMessageLength`, `tail.ReadAtMost`).
const TERMINATION_MESSAGE_BYTES: u64 = 4096;

impl Guest {
    /// Tells the host a container's new state.
    pub fn changed(&self, container: &Container) {
        self.events.push(Kind::Container, container.info());
    }

    /// Starts the program; a repeat answers as the first call did.
    pub async fn start_container(self: &Arc<Self>, id: &str) -> Result<StartContainerResponse> {
        let container = self.containers.get(id)?;
        let _turn = container.turn.lock().await;
        if container.info().state() == ContainerState::Created {
            if let Err(failure) = self.start(&container).await {
                self.start_failed(&container, failure);
            }
        }
        let info = container.info();
        let failed = !info.error.is_empty();
        Ok(StartContainerResponse {
            started_at_ns: info.started_at_ns,
            pid: info.pid,
            error_exit_code: if failed { info.exit_code } else { 0 },
            error: info.error,
        })
    }

    async fn start(self: &Arc<Self>, container: &Arc<Container>) -> Result<(), Failure> {
        let mut readers = Vec::new();
        let mut stdin = None;
        let stdio = if container.settings.tty {
            Stdio::Terminal
        } else {
            let theirs = if container.settings.stdin {
                let (theirs, ours) = pipe_pair()?;
                stdin = Some(AsyncFile::new(ours)?);
                Some(theirs)
            } else {
                None
            };
            let (out, out_theirs) = pipe_pair()?;
            let (err, err_theirs) = pipe_pair()?;
            readers.push((AsyncFile::new(out)?, false));
            readers.push((AsyncFile::new(err)?, true));
            Stdio::Pipes {
                stdin: theirs,
                stdout: out_theirs,
                stderr: err_theirs,
            }
        };
        let folder = container.folder();
        let job = Job {
            container_id: &container.id,
            bundle: &folder,
            target: Target::Container,
            stdio,
        };
        let started = oci::run(&self.reaper, job).await?;
        if let Some(terminal) = started.terminal {
            readers.push((AsyncFile::new(terminal)?, false));
        }
        let readers: Vec<_> = readers
            .into_iter()
            .map(|(file, stderr)| (Arc::new(file), stderr))
            .collect();
        *container.stdin.lock().await = match (stdin, readers.first()) {
            (Some(stdin), _) => Some(Arc::new(stdin)),
            (None, Some((terminal, _))) if container.settings.tty => Some(terminal.clone()),
            _ => None,
        };
        container.set(|info| {
            info.state = ContainerState::Running.into();
            info.pid = started.pid;
            info.started_at_ns = now_ns();
        });
        self.changed(container);
        self.follow(container, readers, started.exit);
        Ok(())
    }

    fn follow(
        self: &Arc<Self>,
        container: &Arc<Container>,
        readers: Vec<(Arc<AsyncFile>, bool)>,
        exit: oneshot::Receiver<Exit>,
    ) {
        for (from, stderr) in readers {
            let log = container.output.clone();
            let viewers = container.viewers.clone();
            let dead = container.dead.subscribe();
            container.own(&tokio::spawn(pump(from, stderr, log, viewers, dead)));
        }
        let (guest, container) = (self.clone(), container.clone());
        let task = tokio::spawn({
            let container = container.clone();
            async move {
                if let Ok(exit) = exit.await {
                    guest.exited(&container, exit).await;
                }
            }
        });
        container.own(&task);
    }

    async fn exited(&self, container: &Arc<Container>, exit: Exit) {
        // In a shared PID namespace the others would outlive their first process.
        container.kill_cgroup();
        container.stdin.lock().await.take();
        container.count_oom_kills();
        let message = termination_message(container);
        container.set(|info| {
            info.state = ContainerState::Exited.into();
            info.finished_at_ns = now_ns();
            info.exit_code = exit.code;
            info.signal = exit.signal;
            info.oom_killed = container.oom_kills() > 0 && exit.code != 0;
            info.termination_message = message.into();
        });
        self.changed(container);
        container.note_emptiness();
        let mut dead = container.dead.subscribe();
        if dead.wait_for(|dead| *dead).await.is_ok() {
            container.viewers.end();
        }
    }

    fn start_failed(&self, container: &Arc<Container>, failure: Failure) {
        let now = now_ns();
        container.set(|info| {
            info.state = ContainerState::Exited.into();
            info.started_at_ns = now;
            info.finished_at_ns = now;
            info.exit_code = failure.code;
            info.error = failure.why;
        });
        container.kill_cgroup();
        container.viewers.end();
        for _ in 0..2 {
            container.output.close_stream(now);
        }
        self.changed(container);
        container.note_emptiness();
    }

    /// Sends a signal to the first process, or to all.
    pub fn signal_container(&self, id: &str, number: i32, all: bool) -> Result<()> {
        let container = self.containers.get(id)?;
        let signal = Signal::try_from(number)
            .map_err(|_| Error::invalid(format!("{number} is no signal's number")))?;
        let pid = container.running()?;
        if all && signal == Signal::SIGKILL {
            container.kill_cgroup();
            return Ok(());
        }
        let mut pids = vec![pid];
        if all {
            let file = container.cgroup().join("cgroup.procs");
            let text = std::fs::read_to_string(&file).context("list a container's processes")?;
            pids = text.lines().filter_map(|l| l.parse().ok()).collect();
        }
        for pid in pids {
            match kill(Pid::from_raw(pid), signal) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(why) => {
                    return Err(Error::internal(format!(
                        "cannot send {signal} to process {pid} of container {id}: {why}"
                    )))
                }
            }
        }
        Ok(())
    }
}

fn termination_message(container: &Container) -> Vec<u8> {
    let mut message = Vec::new();
    if container.settings.termination_log {
        // Half a message is better than none.
        let _ = read_end(&container.folder().join("termination-log"), &mut message);
    }
    message
}

fn read_end(path: &Path, message: &mut Vec<u8>) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(
        length.saturating_sub(TERMINATION_MESSAGE_BYTES),
    ))?;
    // It may still grow: no more than was asked for.
    file.take(TERMINATION_MESSAGE_BYTES).read_to_end(message)?;
    Ok(())
}
