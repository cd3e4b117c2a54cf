//! State changes, numbered, the last 1024 of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::pb::{event::Kind, ContainerInfo, Event};

const KEPT: usize = 1024;

/// The log of changes that `Events` streams from.
#[derive(Clone)]
pub struct EventLog {
    kept: Arc<Mutex<VecDeque<Event>>>,
    latest: watch::Sender<i64>,
}

impl Default for EventLog {
    fn default() -> Self {
        Self {
            kept: Arc::default(),
            latest: watch::channel(0).0,
        }
    }
}

impl EventLog {
    /// Notes a change and wakes those who follow.
    pub fn push(&self, kind: Kind, container: ContainerInfo) {
        let mut kept = crate::lock(&self.kept);
        let seq = *self.latest.borrow() + 1;
        kept.push_back(Event {
            seq,
            kind: kind.into(),
            container: Some(container),
        });
        if kept.len() > KEPT {
            kept.pop_front();
        }
        drop(kept);
        self.latest.send_replace(seq);
    }

    /// The number of the newest event.
    pub fn seq(&self) -> i64 {
        *self.latest.borrow()
    }

    /// A receiver that changes with each event.
    pub fn subscribe(&self) -> watch::Receiver<i64> {
        self.latest.subscribe()
    }

    /// The events after `seq`; first a RESYNC where some are gone (or `seq` is of another guest).
    pub fn after(&self, seq: i64) -> Vec<Event> {
        let kept = crate::lock(&self.kept);
        let latest = *self.latest.borrow();
        let oldest = kept.front().map_or(latest + 1, |e| e.seq);
        let mut found = Vec::new();
        if seq > latest || seq + 1 < oldest {
            found.push(Event {
                seq: if seq > latest { latest } else { oldest - 1 },
                kind: Kind::Resync.into(),
                container: None,
            });
        }
        found.extend(kept.iter().filter(|e| e.seq > seq).cloned());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_told() {
        let log = EventLog::default();
        assert!(log.after(0).is_empty());
        for _ in 0..KEPT + 2 {
            log.push(Kind::Container, ContainerInfo::default());
        }
        let all = log.after(0);
        assert_eq!(all[0].kind(), Kind::Resync);
        assert_eq!((all[0].seq, all[1].seq), (2, 3));
        let latest = log.seq();
        assert_eq!(log.after(latest - 1).len(), 1);
        assert_eq!(log.after(latest + 5)[0].kind(), Kind::Resync);
    }
}
