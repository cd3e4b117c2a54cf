//! What the kernel says about containers' cgroups: kills for want of memory, and emptiness.
//! One inotify for all of them; nothing is read before the kernel says that it changed.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

use super::Container;
use crate::error::{Context, Result};
use crate::pb::event::Kind;
use crate::pb::ContainerState;
use crate::service::Guest;

struct Source(Inotify);

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Watches memory.events and cgroup.events of every container.
#[derive(Clone)]
pub struct CgroupWatch {
    source: Arc<AsyncFd<Source>>,
    watched: Arc<Mutex<HashMap<WatchDescriptor, String>>>,
}

impl CgroupWatch {
    pub fn new() -> Result<Self> {
        let flags = InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC;
        let inotify = Inotify::init(flags).context("watch cgroups")?;
        // SAFETY: what is registered owns its descriptor, which does not change.
        let source =
            unsafe { AsyncFd::register_with_interest(Source(inotify), Interest::READABLE) }
                .context("watch cgroups")?;
        Ok(Self {
            source: Arc::new(source),
            watched: Arc::default(),
        })
    }

    /// Begins to watch a container whose cgroup is there.
    pub fn add(&self, container: &Container) -> Result<()> {
        for file in ["memory.events", "cgroup.events"] {
            let path = container.cgroup().join(file);
            let watch = self
                .source
                .get_ref()
                .0
                .add_watch(&path, AddWatchFlags::IN_MODIFY)
                .context(format!("watch {}", path.display()))?;
            crate::lock(&self.watched).insert(watch, container.id.clone());
        }
        Ok(())
    }

    /// Forgets a container; the kernel drops the watches with the cgroup.
    pub fn forget(&self, container: &Container) {
        let mut watched = crate::lock(&self.watched);
        let gone: Vec<_> = watched
            .iter()
            .filter(|(_, id)| **id == container.id)
            .map(|(watch, _)| *watch)
            .collect();
        for watch in gone {
            watched.remove(&watch);
            // Where the cgroup is gone already, so is the watch.
            let _ = self.source.get_ref().0.rm_watch(watch);
        }
    }

    /// Passes on what the kernel says, for ever.
    pub async fn run(self, guest: Arc<Guest>) -> std::io::Result<()> {
        loop {
            let mut guard = self.source.readable().await?;
            loop {
                let events = match self.source.get_ref().0.read_events() {
                    Ok(events) => events,
                    Err(Errno::EAGAIN) => break,
                    Err(why) => return Err(why.into()),
                };
                for event in events {
                    let id = crate::lock(&self.watched).get(&event.wd).cloned();
                    if let Some(container) = id.and_then(|id| guest.containers.get(&id).ok()) {
                        guest.cgroup_changed(&container);
                    }
                }
            }
            guard.clear_ready();
        }
    }
}

impl Guest {
    fn cgroup_changed(&self, container: &Arc<Container>) {
        if container.info().state() == ContainerState::Running && container.count_oom_kills() {
            self.events.push(Kind::Oom, container.info());
        }
        container.note_emptiness();
    }
}

impl Container {
    /// Returns whether there are more kills for want of memory than at the last look.
    pub(super) fn count_oom_kills(&self) -> bool {
        let now = flat_value(&self.cgroup().join("memory.events"), "oom_kill");
        let mut known = crate::lock(&self.oom_kills);
        let more = now > *known;
        *known = now;
        more
    }

    pub(super) fn oom_kills(&self) -> u64 {
        *crate::lock(&self.oom_kills)
    }

    /// Says that the container is dead once it has exited and its cgroup is empty.
    pub(super) fn note_emptiness(&self) {
        let exited = self.info().state() == ContainerState::Exited;
        if exited && flat_value(&self.cgroup().join("cgroup.events"), "populated") == 0 {
            self.dead.send_replace(true);
        }
    }

    /// Kills every process of the cgroup.
    pub(super) fn kill_cgroup(&self) {
        // No such file: no such cgroup, and nothing in it.
        let _ = fs::write(self.cgroup().join("cgroup.kill"), "1");
    }
}

/// Returns a value of a "KEY VALUE" file; 0 where there is none.
pub fn flat_value(file: &Path, key: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    find_flat(&text, key)
}

fn find_flat(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(k, _)| *k == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn keys_are_whole_words() {
        let text = "low 0\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(super::find_flat(text, "oom_kill"), 2);
        assert_eq!(super::find_flat(text, "nothing"), 0);
    }
}
