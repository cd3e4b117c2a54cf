//! A pipe or a terminal as something to await.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::unistd::{pipe2, read, write};
use tokio::io::unix::AsyncFd;

/// Returns (read end, write end).
pub fn pipe_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_CLOEXEC)?)
}

/// Our end of a container's stream.
pub struct AsyncFile(AsyncFd<OwnedFd>);

impl AsyncFile {
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        // SAFETY: an owned descriptor does not change.
        Ok(Self(unsafe { AsyncFd::register(fd) }?))
    }

    /// Reads; 0 at the end. A terminal that its last program has left is at its end as well.
    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut guard = self.0.readable().await?;
            if let Ok(done) = guard.try_io(|fd| Ok(read(fd, buf)?)) {
                return ended(done);
            }
        }
    }

    /// Reads what is there now; None where nothing is.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match read(self.0.get_ref(), buf) {
            Err(Errno::EAGAIN) => Ok(None),
            done => ended(done.map_err(Into::into)).map(Some),
        }
    }

    /// Writes all of it; the reader's pace is ours.
    pub async fn write_all(&self, mut buf: &[u8]) -> io::Result<()> {
        while !buf.is_empty() {
            let mut guard = self.0.writable().await?;
            if let Ok(done) = guard.try_io(|fd| Ok(write(fd, buf)?)) {
                buf = &buf[done?..];
            }
        }
        Ok(())
    }

    /// Sets a terminal's size.
    pub fn resize(&self, width: u32, height: u32) -> io::Result<()> {
        resize(self.0.get_ref(), width, height)
    }
}

fn ended(done: io::Result<usize>) -> io::Result<usize> {
    match done {
        Err(why) if why.raw_os_error() == Some(Errno::EIO as i32) => Ok(0),
        done => done,
    }
}

nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, libc::winsize);

/// Sets the size of the terminal behind `fd`, in characters; what is too large is cut.
pub fn resize(fd: &impl AsRawFd, width: u32, height: u32) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: u16::try_from(height).unwrap_or(u16::MAX),
        ws_col: u16::try_from(width).unwrap_or(u16::MAX),
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the argument is a winsize, as the request wants it.
    unsafe { set_window_size(fd.as_raw_fd(), &raw const size) }?;
    Ok(())
}
