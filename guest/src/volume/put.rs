//! PutVolume: makes a volume, or gives a files volume its next content.

use std::fs;
use std::path::Path;

use nix::mount::{mount, MsFlags};

use super::{files, ownership, sub_path};
use crate::container::blocking;
use crate::disk::is_mount_point;
use crate::error::{Context, Error, Result};
use crate::paths;
use crate::pb::put_volume_request::Source;
use crate::pb::{FilesVolume, PutVolumeRequest, ScratchVolume, SharedVolume};
use crate::service::Guest;

const NONE: Option<&str> = None;

impl Guest {
    pub async fn put_volume(&self, request: PutVolumeRequest) -> Result<()> {
        let target = paths::below(paths::VOLUMES, &request.name, "volume name")?;
        let _turn = self.mounting.lock().await;
        if matches!(request.source, Some(Source::Shared(_))) {
            self.modules.load("share")?;
        }
        blocking(move || put(&target, &request)).await?;
        Ok(())
    }
}

fn put(target: &Path, request: &PutVolumeRequest) -> Result<()> {
    let rule = |read_only, on_root_mismatch| -> Result<Option<ownership::Rule>> {
        let Some(group) = request.fs_group else {
            return Ok(None);
        };
        Ok(Some(ownership::Rule {
            group: ownership::id(group, "fs_group")?,
            read_only,
            on_root_mismatch,
        }))
    };
    match &request.source {
        // New files are nobody's yet, whatever the root says.
        Some(Source::Files(source)) => put_files(target, source, rule(true, false)?.as_ref()),
        Some(Source::Scratch(source)) => {
            let rule = rule(false, request.fs_group_on_root_mismatch)?;
            put_scratch(target, &request.name, source)?;
            rule.map_or(Ok(()), |rule| ownership::apply(target, &rule))
        }
        Some(Source::ImageKey(key)) => put_image(target, key),
        Some(Source::Shared(source)) => put_shared(target, &request.name, source),
        None => Err(Error::invalid("PutVolume does not say what the volume is")),
    }
}

fn tmpfs(target: &Path, options: &str) -> Result<()> {
    fs::create_dir_all(target).context(format!("make {}", target.display()))?;
    if is_mount_point(target) {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(options))
        .context(format!("mount a tmpfs on {}", target.display()))
}

fn put_files(target: &Path, source: &FilesVolume, rule: Option<&ownership::Rule>) -> Result<()> {
    let files = files::check(source)?;
    tmpfs(target, "mode=0755")?;
    files::replace(target, &files, rule)
}

fn put_scratch(target: &Path, name: &str, source: &ScratchVolume) -> Result<()> {
    if source.memory {
        let size = match source.size_limit_bytes {
            0 => "50%".into(),
            bytes => bytes.to_string(),
        };
        return tmpfs(target, &format!("mode=0777,size={size}"));
    }
    if is_bound(target)? {
        return Ok(());
    }
    let disk = Path::new(paths::SCRATCH);
    if !is_mount_point(disk) {
        return Err(Error::precondition(
            "the scratch disk is not mounted; MountDisk comes first",
        ));
    }
    let folder = disk.join("volumes").join(name);
    crate::container::make_dir(&folder, 0o777)?;
    bind(&folder, target, MsFlags::empty())
}

fn put_image(target: &Path, key: &str) -> Result<()> {
    let image = paths::below(paths::IMAGES, key, "image key")?;
    if !is_mount_point(&image) {
        return Err(Error::precondition(format!(
            "the image {key} is not mounted; MountDisk comes first"
        )));
    }
    if is_bound(target)? {
        return Ok(());
    }
    bind(&image, target, MsFlags::MS_RDONLY)
}

fn put_shared(target: &Path, name: &str, source: &SharedVolume) -> Result<()> {
    if is_bound(target)? {
        return Ok(());
    }
    let share = Path::new(paths::RUN).join("shares").join(name);
    fs::create_dir_all(&share).context(format!("make {}", share.display()))?;
    if !is_mount_point(&share) {
        let tag = source.virtiofs_tag.as_str();
        mount(Some(tag), &share, Some("virtiofs"), MsFlags::empty(), NONE)
            .context(format!("mount the shared directory {tag}"))?;
    }
    let flags = if source.read_only {
        MsFlags::MS_RDONLY
    } else {
        MsFlags::empty()
    };
    if source.sub_path.is_empty() {
        return bind(&share, target, flags);
    }
    sub_path::bind_beneath(&share, &source.sub_path, source.read_only, target)
}

/// Whether something is mounted there, also from the same file system.
fn is_bound(target: &Path) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("list the mounts")?;
    let path = target.to_string_lossy();
    Ok(mounts
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(&path)))
}

fn bind(from: &Path, target: &Path, flags: MsFlags) -> Result<()> {
    fs::create_dir_all(target).context(format!("make {}", target.display()))?;
    let tried = || format!("bind {} to {}", from.display(), target.display());
    mount(Some(from), target, NONE, MsFlags::MS_BIND, NONE).context(tried())?;
    if flags.is_empty() {
        return Ok(());
    }
    let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags;
    mount(NONE, target, NONE, again, NONE).context(tried())
}
