//! Where things are inside the guest; the first half is the contract with the host (guest.proto).

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

pub const RUN: &str = "/run/vk";
pub const IMAGES: &str = "/run/vk/images";
pub const SCRATCH: &str = "/run/vk/scratch";
pub const VOLUMES: &str = "/run/vk/volumes";
pub const CONTAINERS: &str = "/run/vk/containers";
pub const SANDBOX: &str = "/run/vk/sandbox";
/// libcontainer's own state.
pub const OCI: &str = "/run/vk/oci";
pub const CGROUP: &str = "/sys/fs/cgroup";
pub const POD_CGROUP: &str = "/sys/fs/cgroup/pod";

/// Returns `base/name`, or an error unless `name` is one plain path component.
pub fn below(base: &str, name: &str, what: &str) -> Result<PathBuf> {
    let plain = !name.is_empty()
        && name.len() <= 255
        && name != "."
        && name != ".."
        && !name.contains(['/', '\0']);
    if !plain {
        return Err(Error::invalid(format!(
            "{what} {name:?} must be one plain path component of at most 255 bytes"
        )));
    }
    Ok(Path::new(base).join(name))
}

#[cfg(test)]
mod tests {
    use super::below;

    #[test]
    fn one_component_only() {
        assert!(below("/a", "b", "name").is_ok_and(|p| p.ends_with("a/b")));
        for bad in ["", ".", "..", "a/b", "/a", "a\0"] {
            assert!(below("/a", bad, "name").is_err(), "{bad:?}");
        }
    }
}
