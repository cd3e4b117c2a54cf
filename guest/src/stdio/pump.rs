//! From a container's pipe or terminal to its log and its viewers.

use std::sync::Arc;

use tokio::sync::watch;

use super::records::{Splitter, RECORD_BYTES};
use super::{AsyncFile, AttachHub, OutputLog};
use crate::clock::now_ns;

/// Reads until all writers have closed, or, once `dead` says that no process of the container is
/// left, until what they wrote has been read: a writer that got the pipe elsewhere cannot keep
/// the log open.
pub async fn pump(
    from: Arc<AsyncFile>,
    stderr: bool,
    log: Arc<OutputLog>,
    viewers: Arc<AttachHub>,
    mut dead: watch::Receiver<bool>,
) {
    let mut splitter = Splitter::default();
    let mut buf = vec![0; RECORD_BYTES];
    loop {
        log.room().await;
        let got = tokio::select! {
            biased;
            got = from.read(&mut buf) => got.ok(),
            // An error means that the container is gone, which is as dead.
            _ = dead.wait_for(|dead| *dead) => from.try_read(&mut buf).ok().flatten(),
        };
        let Some(n @ 1..) = got else { break };
        viewers.show(stderr, &buf[..n]);
        let time_ns = now_ns();
        for piece in splitter.push(&buf[..n]) {
            log.push(stderr, time_ns, piece);
        }
    }
    if let Some(piece) = splitter.finish() {
        log.push(stderr, now_ns(), piece);
    }
    log.close_stream(now_ns());
}
