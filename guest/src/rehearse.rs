//! Rehearse: what every pod's start does, once, in a VM that is nobody's yet. An emulator has then
//! translated it, and the kernel has what it makes at the first need. Leaves no trace.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::mount::{mount, MsFlags};

use crate::container::{blocking, make_dir, unmount};
use crate::error::{Context, Error, Result};
use crate::pb::{ContainerState, CreateContainerRequest, RehearseRequest};
use crate::service::Guest;
use crate::{boot, configure, paths};

/// Of the container and of its image.
const NAME: &str = "rehearsal";
/// This program, where a container's spec can name it: its own file is on a root that is gone.
const PROGRAM: &str = "/run/vk/program";
/// What its program is given, so that it ends at once (`vk_guest::run`).
pub const ARGUMENT: &str = "rehearse";

impl Guest {
    /// Runs a container of the guest agent's own program to its end.
    pub async fn rehearse(self: &Arc<Self>, request: RehearseRequest) -> Result<()> {
        let _turn = self.configuring.lock().await;
        if !self.sandbox_id().is_empty() {
            return Err(Error::precondition("this guest is a pod's already"));
        }
        let RehearseRequest {
            entropy,
            oci_spec_json,
        } = request;
        blocking(move || {
            configure::prepare(&entropy)?;
            stage()
        })
        .await?;
        let done = self.perform(oci_spec_json).await;
        self.remove_container(NAME).await?;
        blocking(|| {
            unmount(Path::new(PROGRAM))?;
            fs::remove_file(PROGRAM).context("remove the rehearsal's program")?;
            unmount(&image())?;
            fs::remove_dir(image()).context("remove the rehearsal's image")?;
            // Its counters are the pod's bill, and begin with the pod.
            fs::remove_dir(paths::POD_CGROUP).context("remove the rehearsal's cgroup")?;
            boot::pod_cgroup()
        })
        .await?;
        done
    }

    async fn perform(self: &Arc<Self>, oci_spec_json: String) -> Result<()> {
        self.create_container(CreateContainerRequest {
            container_id: NAME.into(),
            image_key: NAME.into(),
            oci_spec_json,
            ..CreateContainerRequest::default()
        })
        .await?;
        let container = self.containers.get(NAME)?;
        let started = self.start_container(NAME).await?;
        if !started.error.is_empty() {
            return Err(Error::internal(started.error));
        }
        let mut changes = container.changes();
        let ended = changes.wait_for(|state| *state == ContainerState::Exited);
        ended.await.map(drop).context("wait for the rehearsal")
    }
}

fn image() -> PathBuf {
    Path::new(paths::IMAGES).join(NAME)
}

/// Makes an image of nothing: the host's spec has the program bound into the container.
fn stage() -> Result<()> {
    let at = image();
    make_dir(&at, 0o755)?;
    let none: Option<&str> = None;
    mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), none)
        .context("mount the rehearsal's image")?;
    for dir in ["dev", "etc", "proc", "sys"] {
        make_dir(&at.join(dir), 0o755)?;
    }
    fs::File::create(PROGRAM).context("make the rehearsal's program")?;
    mount(
        Some("/proc/self/exe"),
        PROGRAM,
        none,
        MsFlags::MS_BIND,
        none,
    )
    .context("bind the rehearsal's program")
}
