//! CreateContainer: everything but the program: root, files, sub-paths, cgroup.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use oci_spec::runtime::Spec;

use super::{remove, rootfs, Container, Settings};
use crate::error::{Context, Error, Result};
use crate::pb::{CreateContainerRequest, SubPath};
use crate::service::Guest;
use crate::{paths, volume};

impl Guest {
    /// Makes a container; a repeat of one that is there answers OK.
    pub async fn create_container(self: &Arc<Self>, request: CreateContainerRequest) -> Result<()> {
        let id = request.container_id.clone();
        paths::below(paths::CONTAINERS, &id, "container id")?;
        let _turn = self.creating.lock().await;
        if self.containers.get(&id).is_ok() {
            return Ok(());
        }
        let container = Arc::new(Container::new(
            &id,
            Settings {
                stdin: request.stdin,
                stdin_once: request.stdin_once,
                tty: request.tty,
                termination_log: !request.termination_message_path.is_empty(),
            },
        ));
        let made = {
            let container = container.clone();
            blocking(move || prepare(&container, &request)).await
        };
        let made = made.and_then(|()| self.cgroup_watch.add(&container));
        if let Err(why) = made {
            self.cgroup_watch.forget(&container);
            let container = container.clone();
            // The first error is the one to tell; a repeat of the call cleans up again.
            let _ = blocking(move || remove::clean(&container)).await;
            return Err(why);
        }
        self.containers.insert(container.clone());
        self.changed(&container);
        Ok(())
    }
}

/// Runs what would hold up the event loop in a thread.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("finish a task")?
}

fn prepare(container: &Container, request: &CreateContainerRequest) -> Result<()> {
    check(&request.oci_spec_json, request.tty)?;
    remove::clean(container)?;
    let folder = container.folder();
    make_dir(&folder, 0o700)?;
    rootfs::mount(container, &request.image_key)?;
    for dir in &request.make_directories {
        rootfs::make_directory(&folder.join("rootfs"), dir)?;
    }
    write_private(
        &folder.join("config.json"),
        request.oci_spec_json.as_bytes(),
        0o600,
    )?;
    make_dir(&folder.join("files"), 0o755)?;
    for (number, file) in request.files.iter().enumerate() {
        let path = folder.join("files").join(number.to_string());
        write_private(&path, &file.data, file.mode & 0o7777)?;
    }
    if container.settings.termination_log {
        // Any user of the container may write it.
        write_private(&folder.join("termination-log"), b"", 0o666)?;
    }
    make_dir(&folder.join("subpaths"), 0o755)?;
    for (number, sub_path) in request.sub_paths.iter().enumerate() {
        let SubPath {
            volume,
            path,
            read_only,
        } = sub_path;
        let at = folder.join("subpaths").join(number.to_string());
        volume::bind_sub_path(volume, path, *read_only, &at)?;
    }
    let cgroup = container.cgroup();
    fs::create_dir_all(&cgroup).context(format!("make {}", cgroup.display()))
}

/// Refuses a spec that cannot be read, or asks for what this guest does not do.
fn check(text: &str, tty: bool) -> Result<()> {
    let spec: Spec = serde_json::from_str(text)
        .map_err(|e| Error::invalid(format!("the OCI spec cannot be read: {e}")))?;
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| Error::invalid("the OCI spec has no process"))?;
    if process.terminal().unwrap_or(false) != tty {
        return Err(Error::invalid(
            "process.terminal of the OCI spec and tty of the request differ",
        ));
    }
    if spec.linux().is_none() {
        return Err(Error::invalid("the OCI spec has no linux section"));
    }
    if spec.hooks().is_some() {
        return Err(Error::invalid("the OCI spec has hooks, which are not run"));
    }
    Ok(())
}

pub fn make_dir(path: &Path, mode: u32) -> Result<()> {
    let tried = || format!("make {}", path.display());
    fs::create_dir_all(path).context(tried())?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).context(tried())
}

/// Writes a file that did not exist, with exactly that mode.
pub fn write_private(path: &Path, data: &[u8], mode: u32) -> Result<()> {
    let tried = || format!("write {}", path.display());
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .context(tried())?;
    file.write_all(data).context(tried())?;
    file.set_permissions(fs::Permissions::from_mode(mode))
        .context(tried())
}
