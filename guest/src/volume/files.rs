//! A files volume's content, replaced all at once: the layout of the kubelet's AtomicWriter.
//!
//! `..data` is a link to a folder named for the moment it was made, which holds the files; each
//! name that a user sees is a link through `..data`. Renaming a new `..data` over the old one
//! changes them all in one step.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{chown, symlink, DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use super::ownership;
use crate::clock::now_ns;
use crate::error::{Context, Error, Result};
use crate::pb::FilesVolume;

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// One file, checked.
pub struct Checked<'a> {
    path: PathBuf,
    data: &'a [u8],
    mode: u32,
    uid: Option<u32>,
}

/// Refuses paths that are not plainly inside.
pub fn check(source: &FilesVolume) -> Result<Vec<Checked<'_>>> {
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for file in &source.files {
        let path = PathBuf::from(&file.path);
        let plain = !file.path.is_empty()
            && !file.path.contains('\0')
            && path.components().all(|c| matches!(c, Component::Normal(_)))
            && !file.path.starts_with("..");
        if !plain {
            return Err(Error::invalid(format!(
                "{:?} cannot be a file of a volume: it must be a relative path without ..",
                file.path
            )));
        }
        if !seen.insert(path.clone()) {
            return Err(Error::invalid(format!(
                "the volume has {:?} twice",
                file.path
            )));
        }
        let uid = file.uid.map(|uid| ownership::id(uid, "uid")).transpose()?;
        files.push(Checked {
            path,
            data: &file.data,
            mode: file.mode & 0o7777,
            uid,
        });
    }
    Ok(files)
}

/// Gives the volume at `root` this content and no other; `rule` is applied before it is seen.
pub fn replace(root: &Path, files: &[Checked<'_>], rule: Option<&ownership::Rule>) -> Result<()> {
    let old = fs::read_link(root.join(DATA)).ok();
    let folder = format!("..{}", now_ns());
    let at = root.join(&folder);
    let tried = || format!("write the volume {}", root.display());
    fs::DirBuilder::new()
        .mode(0o755)
        .create(&at)
        .context(tried())?;
    for file in files {
        write(&at, file).context(tried())?;
    }
    if let Some(rule) = rule {
        ownership::apply(&at, rule)?;
    }
    let next = root.join(NEXT);
    remove(&next).context(tried())?;
    symlink(&folder, &next).context(tried())?;
    fs::rename(&next, root.join(DATA)).context(tried())?;

    let names: BTreeSet<_> = files
        .iter()
        .filter_map(|f| f.path.components().next())
        .map(|c| c.as_os_str().to_owned())
        .collect();
    for name in &names {
        match symlink(Path::new(DATA).join(name), root.join(name)) {
            Err(why) if why.kind() != ErrorKind::AlreadyExists => return Err(why).context(tried()),
            _ => {}
        }
    }
    for entry in fs::read_dir(root).context(tried())? {
        let name = entry.context(tried())?.file_name();
        if !name.to_string_lossy().starts_with("..") && !names.contains(&name) {
            remove(&root.join(name)).context(tried())?;
        }
    }
    if let Some(old) = old {
        // One component by construction: nothing but us writes in here as root.
        if old.components().count() == 1 {
            fs::remove_dir_all(root.join(old)).context(tried())?;
        }
    }
    Ok(())
}

fn write(folder: &Path, file: &Checked<'_>) -> std::io::Result<()> {
    let path = folder.join(&file.path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&path, file.data)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
    chown(&path, file.uid, None)
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::File;

    fn volume(files: &[(&str, &str)]) -> FilesVolume {
        let files = files
            .iter()
            .map(|(path, data)| File {
                path: (*path).into(),
                data: data.as_bytes().to_vec().into(),
                mode: 0o640,
                uid: None,
            })
            .collect();
        FilesVolume { files }
    }

    fn put(root: &Path, files: &[(&str, &str)]) {
        let volume = volume(files);
        replace(root, &check(&volume).expect("plain paths"), None).expect("a volume");
    }

    #[test]
    fn content_changes_all_at_once() {
        let root = std::env::temp_dir().join(format!("vk-files-{}", std::process::id()));
        fs::create_dir_all(&root).expect("a folder");
        put(&root, &[("a", "1"), ("dir/b", "2")]);
        let read = |name: &str| fs::read_to_string(root.join(name)).ok();
        assert_eq!(read("a").as_deref(), Some("1"));
        assert_eq!(
            fs::read_link(root.join("dir")).ok(),
            Some("..data/dir".into())
        );
        put(&root, &[("dir/b", "3"), ("c", "4")]);
        assert_eq!(read("a"), None);
        assert_eq!(read("dir/b").as_deref(), Some("3"));
        let kept = fs::read_dir(&root).expect("a folder").count();
        assert_eq!(kept, 4, "..data, its folder, dir and c");
        fs::remove_dir_all(&root).expect("a folder");
    }

    #[test]
    fn paths_that_lead_outside_are_refused() {
        for path in ["", "/a", "../a", "a/../../b", "..data", "a\0"] {
            assert!(check(&volume(&[(path, "")])).is_err(), "{path:?}");
        }
        assert!(check(&volume(&[("a", ""), ("a", "")])).is_err());
    }
}
