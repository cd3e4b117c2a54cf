//! Fresh randomness from the host: credited, and the generator reseeded from it at once.

use std::fs::File;
use std::os::fd::AsRawFd;

use crate::error::{Context, Result};

// RNDADDENTROPY takes a struct of variable length, and RNDRESEEDCRNG nothing (random(4)).
const RNDADDENTROPY: u8 = 0x03;
const RNDRESEEDCRNG: u8 = 0x07;

nix::ioctl_write_ptr!(add_entropy, b'R', RNDADDENTROPY, [i32; 2]);
nix::ioctl_none!(reseed, b'R', RNDRESEEDCRNG);

/// Credits every bit of `entropy`.
pub fn credit(entropy: &[u8]) -> Result<()> {
    let device = File::options()
        .write(true)
        .open("/dev/random")
        .context("open /dev/random")?;
    // struct rand_pool_info: bits, bytes, then the data, in a buffer aligned for its integers.
    let bytes = i32::try_from(entropy.len()).context("take the entropy")?;
    let mut pool: Vec<[i32; 2]> = vec![[bytes * 8, bytes]];
    pool.extend(entropy.chunks(8).map(|chunk| {
        let mut both = [0; 8];
        both[..chunk.len()].copy_from_slice(chunk);
        let [a, b, c, d, e, f, g, h] = both;
        [
            i32::from_ne_bytes([a, b, c, d]),
            i32::from_ne_bytes([e, f, g, h]),
        ]
    }));
    // SAFETY: the buffer is as long as its header says, rounded up.
    unsafe { add_entropy(device.as_raw_fd(), pool.as_ptr()) }.context("credit entropy")?;
    // SAFETY: the request takes no argument.
    unsafe { reseed(device.as_raw_fd()) }.context("reseed the random generator")?;
    Ok(())
}
