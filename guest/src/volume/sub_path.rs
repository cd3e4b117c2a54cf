//! Paths inside a volume or a root that a container may have filled with links: resolved by the
//! kernel with the folder as their root, so that none leads outside, not even while it changes.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{open, openat2, OFlag, OpenHow, ResolveFlag};
use nix::mount::{mount, MsFlags};
use nix::sys::stat::{fstat, mkdirat, Mode, SFlag};

use crate::error::{Context, Error, Result};
use crate::paths;

const NONE: Option<&str> = None;

/// Binds `path` of a volume to `at`, which it makes; a missing folder is made in the volume.
pub fn bind_sub_path(volume: &str, path: &str, read_only: bool, at: &Path) -> Result<()> {
    let root = paths::below(paths::VOLUMES, volume, "volume name")?;
    bind_beneath(&root, path, read_only, at)
}

/// As `bind_sub_path`, for any folder.
pub fn bind_beneath(root: &Path, path: &str, read_only: bool, at: &Path) -> Result<()> {
    let tried = || format!("bind {path:?} of {} to {}", root.display(), at.display());
    let source = make_dirs_beneath(root, path, 0o777)?;
    let found = fstat(source.as_fd()).context(tried())?;
    if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
        fs::create_dir_all(at).context(tried())?;
    } else {
        fs::File::create(at).context(tried())?;
    }
    let from = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(&from), at, NONE, bind, NONE).context(tried())?;
    if read_only {
        let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(NONE, at, NONE, again, NONE).context(tried())?;
    }
    Ok(())
}

/// Opens `path` below `root` (O_PATH), making the folders that are not there.
pub fn make_dirs_beneath(root: &Path, path: &str, mode: u32) -> Result<OwnedFd> {
    let tried = || format!("make {path:?} in {}", root.display());
    let parts = parts(path)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let top = open(root, flags, Mode::empty()).context(tried())?;
    let mut at = resolve(&top, Path::new(".")).context(tried())?;
    let mut so_far = PathBuf::new();
    for part in parts {
        so_far.push(part);
        at = match resolve(&top, &so_far) {
            Ok(found) => found,
            Err(Errno::ENOENT) => {
                match mkdirat(&at, part, Mode::from_bits_truncate(mode)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(why) => return Err(why).context(tried()),
                }
                let made = resolve(&top, &so_far).context(tried())?;
                widen(&made, mode).context(tried())?;
                made
            }
            Err(why) => return Err(why).context(tried()),
        };
    }
    Ok(at)
}

/// The umask does not apply to what the host asks for.
fn widen(made: &OwnedFd, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let path = format!("/proc/self/fd/{}", made.as_raw_fd());
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn resolve(top: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(top, path, how)
}

fn parts(path: &str) -> Result<Vec<&str>> {
    if path.contains('\0') {
        return Err(Error::invalid(format!("{path:?} is no path")));
    }
    Path::new(path)
        .components()
        .filter(|c| !matches!(c, Component::RootDir | Component::CurDir))
        .map(|c| match c {
            Component::Normal(part) => part.to_str().ok_or(()),
            _ => Err(()),
        })
        .collect::<Result<Vec<_>, ()>>()
        .map_err(|()| Error::invalid(format!("the path {path:?} must not contain ..")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside() {
        let root = std::env::temp_dir().join(format!("vk-sub-{}", std::process::id()));
        fs::create_dir_all(root.join("in")).expect("a folder");
        std::os::unix::fs::symlink("/", root.join("out")).expect("a link");
        make_dirs_beneath(&root, "out/made/deep", 0o755).expect("a folder");
        assert!(root.join("made/deep").is_dir());
        assert!(make_dirs_beneath(&root, "../x", 0o755).is_err());
        assert!(make_dirs_beneath(&root, "", 0o755).is_ok());
        fs::remove_dir_all(&root).expect("a folder");
    }
}
