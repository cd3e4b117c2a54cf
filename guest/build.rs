//! Compiles the host's contract into Rust, without protoc.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("../proto");
    let proto = root.join("vk_provider/_pb/guest.proto");
    println!("cargo:rerun-if-changed={}", proto.display());
    let files = protox::compile([&proto], [root])?;
    tonic_prost_build::configure()
        .build_client(false)
        .bytes(".")
        .compile_fds(files)?;
    Ok(())
}
