//! Exec: another program in a container that runs, with streams of its own.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use bytes::Bytes;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use oci_spec::runtime::{Process, Spec};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::create::write_private;
use super::Container;
use crate::error::{Context, Error, Result};
use crate::oci::{self, Failure, Job, Stdio, Target};
use crate::pb::{exec_input, exec_output, ExecExit, ExecInput, ExecOutput, ExecStart};
use crate::reaper::Exit;
use crate::service::Guest;
use crate::stdio::{pipe_pair, AsyncFile};

type Input = Pin<Box<dyn Stream<Item = Result<ExecInput, Status>> + Send>>;
type Output = mpsc::Sender<Result<ExecOutput, Status>>;

/// Chunks that may wait for the host; beyond that the program waits.
const WAITING: usize = 8;
const CHUNK: usize = 16 << 10;

/// A program that an exec has started.
struct Running {
    pid: i32,
    exit: oneshot::Receiver<Exit>,
    stdin: Option<Arc<AsyncFile>>,
    outputs: Vec<(Arc<AsyncFile>, bool)>,
    tty: bool,
}

/// Kills the program and what it started when nobody listens any more.
struct KillSession(Option<i32>);

impl Drop for KillSession {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // libcontainer makes it the leader of a session; both may be gone by now.
            let _ = kill(Pid::from_raw(-pid), Signal::SIGKILL);
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Runs an exec; returns what it says. Its end, or that of the caller, ends all of it: a launch is
/// finished first, for what is half launched could not be found again to be killed.
pub async fn exec(
    guest: Arc<Guest>,
    mut input: Input,
) -> Result<mpsc::Receiver<Result<ExecOutput, Status>>> {
    let first = input.next().await.transpose();
    let start = match first.map_err(|s| Error::new(s.code(), s.message()))? {
        Some(ExecInput {
            message: Some(exec_input::Message::Start(start)),
        }) => start,
        _ => return Err(Error::invalid("the first message of an exec is its start")),
    };
    let container = guest.containers.get(&start.container_id)?;
    container.running()?;
    let (output, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let closed = output.clone();
        let launched = launch(&guest, &container, &start).await;
        let guard = KillSession(launched.as_ref().ok().map(|running| running.pid));
        tokio::select! {
            () = session(launched, guard, input, &output) => {}
            // The host has gone: dropping the session kills the program.
            () = closed.closed() => {}
        }
    });
    Ok(receiver)
}

async fn session(
    launched: Result<Running, Failure>,
    mut guard: KillSession,
    input: Input,
    output: &Output,
) {
    let message = match launched {
        Err(failure) => ExecExit {
            code: failure.code,
            error: failure.why,
        },
        Ok(running) => {
            let started = exec_output::Message::Started(true);
            let told = send(output, started).await;
            let code = follow(running, input, output).await;
            guard.0 = None;
            if told.is_err() {
                return;
            }
            let error = String::new();
            ExecExit { code, error }
        }
    };
    // Nobody left to tell is no error.
    let _ = send(output, exec_output::Message::Exit(message)).await;
}

async fn send(output: &Output, message: exec_output::Message) -> Result<(), ()> {
    let message = ExecOutput {
        message: Some(message),
    };
    output.send(Ok(message)).await.map_err(drop)
}

async fn launch(
    guest: &Guest,
    container: &Container,
    start: &ExecStart,
) -> Result<Running, Failure> {
    let process = write_process(container, start).map_err(|error| Failure {
        code: 128,
        why: error.message,
    })?;
    let _remove = RemoveOnDrop(process.clone());
    let mut outputs = Vec::new();
    let mut stdin = None;
    let stdio = if start.tty {
        Stdio::Terminal
    } else {
        let mut theirs = None;
        if start.stdin {
            let (read, write) = pipe_pair()?;
            theirs = Some(read);
            stdin = Some(Arc::new(AsyncFile::new(write)?));
        }
        let (out, out_theirs) = pipe_pair()?;
        let (err, err_theirs) = pipe_pair()?;
        outputs.push((Arc::new(AsyncFile::new(out)?), false));
        outputs.push((Arc::new(AsyncFile::new(err)?), true));
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
        target: Target::Exec(process),
        stdio,
    };
    let started = oci::run(&guest.reaper, job).await?;
    if let Some(terminal) = started.terminal {
        let terminal = Arc::new(AsyncFile::new(terminal)?);
        stdin = Some(terminal.clone());
        outputs.push((terminal, false));
    }
    Ok(Running {
        pid: started.pid,
        exit: started.exit,
        stdin,
        outputs,
        tty: start.tty,
    })
}

struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        // It goes with the container's folder at the latest.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn write_process(container: &Container, start: &ExecStart) -> Result<PathBuf> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let process = if start.process_json.is_empty() {
        own_process(container, start)?
    } else {
        serde_json::from_str(&start.process_json)
            .map_err(|e| Error::invalid(format!("the OCI process cannot be read: {e}")))?
    };
    if process.terminal().unwrap_or(false) != start.tty {
        return Err(Error::invalid(
            "terminal of the OCI process and tty of the exec differ",
        ));
    }
    let text = serde_json::to_vec(&process).context("write the OCI process")?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = container.folder().join(format!("exec-{number}.json"));
    write_private(&path, &text, 0o600)?;
    Ok(path)
}

/// The container's own process, with what differs in an exec.
fn own_process(container: &Container, start: &ExecStart) -> Result<Process> {
    let spec = Spec::load(container.folder().join("config.json"))
        .context("read the container's OCI spec")?;
    let mut process = spec
        .process()
        .clone()
        .ok_or_else(|| Error::internal("the container's OCI spec has no process"))?;
    let mut env = process.env().clone().unwrap_or_default();
    if start.tty && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        env.push("TERM=xterm".into());
    }
    process
        .set_args(Some(start.args.clone()))
        .set_terminal(Some(start.tty))
        .set_env(Some(env));
    Ok(process)
}

async fn follow(running: Running, input: Input, output: &Output) -> i32 {
    let Running {
        pid,
        exit,
        stdin,
        outputs,
        tty,
    } = running;
    let (ended, end) = tokio::sync::watch::channel(false);
    let reading = async {
        let streams = outputs
            .iter()
            .map(|(from, stderr)| read_out(from, *stderr, output, end.clone()));
        join_all(streams).await;
    };
    let exiting = async {
        let exit = exit.await.map_or(137, |exit| exit.code);
        ended.send_replace(true);
        exit
    };
    let feeding = async {
        feed(pid, stdin, tty, input).await;
        // The input's end is not the program's.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        (code, ()) = async { tokio::join!(exiting, reading) } => code,
        () = feeding => 137,
    }
}

async fn join_all(streams: impl Iterator<Item = impl std::future::Future<Output = ()>>) {
    let mut streams: Vec<_> = streams.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        streams.retain_mut(|s| s.as_mut().poll(cx).is_pending());
        if streams.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

/// Passes on what the program writes: to the end of the stream, or to what was there when the
/// program ended (its children may keep the stream open for ever).
async fn read_out(
    from: &AsyncFile,
    stderr: bool,
    output: &Output,
    mut ended: tokio::sync::watch::Receiver<bool>,
) {
    let mut buf = vec![0; CHUNK];
    loop {
        let got = tokio::select! {
            biased;
            got = from.read(&mut buf) => got.ok(),
            _ = ended.wait_for(|ended| *ended) => from.try_read(&mut buf).ok().flatten(),
        };
        let Some(n @ 1..) = got else { return };
        let data = Bytes::copy_from_slice(&buf[..n]);
        let message = if stderr {
            exec_output::Message::Stderr(data)
        } else {
            exec_output::Message::Stdout(data)
        };
        if send(output, message).await.is_err() {
            return;
        }
    }
}

async fn feed(pid: i32, mut stdin: Option<Arc<AsyncFile>>, tty: bool, mut input: Input) {
    let terminal = if tty { stdin.clone() } else { None };
    while let Some(Ok(ExecInput { message })) = input.next().await {
        match message {
            Some(exec_input::Message::Stdin(data)) => {
                if let Some(file) = &stdin {
                    // A program that has closed its stdin wants no more of it.
                    if file.write_all(&data).await.is_err() {
                        stdin = None;
                    }
                }
            }
            Some(exec_input::Message::StdinEof(true)) => stdin = None,
            Some(exec_input::Message::Resize(size)) => {
                if let Some(terminal) = &terminal {
                    // A terminal that is gone has no size.
                    let _ = terminal.resize(size.width, size.height);
                }
            }
            Some(exec_input::Message::Signal(number)) => {
                if let Ok(signal) = Signal::try_from(number) {
                    let _ = kill(Pid::from_raw(pid), signal);
                }
            }
            _ => {}
        }
    }
}
