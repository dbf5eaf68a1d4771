//! Which versions of the specification are served. Match is exact, as in libcni: `1.1` is none.

use crate::error::{CniError, Code, Result};

/// A version of the specification, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.0
    V030,
    /// 0.3.1
    V031,
    /// 0.4.0: CHECK.
    V040,
    /// 1.0.0: no `version` in `ips`.
    V100,
    /// 1.1.0: GC, STATUS; more keys in interfaces and routes.
    V110,
}

impl Version {
    /// All, in order.
    pub const ALL: [Self; 5] = [Self::V030, Self::V031, Self::V040, Self::V100, Self::V110];
    /// The newest.
    pub const LATEST: Self = Self::V110;

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V030 => "0.3.0",
            Self::V031 => "0.3.1",
            Self::V040 => "0.4.0",
            Self::V100 => "1.0.0",
            Self::V110 => "1.1.0",
        }
    }

    /// Reads a configuration's `cniVersion`; absent or empty means 0.1.0, which is not served.
    pub fn parse(text: &str) -> Result<Self> {
        let text = if text.is_empty() { "0.1.0" } else { text };
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
            .ok_or_else(|| {
                let msg =
                    format!("incompatible CNI version: the configuration's cniVersion is {text:?}");
                CniError::new(Code::IncompatibleVersion, msg)
                    .details(format!("supported: {}", Self::list().join(", ")))
            })
    }

    /// Fails unless this version has `command`, which came with `since`.
    pub fn require(self, since: Self, command: &str) -> Result<()> {
        if self >= since {
            return Ok(());
        }
        let (own, since) = (self.as_str(), since.as_str());
        let msg = format!("{command} needs cniVersion {since}, the configuration has {own}");
        Err(CniError::new(Code::IncompatibleVersion, msg)
            .details(format!("supported: {}", Self::list().join(", "))))
    }

    /// As the VERSION command lists them.
    pub fn list() -> Vec<&'static str> {
        Self::ALL.iter().map(|version| version.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c3_match_is_exact_and_missing_means_0_1_0() {
        for version in Version::ALL {
            assert_eq!(Version::parse(version.as_str()), Ok(version));
        }
        for text in ["1.1", "1.1.1", "0.1.0", "0.2.0", "v1.0.0", " 1.0.0", ""] {
            let error = Version::parse(text).unwrap_err();
            assert_eq!(error.code, Code::IncompatibleVersion, "{text}");
            assert!(
                error.details.contains("0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"),
                "{error}"
            );
        }
    }
}
