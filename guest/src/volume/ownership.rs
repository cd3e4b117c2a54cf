//! A volume's group, as the kubelet gives it (`volume.SetVolumeOwnership`).

use std::fs;
use std::os::unix::fs::{lchown, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::error::{Context, Error, Result};

pub struct Rule {
    pub group: u32,
    pub read_only: bool,
    /// Nothing is changed where the volume's root is right already (`OnRootMismatch`).
    pub on_root_mismatch: bool,
}

/// Checks that a number can be a user's or a group's.
pub fn id(value: i64, what: &str) -> Result<u32> {
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| Error::invalid(format!("{what} {value} is not in the range of ids")))
}

/// The bits that a file or folder gets beside those it has.
fn added(is_dir: bool, read_only: bool) -> u32 {
    let base = if read_only { 0o440 } else { 0o660 };
    if is_dir {
        base | 0o2110
    } else {
        base
    }
}

/// Gives all below `root`, and it, to the group.
pub fn apply(root: &Path, rule: &Rule) -> Result<()> {
    if rule.on_root_mismatch {
        let found = fs::symlink_metadata(root).context(format!("look at {}", root.display()))?;
        let wanted = added(true, rule.read_only);
        if found.gid() == rule.group && found.mode() & wanted == wanted {
            return Ok(());
        }
    }
    // The root last, so that an interrupted change is not taken for a finished one.
    walk(root, rule).context(format!("give {} to group {}", root.display(), rule.group))
}

fn walk(path: &Path, rule: &Rule) -> std::io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            walk(&entry?.path(), rule)?;
        }
    }
    lchown(path, None, Some(rule.group))?;
    if found.is_symlink() {
        return Ok(());
    }
    let mode = found.mode() & 0o7777 | added(found.is_dir(), rule.read_only);
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::{added, id};

    #[test]
    fn bits_are_the_kubelets() {
        assert_eq!(added(true, false), 0o2770);
        assert_eq!(added(false, false), 0o660);
        assert_eq!(added(true, true), 0o2550);
        assert_eq!(added(false, true), 0o440);
    }

    #[test]
    fn ids_have_a_range() {
        assert!(id(-1, "uid").is_err() && id(1 << 40, "uid").is_err());
        assert!(id(4_294_967_295, "uid").is_err());
        assert!(id(1000, "uid").is_ok_and(|id| id == 1000));
    }
}
