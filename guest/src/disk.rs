//! MountDisk: wait for a SCSI disk by its LUN, by the kernel's own word, and mount it.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::mount::{mount, MsFlags};
use nix::sys::socket::{
    bind, socket, AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType,
};

use crate::container::blocking;
use crate::error::{Context, Error, Result};
use crate::paths;
use crate::pb::mount_disk_request::Use;
use crate::pb::MountDiskRequest;
use crate::service::Guest;
use crate::stdio::AsyncFile;

impl Guest {
    /// Mounts a disk; one that is mounted already answers OK. Waits as long as the caller does.
    pub async fn mount_disk(self: &Arc<Self>, request: MountDiskRequest) -> Result<()> {
        let (target, image) = match &request.r#use {
            Some(Use::ImageKey(key)) => (paths::below(paths::IMAGES, key, "image key")?, true),
            Some(Use::Scratch(true)) => (PathBuf::from(paths::SCRATCH), false),
            _ => {
                return Err(Error::invalid(
                    "MountDisk does not say what the disk is for",
                ))
            }
        };
        let _turn = self.mounting.lock().await;
        if is_mount_point(&target) {
            return Ok(());
        }
        let device = wait_for_disk(request.lun).await?;
        let guest = self.clone();
        blocking(move || {
            fs::create_dir_all(&target).context(format!("make {}", target.display()))?;
            if image {
                return mount_image(&guest, &device, &target);
            }
            let flags = MsFlags::MS_NOATIME;
            mount(Some(&device), &target, Some("ext4"), flags, None::<&str>)
                .context(format!("mount the scratch disk {}", device.display()))?;
            for dir in ["containers", "volumes"] {
                fs::create_dir_all(target.join(dir)).context("use the scratch disk")?;
            }
            Ok(())
        })
        .await
    }
}

fn mount_image(guest: &Guest, device: &Path, target: &Path) -> Result<()> {
    let mount_as = |fstype: &str| {
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
        mount(Some(device), target, Some(fstype), flags, None::<&str>)
    };
    if mount_as("erofs").is_ok() {
        return Ok(());
    }
    guest.modules.load("squashfs")?;
    mount_as("squashfs").context(format!(
        "mount the image disk {} as erofs or squashfs",
        device.display()
    ))
}

/// Whether a file system is mounted on `path`.
pub fn is_mount_point(path: &Path) -> bool {
    let device = |p: &Path| fs::symlink_metadata(p).map(|m| m.dev()).ok();
    match (device(path), path.parent().and_then(device)) {
        (Some(own), Some(parent)) => own != parent,
        _ => false,
    }
}

/// Whether something is mounted on the file `path`: a file of another file system than its folder's.
pub fn is_mounted_file(path: &Path) -> bool {
    path.exists() && is_mount_point(path)
}

/// Returns the device of the disk with that LUN as soon as the kernel has it.
async fn wait_for_disk(lun: u32) -> Result<PathBuf> {
    // Listening before looking: a disk that comes in between is told.
    let changes = uevents().context("listen for disks")?;
    loop {
        if let Some(device) = find_disk(Path::new("/sys/class/scsi_device"), lun) {
            return Ok(device);
        }
        let mut event = [0; 4096];
        match changes.read(&mut event).await {
            Ok(_) => {}
            // Events were lost; the next look finds what they told.
            Err(why) if why.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
            Err(why) => return Err(why).context(format!("wait for the disk with LUN {lun}")),
        }
    }
}

fn uevents() -> std::io::Result<AsyncFile> {
    let fd: OwnedFd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkKObjectUEvent,
    )?;
    bind(
        std::os::fd::AsRawFd::as_raw_fd(&fd),
        &NetlinkAddr::new(0, 1),
    )?;
    AsyncFile::new(fd)
}

/// Looks for HOST:CHANNEL:TARGET:LUN/device/block/NAME that can be opened.
fn find_disk(class: &Path, lun: u32) -> Option<PathBuf> {
    let suffix = format!(":{lun}");
    for entry in fs::read_dir(class).ok()?.flatten() {
        if !entry.file_name().to_string_lossy().ends_with(&suffix) {
            continue;
        }
        let Ok(blocks) = fs::read_dir(entry.path().join("device/block")) else {
            continue;
        };
        for block in blocks.flatten() {
            let device = Path::new("/dev").join(block.file_name());
            // The disk is listed before it can be opened, and told after it.
            if fs::File::open(&device).is_ok() {
                return Some(device);
            }
        }
    }
    None
}
