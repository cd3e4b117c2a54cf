//! PID 1's side: starts the helper with the streams a program is to have, and learns the pid.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{fcntl, FcntlArg};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio::sync::oneshot;

use super::helper::{Answer, Request, CONTROL_FD, REPORT_FD};
use crate::reaper::{Exit, Reaper};
use crate::stdio::AsyncFile;

/// The program's ends of its streams.
pub enum Stdio {
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    Terminal,
}

/// What to run.
pub enum Target {
    Container,
    /// A file with an OCI process object; it is removed by whoever wrote it.
    Exec(PathBuf),
}

pub struct Job<'a> {
    pub container_id: &'a str,
    pub bundle: &'a Path,
    pub target: Target,
    pub stdio: Stdio,
}

/// A program that runs.
pub struct Started {
    pub pid: i32,
    pub exit: oneshot::Receiver<Exit>,
    pub terminal: Option<OwnedFd>,
}

/// Why a program could not be started, with the code that a shell would give.
#[derive(Debug)]
pub struct Failure {
    pub code: i32,
    pub why: String,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let why = format!("cannot start the program: {error}");
        Self { code: 128, why }
    }
}

/// Kills the helper if whoever waited for it no longer does.
struct KillOnDrop(i32);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.0),
            nix::sys::signal::Signal::SIGKILL,
        );
    }
}

/// Starts a program in a container, new or running; returns when it has been executed.
pub async fn run(reaper: &Reaper, job: Job<'_>) -> Result<Started, Failure> {
    let (ours, theirs) = UnixStream::pair()?;
    let (report, report_theirs) = crate::stdio::pipe_pair()?;
    let console = match job.stdio {
        Stdio::Terminal => Some(Console::bind()?),
        Stdio::Pipes { .. } => None,
    };
    let request = Request {
        container_id: job.container_id.to_owned(),
        bundle: job.bundle.to_owned(),
        console: console.as_ref().map(|c| c.path.clone()),
        process: match job.target {
            Target::Container => None,
            Target::Exec(file) => Some(file),
        },
    };
    let helper = spawn(job.stdio, &theirs, &report_theirs)?;
    let helper_ended = reaper.watch(helper);
    let helper_guard = KillOnDrop(helper);
    drop((theirs, report_theirs));

    ours.set_nonblocking(true)?;
    let mut control = BufReader::new(tokio::net::UnixStream::from_std(ours)?);
    let mut line = serde_json::to_vec(&request).map_err(io::Error::from)?;
    line.push(b'\n');
    control.write_all(&line).await?;
    let mut answer = String::new();
    control.read_line(&mut answer).await?;
    let answer = serde_json::from_str(&answer)
        .unwrap_or_else(|_| Answer::Error("the process that makes containers ended".into()));
    // Watched before the helper, its parent until then, may go.
    let watched = match answer {
        Answer::Pid(pid) => Ok((pid, reaper.watch(pid))),
        Answer::Error(why) => Err(why),
    };
    drop(control);
    // It may have been reaped already, which closes the channel as well.
    let _ = helper_ended.await;
    std::mem::forget(helper_guard);

    let reported = read_report(report).await?;
    match (watched, reported) {
        (_, Some(failure)) => Err(failure),
        (Err(why), None) => Err(Failure { code: 128, why }),
        (Ok((pid, exit)), None) => {
            let terminal = match console {
                Some(console) => Some(console.receive().await?),
                None => None,
            };
            Ok(Started {
                pid,
                exit,
                terminal,
            })
        }
    }
}

fn spawn(stdio: Stdio, control: &UnixStream, report: &OwnedFd) -> io::Result<i32> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("oci").env_clear();
    match stdio {
        Stdio::Pipes {
            stdin,
            stdout,
            stderr,
        } => {
            match stdin {
                Some(stdin) => command.stdin(stdin),
                None => command.stdin(std::process::Stdio::null()),
            };
            command.stdout(stdout).stderr(stderr);
        }
        Stdio::Terminal => {
            let null = File::options().read(true).write(true).open("/dev/null")?;
            command
                .stdin(null.try_clone()?)
                .stdout(null.try_clone()?)
                .stderr(null);
        }
    }
    // Copies that are out of the way of the numbers they are to have.
    let high = |fd: BorrowedFd<'_>| -> io::Result<OwnedFd> {
        let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(10))?;
        // SAFETY: the kernel has just given us this descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(copy) })
    };
    let (control, report) = (high(control.as_fd())?, high(report.as_fd())?);
    let numbers = [
        (control.as_raw_fd(), CONTROL_FD),
        (report.as_raw_fd(), REPORT_FD),
    ];
    // SAFETY: dup2 may be called between fork and exec.
    unsafe {
        command.pre_exec(move || {
            for (from, to) in numbers {
                if libc::dup2(from, to) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    Ok(command.spawn()?.id().cast_signed())
}

/// Reads "CODE TEXT"; nothing comes when the program was executed.
async fn read_report(report: OwnedFd) -> io::Result<Option<Failure>> {
    let report = AsyncFile::new(report)?;
    let mut text = Vec::new();
    let mut buf = [0; 1024];
    loop {
        match report.read(&mut buf).await? {
            0 => break,
            // What a container could add after an exec that failed is not worth keeping.
            n if text.len() < 8192 => text.extend_from_slice(&buf[..n]),
            _ => {}
        }
    }
    let text = String::from_utf8_lossy(&text);
    Ok(text.split_once(' ').map(|(code, why)| Failure {
        code: code.parse().unwrap_or(128),
        why: why.to_owned(),
    }))
}

/// The socket that a terminal's master comes through.
struct Console {
    path: PathBuf,
    listener: UnixListener,
}

impl Console {
    fn bind() -> io::Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("{}/tty-{number}", crate::paths::RUN));
        let listener = UnixListener::bind(&path)?;
        Ok(Self { path, listener })
    }

    async fn receive(self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept().await?;
        stream.readable().await?;
        receive_fd(stream.as_raw_fd())
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn receive_fd(socket: i32) -> io::Result<OwnedFd> {
    use nix::sys::socket::{recvmsg, ControlMessageOwned, MsgFlags, UnixAddr};
    let mut data = [0; 256];
    let mut iov = [io::IoSliceMut::new(&mut data)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(socket, &mut iov, Some(&mut space), flags)?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part {
            if let Some(fd) = fds.first() {
                // SAFETY: the kernel has just given us this descriptor.
                return Ok(unsafe { OwnedFd::from_raw_fd(*fd) });
            }
        }
    }
    Err(io::Error::other("no terminal came"))
}
