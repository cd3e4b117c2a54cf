//! A virtio-serial port as a byte stream, and the wait for a host on its other end.
//!
//! A port has no connect and no accept: while no host holds the other end, poll says POLLHUP and
//! a read says end-of-file. The kernel wakes the port's wait queue when that changes, which an
//! edge-triggered epoll of our own turns into something to wait on; tokio's readiness cannot
//! be used for it, since it takes a hang-up for final.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{ready, Context, Poll};

use nix::fcntl::{open, OFlag};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::stat::Mode;
use nix::unistd::{read, write};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// What an HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An open port; the kernel allows one descriptor for it at a time.
pub struct Port {
    fd: OwnedFd,
    changes: AsyncFd<EpollFd>,
}

struct EpollFd(Epoll);

impl AsRawFd for EpollFd {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for EpollFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0 .0.as_fd()
    }
}

impl Port {
    /// Opens the port that the host named `name`.
    pub fn open(name: &str) -> io::Result<Self> {
        let fd = open(
            &find(name)?,
            OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        epoll.add(&fd, EpollEvent::new(edges, 0))?;
        // SAFETY: what is registered owns its descriptor, which does not change.
        let changes =
            unsafe { AsyncFd::register_with_interest(EpollFd(epoll), Interest::READABLE) }?;
        Ok(Self { fd, changes })
    }

    /// Returns once a host holds the other end.
    pub async fn wait_for_host(&self) -> io::Result<()> {
        loop {
            // Taking the pending edges first: one that comes after it is seen by the wait below.
            let mut events = [EpollEvent::empty(); 1];
            self.changes
                .get_ref()
                .0
                .wait(&mut events, EpollTimeout::ZERO)?;
            if self.has_host()? {
                return Ok(());
            }
            self.changes.readable().await?.clear_ready();
        }
    }

    fn has_host(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO)?;
        let hung_up = fds[0]
            .revents()
            .is_some_and(|r| r.contains(PollFlags::POLLHUP));
        Ok(!hung_up)
    }

    /// Returns the byte stream to the host that is there now.
    pub fn stream(&self) -> io::Result<PortStream> {
        // SAFETY: an owned descriptor does not change.
        let fd = unsafe { AsyncFd::register(self.fd.try_clone()?) }?;
        Ok(PortStream {
            fd,
            head: Vec::new(),
            in_step: false,
        })
    }
}

fn find(name: &str) -> io::Result<PathBuf> {
    for entry in std::fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        let found = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if found.trim_end() == name {
            return Ok(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("the VM has no virtio-serial port named {name}"),
    ))
}

/// The stream of one connection: what an earlier client left unread is dropped, up to the
/// preface of this one.
pub struct PortStream {
    fd: AsyncFd<OwnedFd>,
    head: Vec<u8>,
    in_step: bool,
}

impl PortStream {
    fn poll_fd(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            // tokio never takes a hang-up back: the host went, and perhaps another one came.
            let gone = guard.ready().is_read_closed();
            match guard.try_io(|fd| Ok(read(fd, buf)?)) {
                Ok(done) => return Poll::Ready(done),
                Err(_) if gone => return Poll::Ready(Ok(0)),
                Err(_) => {}
            }
        }
    }
}

/// Drops from `head` what cannot belong to a preface; true once it starts with one.
fn align(head: &mut Vec<u8>) -> bool {
    if let Some(at) = head.windows(PREFACE.len()).position(|w| w == PREFACE) {
        head.drain(..at);
        return true;
    }
    let keep = PREFACE.len() - 1;
    if head.len() > keep {
        head.drain(..head.len() - keep);
    }
    false
}

impl AsyncRead for PortStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.in_step {
            let mut chunk = [0; 4096];
            let n = ready!(self.poll_fd(cx, &mut chunk))?;
            if n == 0 {
                return Poll::Ready(Ok(()));
            }
            self.head.extend_from_slice(&chunk[..n]);
            self.in_step = align(&mut self.head);
        }
        if !self.head.is_empty() {
            let n = self.head.len().min(buf.remaining());
            buf.put_slice(&self.head[..n]);
            self.head.drain(..n);
            return Poll::Ready(Ok(()));
        }
        let n = ready!(self.poll_fd(cx, buf.initialize_unfilled()))?;
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PortStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            let gone = guard.ready().is_write_closed();
            match guard.try_io(|fd| Ok(write(fd, buf)?)) {
                Ok(done) => return Poll::Ready(done),
                Err(_) if gone => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Err(_) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::{align, PREFACE};

    #[test]
    fn what_an_earlier_client_left_is_dropped() {
        let mut head = b"rest of a frame".to_vec();
        assert!(!align(&mut head));
        head.extend_from_slice(&PREFACE[..5]);
        assert!(!align(&mut head));
        head.extend_from_slice(&PREFACE[5..]);
        head.extend_from_slice(b"more");
        assert!(align(&mut head));
        assert_eq!(head, [PREFACE, b"more"].concat());
    }

    #[test]
    fn garbage_takes_no_memory() {
        let mut head = vec![b'P'; 1 << 16];
        assert!(!align(&mut head));
        assert_eq!(head.len(), PREFACE.len() - 1);
    }
}
