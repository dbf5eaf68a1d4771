//! The eBPF object that is part of this binary.

use std::{borrow::Cow, env, fs, path::PathBuf};

use super::Error;

/// The bytes, aligned as the ELF parser wants them.
static EMBEDDED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-ebpf.o"));

/// The variable that names another object, for tests.
pub const OVERRIDE: &str = "WEIR_EBPF_OBJECT";

/// The object to load: the file that `WEIR_EBPF_OBJECT` names, else the embedded one.
///
/// # Errors
/// The file cannot be read; or the agent was built without an object.
pub fn bytes() -> Result<Cow<'static, [u8]>, Error> {
    if let Some(path) = env::var_os(OVERRIDE).map(PathBuf::from) {
        return match fs::read(&path) {
            Ok(bytes) => Ok(bytes.into()),
            Err(e) => Err(Error::Object(format!("{OVERRIDE}={}: {e}", path.display()))),
        };
    }
    if EMBEDDED.is_empty() {
        let message = "this agent was built without an eBPF object: run `cargo xtask build`";
        return Err(Error::Object(message.into()));
    }
    Ok(EMBEDDED.into())
}
