//! A container's root: the image below, the pod's scratch disk above.

use std::path::{Path, PathBuf};

use nix::mount::MsFlags;

use super::create::make_dir;
use super::Container;
use crate::error::{Context, Error, Result};
use crate::{disk, paths, volume};

/// Where a container's writable layer is.
pub fn layer(id: &str) -> PathBuf {
    Path::new(paths::SCRATCH).join("containers").join(id)
}

/// Mounts the root at `containers/ID/rootfs`.
pub fn mount(container: &Container, image_key: &str) -> Result<()> {
    let lower = paths::below(paths::IMAGES, image_key, "image key")?;
    if !disk::is_mount_point(&lower) {
        return Err(Error::precondition(format!(
            "the image {image_key} of container {} is not mounted; MountDisk comes first",
            container.id
        )));
    }
    if !disk::is_mount_point(Path::new(paths::SCRATCH)) {
        return Err(Error::precondition(
            "the scratch disk is not mounted; MountDisk comes first",
        ));
    }
    let layer = layer(&container.id);
    let (upper, work) = (layer.join("upper"), layer.join("work"));
    make_dir(&upper, 0o755)?;
    make_dir(&work, 0o755)?;
    let root = container.folder().join("rootfs");
    make_dir(&root, 0o755)?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    nix::mount::mount(
        Some("overlay"),
        &root,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .context(format!("mount the root of container {}", container.id))
}

/// Makes a folder inside the root, wherever the image's links lead, but never outside.
pub fn make_directory(root: &Path, dir: &str) -> Result<()> {
    volume::make_dirs_beneath(root, dir, 0o755).map(drop)
}
