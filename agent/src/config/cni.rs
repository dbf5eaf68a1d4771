//! The keys around the CNI configuration.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::layers::{ConfigError, Layers};
use crate::source;

/// What the plugin's wait leaves for the way there and back, and for a kernel that is busy.
const SPARE: Duration = Duration::from_secs(2);

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

/// What the agent answers later, the plugin does not hear: its pod would be undone while it is
/// adopted.
pub(super) fn parse_adopt_timeout(text: &str) -> Result<Duration, String> {
    let timeout = super::parse_duration(text)?;
    let (wait, asking) = (weir_api::ADOPT_WAIT, source::ANSWER);
    let most = wait.saturating_sub(asking + SPARE);
    if timeout > most {
        return Err(format!(
            "expected at most {most:?}: the plugin waits {wait:?}, and after adopt-timeout the API server may be asked for {asking:?}"
        ));
    }
    Ok(timeout)
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
    fn the_agent_gives_up_on_a_pod_before_the_plugin_gives_up_on_the_agent() {
        assert_eq!(parse_adopt_timeout("25s"), Ok(Duration::from_secs(25)));
        for late in ["25001ms", "30s", "1m", "18446744073709551615m"] {
            let message = parse_adopt_timeout(late).unwrap_err();
            assert!(message.contains("at most 25s"), "{late}: {message}");
        }
    }

    #[test]
    fn the_plugins_log_is_an_absolute_path_or_none() {
        assert_eq!(parse_log_file("none"), Ok(None));
        assert_eq!(parse_log_file("/var/log/x"), Ok(Some("/var/log/x".into())));
        assert!(parse_log_file("x.log").unwrap_err().contains("absolute"));
    }
}
