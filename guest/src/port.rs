//! A virtio-serial port as a byte stream, and the wait for a host on its other end.
//!
//! A port has no connect and no accept: while no host holds the other end, poll says POLLHUP and
//! a read says end-of-file. The kernel wakes the port's wait queue when that changes, which an
//! edge-triggered epoll of our own turns into something to wait on; tokio's readiness cannot
//! be used for it, since it takes a hang-up for final.
//!
//! At most one epoll may watch a port at a time. The kernel's poll of a port takes what has come
//! out of the queue (virtio_console's `port_has_data`, `reclaim_consumed_buffers`), and an interrupt
//! that finds the queue empty wakes nobody: what one epoll has seen the other is never told.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{ready, Context, Poll};

use nix::fcntl::{open, OFlag};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::stat::Mode;
use nix::unistd::{read, write};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::frames::{align, Frames};

/// An open port; the kernel allows one descriptor for it at a time.
pub struct Port {
    fd: OwnedFd,
    /// What the next client has said while the last one was still served.
    begun: Arc<Mutex<Vec<u8>>>,
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
        let begun = Arc::default();
        Ok(Self { fd, begun })
    }

    /// Returns once a host holds the other end. No stream of the port may be there meanwhile.
    pub async fn wait_for_host(&self) -> io::Result<()> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        epoll.add(&self.fd, EpollEvent::new(edges, 0))?;
        // SAFETY: what is registered owns its descriptor, which does not change.
        let changes =
            unsafe { AsyncFd::register_with_interest(EpollFd(epoll), Interest::READABLE) }?;
        loop {
            // Taking the pending edges first: one that comes after it is seen by the wait below.
            let mut events = [EpollEvent::empty(); 1];
            changes.get_ref().0.wait(&mut events, EpollTimeout::ZERO)?;
            if self.has_host()? {
                return Ok(());
            }
            changes.readable().await?.clear_ready();
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
        let mut head = std::mem::take(&mut *crate::lock(&self.begun));
        Ok(PortStream {
            fd,
            in_step: align(&mut head),
            head,
            frames: Frames::default(),
            over: false,
            next: self.begun.clone(),
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
/// preface of this one; it ends where the preface of another one begins.
pub struct PortStream {
    fd: AsyncFd<OwnedFd>,
    head: Vec<u8>,
    in_step: bool,
    frames: Frames,
    over: bool,
    next: Arc<Mutex<Vec<u8>>>,
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

impl AsyncRead for PortStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.over {
            return Poll::Ready(Ok(()));
        }
        while !self.in_step {
            let mut chunk = [0; 4096];
            let n = ready!(self.poll_fd(cx, &mut chunk))?;
            if n == 0 {
                return Poll::Ready(Ok(()));
            }
            self.head.extend_from_slice(&chunk[..n]);
            self.in_step = align(&mut self.head);
        }
        let n = if self.head.is_empty() {
            ready!(self.poll_fd(cx, buf.initialize_unfilled()))?
        } else {
            let n = self.head.len().min(buf.remaining());
            buf.initialize_unfilled()[..n].copy_from_slice(&self.head[..n]);
            self.head.drain(..n);
            n
        };
        match self.frames.next_client(&buf.initialize_unfilled()[..n]) {
            None => buf.advance(n),
            Some((own, mut begun)) => {
                begun.append(&mut self.head);
                *crate::lock(&self.next) = begun;
                self.over = true;
                buf.advance(own);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PortStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Nothing of this connection may reach the next client.
        if self.over {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
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
