//! A container's output until the host has it: numbered, bounded, and acknowledged.

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::Bytes;
use tokio::sync::Notify;

use super::records::Piece;
use crate::error::{Error, Result};
use crate::pb::{OutputRecord, OutputResume};

/// Above this much that is not acknowledged, the writer waits.
pub const HELD_BYTES: usize = 1 << 20;
const COOKIE_BYTES: usize = 4096;
/// What a record costs beside its data: many short lines must not cost much more than they hold.
const RECORD_COST: usize = 128;

#[derive(Default)]
struct Held {
    records: VecDeque<OutputRecord>,
    bytes: usize,
    last_seq: i64,
    acked_seq: i64,
    cookie: Bytes,
    open_streams: u32,
    /// Only the newest stream to the host goes on.
    reader: u64,
}

/// The records of both streams of one container.
pub struct OutputLog {
    held: Mutex<Held>,
    grown: Notify,
    shrunk: Notify,
}

impl OutputLog {
    /// A log that ends when `streams` writers have closed.
    pub fn new(streams: u32) -> Self {
        let held = Held {
            open_streams: streams,
            ..Held::default()
        };
        Self {
            held: Mutex::new(held),
            grown: Notify::new(),
            shrunk: Notify::new(),
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        crate::lock(&self.held)
    }

    /// Returns when a writer may go on.
    pub async fn room(&self) {
        loop {
            let shrunk = self.shrunk.notified();
            tokio::pin!(shrunk);
            shrunk.as_mut().enable();
            if self.held().bytes < HELD_BYTES {
                return;
            }
            shrunk.await;
        }
    }

    /// Adds a piece that was complete at `time_ns`.
    pub fn push(&self, stderr: bool, time_ns: i64, piece: Piece) {
        let mut held = self.held();
        held.last_seq += 1;
        held.bytes += piece.data.len() + RECORD_COST;
        let record = OutputRecord {
            seq: held.last_seq,
            stderr,
            time_ns,
            data: piece.data.into(),
            partial: piece.partial,
            eof: false,
            resume: None,
        };
        held.records.push_back(record);
        drop(held);
        self.grown.notify_waiters();
    }

    /// Says that one of the streams has ended; the last one adds the record that says so.
    pub fn close_stream(&self, time_ns: i64) {
        let mut held = self.held();
        if held.open_streams == 0 {
            return;
        }
        held.open_streams -= 1;
        if held.open_streams > 0 {
            return;
        }
        held.last_seq += 1;
        let seq = held.last_seq;
        held.records.push_back(OutputRecord {
            seq,
            time_ns,
            eof: true,
            ..OutputRecord::default()
        });
        drop(held);
        self.grown.notify_waiters();
    }

    /// Forgets all records up to `seq` and keeps the host's cookie for them.
    pub fn acknowledge(&self, seq: i64, cookie: Bytes) -> Result<()> {
        let mut held = self.held();
        if seq > held.last_seq {
            return Err(Error::invalid(format!(
                "record {seq} was acknowledged, and the last one is {}",
                held.last_seq
            )));
        }
        if cookie.len() > COOKIE_BYTES {
            return Err(Error::invalid(format!(
                "a cookie has at most {COOKIE_BYTES} bytes, this one {}",
                cookie.len()
            )));
        }
        if seq <= held.acked_seq {
            return Ok(());
        }
        while held.records.front().is_some_and(|r| r.seq <= seq) {
            if let Some(gone) = held.records.pop_front() {
                if !gone.eof {
                    held.bytes -= gone.data.len() + RECORD_COST;
                }
            }
        }
        held.acked_seq = seq;
        held.cookie = cookie;
        drop(held);
        self.shrunk.notify_waiters();
        self.grown.notify_waiters();
        Ok(())
    }

    /// Begins a stream to the host, and ends the one before; returns its number and first record.
    pub fn resume(&self) -> (u64, OutputRecord) {
        let mut held = self.held();
        held.reader += 1;
        let first = OutputRecord {
            resume: Some(OutputResume {
                acked_seq: held.acked_seq,
                cookie: held.cookie.clone(),
            }),
            ..OutputRecord::default()
        };
        let reader = held.reader;
        drop(held);
        self.grown.notify_waiters();
        (reader, first)
    }

    /// Returns the first record after `seq`, once there is one; None when a newer stream has
    /// begun, or when the last record has been acknowledged.
    pub async fn next(&self, reader: u64, seq: i64) -> Option<OutputRecord> {
        loop {
            let grown = self.grown.notified();
            tokio::pin!(grown);
            grown.as_mut().enable();
            {
                let held = self.held();
                let complete = held.open_streams == 0 && held.acked_seq == held.last_seq;
                if held.reader != reader || complete {
                    return None;
                }
                // Records are numbered without gaps.
                if let Some(front) = held.records.front() {
                    let at = usize::try_from(seq + 1 - front.seq).unwrap_or(0);
                    if let Some(record) = held.records.get(at) {
                        return Some(record.clone());
                    }
                }
            }
            grown.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &[u8]) -> Piece {
        Piece {
            data: text.to_vec(),
            partial: false,
        }
    }

    #[tokio::test]
    async fn a_new_stream_begins_after_the_last_acknowledgement() {
        let log = OutputLog::new(1);
        log.push(false, 1, piece(b"a\n"));
        log.push(true, 2, piece(b"b\n"));
        log.acknowledge(1, Bytes::from_static(b"place"))
            .expect("a record that exists");
        let (first, resume) = log.resume();
        let resume = resume.resume.expect("the first record resumes");
        assert_eq!((resume.acked_seq, &resume.cookie[..]), (1, &b"place"[..]));
        let record = log.next(first, 1).await.expect("record 2");
        assert_eq!((record.seq, record.stderr), (2, true));
        let (second, _) = log.resume();
        assert!(log.next(first, 2).await.is_none(), "the older stream ends");
        log.close_stream(3);
        assert!(log.next(second, 2).await.is_some_and(|r| r.eof));
        log.acknowledge(3, Bytes::new()).expect("the last record");
        assert!(log.next(second, 3).await.is_none());
    }

    #[tokio::test]
    async fn a_writer_waits_until_the_host_has_it() {
        let log = OutputLog::new(1);
        while log.held().bytes < HELD_BYTES {
            log.push(false, 1, piece(&[b'x'; 1000]));
        }
        let room = log.room();
        tokio::pin!(room);
        assert!(futures_now(room.as_mut()).is_none());
        log.acknowledge(1, Bytes::new()).expect("record 1");
        log.acknowledge(2, Bytes::new()).expect("record 2");
        assert!(futures_now(room).is_some());
        assert!(log.acknowledge(1 << 40, Bytes::new()).is_err());
    }

    fn futures_now<F: std::future::Future>(f: std::pin::Pin<&mut F>) -> Option<F::Output> {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match f.poll(&mut cx) {
            std::task::Poll::Ready(out) => Some(out),
            std::task::Poll::Pending => None,
        }
    }
}
