//! Space: of the scratch disk, of volumes with a size of their own, of folders on the scratch disk.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use crate::disk::is_mount_point;
use crate::paths;
use crate::pb::FilesystemStats;

/// What a folder holds.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Used {
    pub bytes: u64,
    pub inodes: u64,
}

pub struct Volume {
    pub name: String,
    pub path: PathBuf,
    /// A folder of the scratch disk: its use has to be counted.
    pub on_scratch: bool,
}

/// A container's writable layer.
pub fn layer(id: &str) -> PathBuf {
    Path::new(paths::SCRATCH)
        .join("containers")
        .join(id)
        .join("upper")
}

/// The pod's volumes as they are mounted.
pub fn volumes() -> Vec<Volume> {
    let device = |p: &Path| fs::symlink_metadata(p).map(|m| m.dev()).ok();
    let scratch = device(Path::new(paths::SCRATCH));
    let Ok(entries) = fs::read_dir(paths::VOLUMES) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| Volume {
            name: entry.file_name().to_string_lossy().into_owned(),
            on_scratch: device(&entry.path()) == scratch,
            path: entry.path(),
        })
        .collect()
}

/// Counts a folder without leaving its file system. What changes meanwhile may be missed.
pub fn walk(folder: &Path) -> Used {
    let mut used = Used::default();
    let Ok(top) = fs::symlink_metadata(folder) else {
        return used;
    };
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(found) = entry.metadata() else {
                continue;
            };
            if found.dev() != top.dev() {
                continue;
            }
            used.bytes += found.blocks() * 512;
            used.inodes += 1;
            if found.is_dir() {
                open.push(entry.path());
            }
        }
    }
    used
}

/// The scratch disk, then the volumes.
pub fn read(volumes: &[Volume], walked: &HashMap<PathBuf, Used>) -> Vec<FilesystemStats> {
    let scratch = Path::new(paths::SCRATCH);
    let mut found = Vec::new();
    if is_mount_point(scratch) {
        found.extend(one("", scratch));
    }
    for volume in volumes {
        let Some(mut stats) = one(&volume.name, &volume.path) else {
            continue;
        };
        if let Some(used) = walked.get(&volume.path).filter(|_| volume.on_scratch) {
            stats.used_bytes = used.bytes;
        }
        found.push(stats);
    }
    found
}

fn one(name: &str, path: &Path) -> Option<FilesystemStats> {
    let found = statvfs(path).ok()?;
    let block = found.fragment_size();
    // Read-only images count theirs down from the largest number.
    let inodes = |count: u64| if count > u64::MAX / 2 { 0 } else { count };
    let bytes = |blocks: u64| blocks.saturating_mul(block);
    Some(FilesystemStats {
        name: name.to_owned(),
        capacity_bytes: bytes(found.blocks()),
        used_bytes: bytes(found.blocks().saturating_sub(found.blocks_free())),
        available_bytes: bytes(found.blocks_available()),
        inodes: inodes(found.files()),
        inodes_free: inodes(found.files_free()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_counted() {
        let root = std::env::temp_dir().join(format!("vk-walk-{}", std::process::id()));
        fs::create_dir_all(root.join("a/b")).expect("a folder");
        fs::write(root.join("a/b/c"), [7; 5000]).expect("a file");
        let used = walk(&root);
        assert_eq!(used.inodes, 3);
        assert!(used.bytes >= 5000);
        fs::remove_dir_all(&root).expect("a folder");
        assert_eq!(walk(&root), Used::default());
    }
}
