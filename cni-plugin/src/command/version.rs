//! VERSION: looks at nothing but `cniVersion`, and not closely.

use serde_json::json;

use crate::{config::version_of, version::Version};

/// The VERSION result. Its `cniVersion` is the input's; libcni probes with a configuration that has
/// nothing else, so nothing else is demanded.
pub fn version(stdin: &[u8]) -> String {
    let version = version_of(stdin).unwrap_or_else(|| Version::LATEST.as_str().to_owned());
    json!({"cniVersion": version, "supportedVersions": Version::list()}).to_string()
}
