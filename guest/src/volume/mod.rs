//! Volumes: files that are replaced all at once, scratch space, images, shared directories.

mod files;
mod ownership;
mod put;
mod sub_path;

pub use sub_path::{bind_sub_path, make_dirs_beneath};
