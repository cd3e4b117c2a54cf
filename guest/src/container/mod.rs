//! Containers: their state, and what may be done to them in it.

mod cgroup;
mod create;
mod exec;
mod life;
mod remove;
mod resources;
mod rootfs;

pub use cgroup::CgroupWatch;
pub use create::{blocking, make_dir};
pub use exec::exec;
pub use remove::unmount;
pub use resources::update;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::error::{Error, Result};
use crate::paths;
use crate::pb::{ContainerInfo, ContainerState};
use crate::stdio::{AsyncFile, AttachHub, OutputLog};

/// What does not change after CreateContainer.
pub struct Settings {
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    pub termination_log: bool,
}

/// One container. Its lock is never held across an await.
pub struct Container {
    pub id: String,
    pub settings: Settings,
    pub output: Arc<OutputLog>,
    pub viewers: Arc<AttachHub>,
    /// Our end of its stdin, or its terminal; None when closed or never there.
    pub stdin: tokio::sync::Mutex<Option<Arc<AsyncFile>>>,
    /// One start, stop or removal at a time.
    pub turn: tokio::sync::Mutex<()>,
    state: Mutex<ContainerInfo>,
    /// Changes with the state.
    changed: watch::Sender<ContainerState>,
    /// True once no process is left in the cgroup after the exit.
    dead: watch::Sender<bool>,
    tasks: Mutex<Vec<AbortHandle>>,
    oom_kills: Mutex<u64>,
}

impl Container {
    fn new(id: &str, settings: Settings) -> Self {
        let streams = if settings.tty { 1 } else { 2 };
        let info = ContainerInfo {
            container_id: id.to_owned(),
            state: ContainerState::Created.into(),
            ..ContainerInfo::default()
        };
        Self {
            id: id.to_owned(),
            settings,
            output: Arc::new(OutputLog::new(streams)),
            viewers: Arc::new(AttachHub::new()),
            stdin: tokio::sync::Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            state: Mutex::new(info),
            changed: watch::channel(ContainerState::Created).0,
            dead: watch::channel(false).0,
            tasks: Mutex::default(),
            oom_kills: Mutex::default(),
        }
    }

    pub fn info(&self) -> ContainerInfo {
        crate::lock(&self.state).clone()
    }

    pub fn folder(&self) -> PathBuf {
        PathBuf::from(paths::CONTAINERS).join(&self.id)
    }

    pub fn cgroup(&self) -> PathBuf {
        PathBuf::from(paths::POD_CGROUP).join(&self.id)
    }

    /// A receiver of state changes.
    pub fn changes(&self) -> watch::Receiver<ContainerState> {
        self.changed.subscribe()
    }

    fn set(&self, change: impl FnOnce(&mut ContainerInfo)) -> ContainerInfo {
        let mut info = crate::lock(&self.state);
        change(&mut info);
        let after = info.clone();
        drop(info);
        self.changed.send_replace(after.state());
        after
    }

    fn own(&self, task: &tokio::task::JoinHandle<()>) {
        crate::lock(&self.tasks).push(task.abort_handle());
    }

    /// Returns the pid, or why there is none.
    pub fn running(&self) -> Result<i32> {
        let info = self.info();
        match info.state() {
            ContainerState::Running => Ok(info.pid),
            _ => Err(Error::precondition(format!(
                "container {} is not running",
                self.id
            ))),
        }
    }
}

/// All containers of the pod, by id.
#[derive(Default)]
pub struct Registry {
    all: Mutex<BTreeMap<String, Arc<Container>>>,
}

impl Registry {
    pub fn get(&self, id: &str) -> Result<Arc<Container>> {
        crate::lock(&self.all)
            .get(id)
            .cloned()
            .ok_or_else(|| Error::not_found(format!("there is no container {id:?}")))
    }

    pub fn list(&self) -> Vec<Arc<Container>> {
        crate::lock(&self.all).values().cloned().collect()
    }

    fn insert(&self, container: Arc<Container>) {
        crate::lock(&self.all).insert(container.id.clone(), container);
    }

    fn remove(&self, id: &str) {
        crate::lock(&self.all).remove(id);
    }
}
