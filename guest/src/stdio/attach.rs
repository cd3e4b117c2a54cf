//! Live views of a container's output. A viewer that does not keep up loses its own data; the
//! container and its log never wait for it.

use std::sync::Mutex;

use bytes::Bytes;
use tokio::sync::mpsc;

/// What waits for one viewer, in chunks of at most 16 KiB.
const WAITING: usize = 64;

/// A chunk of output.
#[derive(Clone)]
pub struct Chunk {
    pub stderr: bool,
    pub data: Bytes,
}

/// The viewers of one container.
#[derive(Default)]
pub struct AttachHub {
    viewers: Mutex<Option<Vec<mpsc::Sender<Chunk>>>>,
}

impl AttachHub {
    pub fn new() -> Self {
        Self {
            viewers: Mutex::new(Some(Vec::new())),
        }
    }

    /// Returns what is written from now on; it ends with the container's output.
    pub fn subscribe(&self) -> mpsc::Receiver<Chunk> {
        let (sender, receiver) = mpsc::channel(WAITING);
        if let Some(viewers) = crate::lock(&self.viewers).as_mut() {
            viewers.push(sender);
        }
        receiver
    }

    /// Shows a chunk to all viewers that have room for it.
    pub fn show(&self, stderr: bool, data: &[u8]) {
        let mut viewers = crate::lock(&self.viewers);
        let Some(viewers) = viewers.as_mut() else {
            return;
        };
        viewers.retain(|v| !v.is_closed());
        if viewers.is_empty() {
            return;
        }
        let data = Bytes::copy_from_slice(data);
        for viewer in viewers {
            let data = data.clone();
            // A full queue is the viewer's own loss, by the contract of Attach.
            let _ = viewer.try_send(Chunk { stderr, data });
        }
    }

    /// Ends all views, also those to come.
    pub fn end(&self) {
        crate::lock(&self.viewers).take();
    }
}
