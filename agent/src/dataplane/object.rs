//! The eBPF object that is part of this binary.

use std::{
    borrow::Cow,
    env, fs,
    path::{Path, PathBuf},
};

use super::Error;

/// The bytes, aligned as the ELF parser wants them.
static EMBEDDED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-ebpf.o"));

/// The object to load: that file, else the one that `WEIR_EBPF_OBJECT` names, else the embedded
/// one.
///
/// # Errors
/// The file cannot be read; or the agent was built without an object.
pub fn bytes(file: Option<&Path>) -> Result<Cow<'static, [u8]>, Error> {
    let named = file
        .map(PathBuf::from)
        .or_else(|| env::var_os("WEIR_EBPF_OBJECT").map(Into::into));
    if let Some(path) = named {
        let read =
            fs::read(&path).map_err(|e| Error::Object(format!("{}: {e}", path.display())))?;
        return Ok(read.into());
    }
    if EMBEDDED.is_empty() {
        let message = "this agent was built without an eBPF object: run `cargo xtask build`";
        return Err(Error::Object(message.into()));
    }
    Ok(EMBEDDED.into())
}
