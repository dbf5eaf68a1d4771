//! The keys around the CNI configuration.

use std::path::{Path, PathBuf};

use super::layers::{ConfigError, Layers};

/// Where the agent writes the CNI configuration, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniConf {
    /// `cni-conf-dir`.
    pub dir: PathBuf,
    /// `cni-conf-name`.
    pub name: String,
    /// `cni-log-file`; `None` when `none`.
    pub log_file: Option<PathBuf>,
}

/// None without `cni-conf-dir`: then somebody else writes the configuration.
pub(super) fn from_layers(layers: &Layers) -> Result<Option<CniConf>, ConfigError> {
    let name = layers.require("cni-conf-name", parse_name)?;
    let log_file = layers.require("cni-log-file", parse_log_file)?;
    let dir = layers.optional("cni-conf-dir", super::parse_path)?;
    Ok(dir.map(|dir| CniConf {
        dir,
        name,
        log_file,
    }))
}

/// A file name that runtimes read as a list.
fn parse_name(text: &str) -> Result<String, String> {
    let plain = !text.contains('/') && !text.starts_with('.');
    match text.strip_suffix(".conflist") {
        Some(stem) if plain && !stem.is_empty() => Ok(text.to_owned()),
        _ => Err("expected the name of a file that ends in .conflist, without a directory".into()),
    }
}

/// The plugin takes an absolute path only.
fn parse_log_file(text: &str) -> Result<Option<PathBuf>, String> {
    match text {
        "none" => Ok(None),
        _ if Path::new(text).is_absolute() => Ok(Some(text.into())),
        _ => Err("expected an absolute path, or none".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_a_plain_name_of_a_list() {
        assert_eq!(
            parse_name("05-weir.conflist"),
            Ok("05-weir.conflist".into())
        );
        for bad in [
            "",
            ".conflist",
            "weir.conf",
            "a/weir.conflist",
            ".x.conflist",
        ] {
            assert!(parse_name(bad).unwrap_err().contains(".conflist"), "{bad}");
        }
    }

    #[test]
    fn the_plugins_log_is_an_absolute_path_or_none() {
        assert_eq!(parse_log_file("none"), Ok(None));
        assert_eq!(parse_log_file("/var/log/x"), Ok(Some("/var/log/x".into())));
        assert!(parse_log_file("x.log").unwrap_err().contains("absolute"));
    }
}
