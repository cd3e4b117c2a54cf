//! GuestService: messages to calls and back. What a call does stands in the room it belongs to.

mod calls;
mod streams;

use std::sync::{Arc, Mutex};

use crate::boot::Modules;
use crate::container::{CgroupWatch, Registry};
use crate::error::Result;
use crate::events::EventLog;
use crate::reaper::Reaper;
use crate::stats::WalkCache;

/// All that the guest knows.
pub struct Guest {
    pub modules: Modules,
    pub events: EventLog,
    pub reaper: Reaper,
    pub containers: Registry,
    pub cgroup_watch: CgroupWatch,
    pub walked: WalkCache,
    /// The sandbox's id; empty before Configure.
    pub sandbox: Mutex<String>,
    /// One at a time: configuring.
    pub configuring: tokio::sync::Mutex<()>,
    /// One at a time: mounting, volumes.
    pub mounting: tokio::sync::Mutex<()>,
    /// One at a time: making containers.
    pub creating: tokio::sync::Mutex<()>,
}

impl Guest {
    pub fn sandbox_id(&self) -> String {
        crate::lock(&self.sandbox).clone()
    }
}

/// The service on both ports.
#[derive(Clone)]
pub struct Service(Arc<Guest>);

impl Service {
    pub fn new(modules: Modules) -> Result<Self> {
        Ok(Self(Arc::new(Guest {
            modules,
            events: EventLog::default(),
            reaper: Reaper::default(),
            containers: Registry::default(),
            cgroup_watch: CgroupWatch::new()?,
            walked: WalkCache::default(),
            sandbox: Mutex::default(),
            configuring: tokio::sync::Mutex::default(),
            mounting: tokio::sync::Mutex::default(),
            creating: tokio::sync::Mutex::default(),
        })))
    }

    pub fn guest(&self) -> &Arc<Guest> {
        &self.0
    }
}
