//! Embeds the eBPF object: `WEIR_EBPF_OBJECT`, else the one `cargo xtask build --ebpf` leaves in
//! the target directory, else nothing (the agent then says at start how to build it).

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// Where the build of the `ebpf` room leaves its object, from the workspace's root.
const BUILT: &str = "target/bpf/bpfel-unknown-none/ebpf/weir-ebpf";

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-env-changed=WEIR_EBPF_OBJECT");
    println!("cargo:rerun-if-changed=build.rs");
    let var = |name| env::var_os(name).map(PathBuf::from).unwrap_or_default();
    let workspace = var("CARGO_MANIFEST_DIR").join("..");
    let object = match env::var_os("WEIR_EBPF_OBJECT") {
        Some(path) => PathBuf::from(path),
        None => workspace.join(BUILT),
    };
    // A path that does not exist yet is watched as well: cargo runs this again once it does.
    println!("cargo:rerun-if-changed={}", object.display());
    let bytes = read_if_there(&object)?;
    fs::write(var("OUT_DIR").join("weir-ebpf.o"), bytes)
}

fn read_if_there(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}
