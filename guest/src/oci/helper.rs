//! The process that calls libcontainer: takes one job on descriptor 3, answers there, and stays
//! until PID 1 has noted the pid it was told, so that no exit is missed.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use serde::{Deserialize, Serialize};

use super::executor::ReportingExecutor;
use crate::paths;

/// The job and its answer.
pub const CONTROL_FD: RawFd = 3;
/// Where the program's own failure to start is reported; closed by its exec.
pub const REPORT_FD: RawFd = 4;

#[derive(Serialize, Deserialize)]
pub struct Request {
    pub container_id: String,
    /// The folder of config.json.
    pub bundle: PathBuf,
    /// Where a terminal is to be sent.
    pub console: Option<PathBuf>,
    /// The process to run in a container that runs; absent: make the container.
    pub process: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
pub enum Answer {
    Pid(i32),
    Error(String),
}

/// Does the job that is on the control socket.
pub fn main() {
    // SAFETY: PID 1 starts this program with its end of the socket there.
    let mut control = unsafe { UnixStream::from_raw_fd(CONTROL_FD) };
    let mut line = String::new();
    let asked = BufReader::new(&control).read_line(&mut line);
    let answer = match (asked, serde_json::from_str::<Request>(&line)) {
        (Ok(_), Ok(request)) => match work(request) {
            Ok(pid) => Answer::Pid(pid),
            Err(why) => Answer::Error(why),
        },
        _ => Answer::Error("the job cannot be read".into()),
    };
    let mut text = serde_json::to_vec(&answer).unwrap_or_default();
    text.push(b'\n');
    if control.write_all(&text).is_ok() {
        let _ = control.read(&mut [0]);
    }
}

fn work(request: Request) -> Result<i32, String> {
    match &request.process {
        None => create(&request).map_err(told),
        Some(process) => exec(&request, process),
    }
}

/// All that an error has to say, in one sentence.
fn told<E: std::error::Error>(error: E) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

fn builder(request: &Request) -> ContainerBuilder {
    let id = request.container_id.clone();
    ContainerBuilder::new(id, SyscallType::Linux)
        .with_console_socket(request.console.clone())
        .with_executor(ReportingExecutor { report: REPORT_FD })
}

fn create(request: &Request) -> Result<i32, libcontainer::error::LibcontainerError> {
    let mut container = builder(request)
        .with_root_path(paths::OCI)?
        .as_init(&request.bundle)
        .with_systemd(false)
        .build()?;
    container.start()?;
    Ok(container.pid().map_or(0, |pid| pid.as_raw()))
}

/// libcontainer leaves sockets behind for each exec; a root of its own keeps them apart, and
/// execs from one another.
fn exec(request: &Request, process: &Path) -> Result<i32, String> {
    let root = process.with_extension("root");
    let state = root.join(&request.container_id);
    let container = Path::new(paths::OCI).join(&request.container_id);
    let copied = fs::create_dir_all(&state)
        .and_then(|()| fs::copy(container.join("state.json"), state.join("state.json")))
        .map_err(|e| format!("cannot prepare {}: {e}", state.display()));
    let made = copied.and_then(|_| {
        builder(request)
            .with_root_path(&root)
            .and_then(|b| {
                b.as_tenant()
                    .with_process(Some(process))
                    .with_detach(true)
                    .build()
            })
            .map(|pid| pid.as_raw())
            .map_err(told)
    });
    // What is left is on a tmpfs and goes with the container's folder.
    let _ = fs::remove_dir_all(&root);
    made
}
