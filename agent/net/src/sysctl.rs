//! Network sysctls, by the path below `/proc/sys/net`.
//!
//! The kernel resolves `/proc/sys/net` in the namespace of the thread that opens the file, so
//! [`crate::NetNs::run`] around these is all it takes to reach another namespace's.

use std::fs;

use crate::error::{Error, Result};

/// Reads a value, without its newline. `key` is a path such as `ipv4/conf/eth0/rp_filter` (with
/// slashes, as an interface's name may hold dots).
pub fn read(key: &str) -> Result<String> {
    let path = path(key);
    let text = fs::read_to_string(&path).map_err(|e| Error::call("read", &path, e))?;
    Ok(text.trim_end().to_owned())
}

/// Writes a value, unless it is in force already: a read-only `/proc/sys` that says the right thing
/// is no error.
pub fn write(key: &str, value: &str) -> Result<()> {
    let path = path(key);
    match fs::write(&path, value) {
        Ok(()) => Ok(()),
        Err(_) if read(key).is_ok_and(|now| now == value) => Ok(()),
        Err(e) => Err(Error::call("write", format!("{path} = {value}"), e)),
    }
}

/// Whether the key is there: `ipv6/…` is not on a kernel without IPv6.
pub fn exists(key: &str) -> bool {
    fs::exists(path(key)).unwrap_or(false)
}

fn path(key: &str) -> String {
    format!("/proc/sys/net/{key}")
}
