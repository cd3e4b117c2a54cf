//! rtnetlink requests, as far as one interface needs them: built as bytes, sent, acknowledged.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    bind, recv, send, socket, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol,
    SockType,
};

const HEADER: usize = 16;

/// One request: header, a fixed part, attributes.
pub struct Request(Vec<u8>);

impl Request {
    /// `kind` as RTM_…, `flags` beside NLM_F_REQUEST and NLM_F_ACK.
    pub fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags;
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags.unsigned_abs() as u16).to_ne_bytes());
        bytes[8..12].copy_from_slice(&1_u32.to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self(bytes)
    }

    /// Adds an attribute, padded to four bytes.
    pub fn attribute(mut self, kind: u16, data: &[u8]) -> Self {
        let length = u16::try_from(data.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// The bytes of an address, as attributes hold them.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A socket to the kernel's routing tables.
pub struct Netlink(OwnedFd);

impl Netlink {
    pub fn open() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self(fd))
    }

    /// Sends a request; returns the kernel's verdict on it.
    pub fn ask(&self, request: Request) -> io::Result<()> {
        send(self.0.as_raw_fd(), &request.finish(), MsgFlags::empty())?;
        let mut answer = [0; 4096];
        let n = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        verdict(&answer[..n])
    }
}

/// Reads an NLMSG_ERROR, which an acknowledgement is as well.
fn verdict(answer: &[u8]) -> io::Result<()> {
    let error = answer
        .get(HEADER..HEADER + 4)
        .and_then(|b| b.try_into().ok())
        .map(i32::from_ne_bytes);
    match error {
        Some(0) => Ok(()),
        Some(negative) => Err(io::Error::from_raw_os_error(-negative)),
        None => Err(io::Error::other("the kernel's answer is too short")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_counted() {
        let bytes = Request::new(16, 0, &[0; 16]).attribute(1, &[9; 6]).finish();
        assert_eq!(bytes.len(), 16 + 16 + 12);
        assert_eq!(bytes[..4], 44_u32.to_ne_bytes());
        assert_eq!(bytes[32..34], 10_u16.to_ne_bytes());
        assert_eq!(bytes[36..44], [9, 9, 9, 9, 9, 9, 0, 0]);
    }

    #[test]
    fn an_error_is_an_errno() {
        let mut answer = [0; 36];
        assert!(verdict(&answer).is_ok());
        answer[16..20].copy_from_slice(&(-17_i32).to_ne_bytes());
        assert_eq!(
            verdict(&answer).map_err(|e| e.raw_os_error()),
            Err(Some(17))
        );
        assert!(verdict(&[0; 8]).is_err());
    }
}
