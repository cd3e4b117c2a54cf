//! The kernel's file systems, and the move from the initramfs to a tmpfs.

use std::fs;

use nix::mount::{mount, MsFlags};
use nix::unistd::{chdir, chroot};

use crate::error::{Context, Result};

const NONE: Option<&str> = None;

fn on(fstype: &str, at: &str, flags: MsFlags, data: &str) -> Result<()> {
    fs::create_dir_all(at).context(format!("make {at}"))?;
    mount(Some(fstype), at, Some(fstype), flags, Some(data))
        .context(format!("mount {fstype} on {at}"))
}

/// Mounts what programs expect to find.
pub fn system() -> Result<()> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let device = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    on("proc", "/proc", plain, "")?;
    on("sysfs", "/sys", plain, "")?;
    on("devtmpfs", "/dev", device, "mode=0755")?;
    on(
        "devpts",
        "/dev/pts",
        device,
        "gid=5,mode=0620,ptmxmode=0666",
    )?;
    on("tmpfs", "/dev/shm", plain, "mode=1777")?;
    on("mqueue", "/dev/mqueue", plain, "")?;
    on(
        "cgroup2",
        "/sys/fs/cgroup",
        plain,
        "nsdelegate,memory_recursiveprot",
    )?;
    let run = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    on("tmpfs", "/run", run, "mode=0755")
}

/// Makes a tmpfs the root: the kernel refuses pivot_root, which containers need, while the
/// root is the initramfs.
pub fn leave_initramfs() -> Result<()> {
    on("tmpfs", "/root", MsFlags::empty(), "mode=0755,size=1M")?;
    for (dir, what) in [
        ("dev", "/dev"),
        ("proc", "/proc"),
        ("sys", "/sys"),
        ("run", "/run"),
    ] {
        let to = format!("/root/{dir}");
        fs::create_dir_all(&to).context(format!("make {to}"))?;
        mount(Some(what), to.as_str(), NONE, MsFlags::MS_MOVE, NONE)
            .context(format!("move {what}"))?;
    }
    for dir in ["etc", "tmp"] {
        fs::create_dir_all(format!("/root/{dir}")).context(format!("make /{dir}"))?;
    }
    chdir("/root").context("enter the new root")?;
    mount(Some("."), "/", NONE, MsFlags::MS_MOVE, NONE).context("move the new root")?;
    chroot(".").context("enter the new root")?;
    chdir("/").context("enter the new root")
}
