//! RemoveContainer: what is left is killed, and every trace goes.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::mount::{umount2, MntFlags};

use super::create::blocking;
use super::{rootfs, Container};
use crate::error::{Context, Error, Result};
use crate::paths;
use crate::pb::ContainerState;
use crate::service::Guest;

impl Guest {
    /// Kills what is left and removes the container; one that is not there answers OK.
    pub async fn remove_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(container) = self.containers.get(id) else {
            return Ok(());
        };
        let _turn = container.turn.lock().await;
        let mut changes = container.changes();
        while container.info().state() == ContainerState::Running {
            container.kill_cgroup();
            changes.changed().await.context("wait for a container")?;
        }
        if container.info().state() == ContainerState::Exited {
            let mut dead = container.dead.subscribe();
            container.note_emptiness();
            let _ = dead.wait_for(|dead| *dead).await;
        }
        for task in crate::lock(&container.tasks).drain(..) {
            task.abort();
        }
        container.viewers.end();
        self.cgroup_watch.forget(&container);
        let cleaned = container.clone();
        blocking(move || clean(&cleaned)).await?;
        self.containers.remove(id);
        Ok(())
    }
}

/// Removes what CreateContainer makes, as far as it is there.
pub fn clean(container: &Container) -> Result<()> {
    let folder = container.folder();
    if let Ok(entries) = fs::read_dir(folder.join("subpaths")) {
        for entry in entries.flatten() {
            unmount(&entry.path())?;
        }
    }
    unmount(&folder.join("rootfs"))?;
    remove_all(&folder)?;
    remove_all(&rootfs::layer(&container.id))?;
    remove_all(&Path::new(paths::OCI).join(&container.id))?;
    remove_cgroup(&container.cgroup())
}

/// Unmounts `path` if something is mounted there.
pub fn unmount(path: &Path) -> Result<()> {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(why) => Err(Error::internal(format!(
            "cannot unmount {}: {why}",
            path.display()
        ))),
    }
}

fn remove_all(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(Error::internal(format!(
            "cannot remove {}: {why}",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// Removes a cgroup and those that the container made in it, the deepest first.
fn remove_cgroup(dir: &Path) -> Result<()> {
    if let Ok(entries) = fs::read_dir(dir) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                remove_cgroup(&entry.path())?;
            }
        }
    }
    match fs::remove_dir(dir) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => {
            Err(why).context(format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
