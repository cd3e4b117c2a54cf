//! The last step inside a container: find the program and become it; what stands in the way is
//! told in runc's words, with the code that a shell gives.

use std::ffi::CString;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::errno::Errno;
use nix::sys::signal::{signal, SigHandler, Signal};
use nix::unistd::{access, execv, write, AccessFlags};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Reports failures as "CODE TEXT" on a descriptor that closes with the exec.
#[derive(Clone)]
pub struct ReportingExecutor {
    pub report: RawFd,
}

impl ReportingExecutor {
    fn failed(&self, code: i32, text: &str) -> String {
        // SAFETY: the descriptor is open in the helper and all that it forks.
        let report = unsafe { BorrowedFd::borrow_raw(self.report) };
        // The process ends with this error in any case.
        let _ = write(report, format!("{code} {text}").as_bytes());
        text.to_owned()
    }
}

impl Executor for ReportingExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let (args, path) = args_and_path(spec);
        let program = args.first().map_or("", String::as_str);
        let found = look_up(program, path)
            .map_err(|(code, why)| ExecutorError::Other(self.failed(code, &why)))?;
        let text = |s: &str| CString::new(s).map_err(|_| ExecutorError::InvalidArg);
        let file = text(&found.to_string_lossy())?;
        let argv = args
            .iter()
            .map(|a| text(a))
            .collect::<Result<Vec<_>, _>>()?;
        // Rust programs ignore SIGPIPE, and what is ignored stays so across an exec.
        // SAFETY: the default action is no handler.
        let reset = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
        let Err(errno) = reset.and_then(|_| execv(&file, &argv));
        let code = if errno == Errno::ENOENT { 127 } else { 126 };
        let why = format!("exec {program}: {}", in_words(errno));
        Err(ExecutorError::Other(self.failed(code, &why)))
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let (args, path) = args_and_path(spec);
        let program = args.first().map_or("", String::as_str);
        look_up(program, path).map(drop).map_err(|(code, why)| {
            ExecutorValidationError::ArgValidationError(self.failed(code, &why))
        })
    }
}

fn args_and_path(spec: &Spec) -> (&[String], &str) {
    let process = spec.process().as_ref();
    let args = process
        .and_then(|p| p.args().as_deref())
        .unwrap_or_default();
    let path = process
        .and_then(|p| p.env().as_deref())
        .unwrap_or_default()
        .iter()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    (args, path)
}

fn in_words(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOEXEC => "exec format error",
        Errno::EACCES => "permission denied",
        Errno::ENOENT => "no such file or directory",
        other => other.desc(),
    }
}

/// Finds a program as a shell does; or the exit code, and why not.
fn look_up(program: &str, path: &str) -> Result<PathBuf, (i32, String)> {
    if program.contains('/') {
        return match usable(Path::new(program)) {
            Ok(()) => Ok(program.into()),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Err((
                127,
                format!("exec: {program:?}: stat {program}: no such file or directory"),
            )),
            Err(Errno::EISDIR) => Err((126, format!("exec: {program:?}: is a directory"))),
            Err(errno) => Err((126, format!("exec: {program:?}: {}", in_words(errno)))),
        };
    }
    let mut forbidden = false;
    for dir in path.split(':').filter(|_| !program.is_empty()) {
        let candidate = Path::new(if dir.is_empty() { "." } else { dir }).join(program);
        match usable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::EACCES) => forbidden = true,
            Err(_) => {}
        }
    }
    if forbidden {
        return Err((126, format!("exec: {program:?}: permission denied")));
    }
    let why = format!("exec: {program:?}: executable file not found in $PATH");
    Err((127, why))
}

fn usable(file: &Path) -> Result<(), Errno> {
    let found = file
        .metadata()
        .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    if found.is_dir() {
        return Err(Errno::EISDIR);
    }
    if found.permissions().mode() & 0o111 == 0 {
        return Err(Errno::EACCES);
    }
    // By the container's user, which this process is by now.
    access(file, AccessFlags::X_OK)
}

#[cfg(test)]
mod tests {
    use super::look_up;

    #[test]
    fn what_cannot_be_run_is_told_as_runc_does() {
        assert!(look_up("sh", "/nowhere:/bin").is_ok_and(|p| p.ends_with("bin/sh")));
        assert_eq!(
            look_up("foo-bar", "/bin"),
            Err((
                127,
                "exec: \"foo-bar\": executable file not found in $PATH".into()
            ))
        );
        assert_eq!(
            look_up("/no/such", "/bin"),
            Err((
                127,
                "exec: \"/no/such\": stat /no/such: no such file or directory".into()
            ))
        );
        assert_eq!(look_up("/etc/passwd", "").map_err(|e| e.0), Err(126));
        assert_eq!(look_up("/tmp", "").map_err(|e| e.0), Err(126));
        assert_eq!(look_up("", "/bin").map_err(|e| e.0), Err(127));
    }
}
