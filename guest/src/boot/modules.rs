//! Kernel modules: the image's list names groups and, in each, files in the order to load them.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{open, openat, OFlag};
use nix::kmod::{finit_module, ModuleInitFlags};
use nix::sys::stat::Mode;

use crate::error::{Context, Error, Result};

/// The modules of the initramfs; reachable through their folder's descriptor even after the
/// root has moved.
pub struct Modules {
    folder: OwnedFd,
    groups: HashMap<String, Vec<String>>,
}

impl Modules {
    /// Opens `/modules` and reads its `order` file: lines of "GROUP FILE".
    pub fn open() -> Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = open("/modules", flags, Mode::empty()).context("open /modules")?;
        let text = std::fs::read_to_string("/modules/order").context("read /modules/order")?;
        let groups = parse(&text)?;
        Ok(Self { folder, groups })
    }

    /// Loads every module of a group, in order; those that are loaded already are passed over.
    pub fn load(&self, group: &str) -> Result<()> {
        let files = self
            .groups
            .get(group)
            .ok_or_else(|| Error::internal(format!("the guest image has no modules {group:?}")))?;
        for name in files {
            let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
            let file = openat(&self.folder, name.as_str(), flags, Mode::empty())
                .context(format!("open the module {name}"))?;
            match finit_module(&file, c"", ModuleInitFlags::empty()) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(why) => {
                    return Err(Error::internal(format!(
                        "cannot load the kernel module {name}: {why}"
                    )))
                }
            }
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<HashMap<String, Vec<String>>> {
    let mut groups: HashMap<String, Vec<String>> = HashMap::new();
    for line in text.lines() {
        let (group, file) = line
            .split_once(' ')
            .ok_or_else(|| Error::internal(format!("/modules/order: no file in {line:?}")))?;
        groups
            .entry(group.to_owned())
            .or_default()
            .push(file.to_owned());
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn order_is_kept_within_a_group() {
        let groups = parse("boot b.ko\nboot a.ko\nnet n.ko\n").unwrap_or_default();
        assert_eq!(groups["boot"], ["b.ko", "a.ko"]);
        assert_eq!(groups["net"], ["n.ko"]);
        assert!(parse("boot\n").is_err());
    }
}
