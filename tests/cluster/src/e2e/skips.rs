//! The skips file: which specs are not run, and the one of three causes that each line must have.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::spec::{Spec, Suite};

/// What makes it impossible to run a spec here. There is no other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// It asks a cloud's own API.
    CloudProvider,
    /// It needs a feature gate or API that this version of Kubernetes has switched off.
    FeatureGate,
    /// It needs a kernel module that the machine lacks.
    KernelModule,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CloudProvider => "cloud provider",
            Self::FeatureGate => "feature gate",
            Self::KernelModule => "kernel module",
        })
    }
}

/// A line of the file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    suite: Suite,
    /// A regular expression that the name has to match somewhere.
    name: String,
    cause: Cause,
    reason: String,
}

#[derive(Debug)]
struct Skip {
    suite: Suite,
    name: Regex,
    cause: Cause,
    reason: String,
}

impl Skip {
    fn matches(&self, spec: &Spec) -> bool {
        self.suite == spec.suite && self.name.is_match(&spec.name)
    }
}

/// The whole file.
#[derive(Debug, Default)]
pub struct Skips(Vec<Skip>);

impl Skips {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// It cannot be read, a line has no cause or reason, or its name is no regular expression.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the skips file {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// As of [`Skips::load`].
    pub fn parse(text: &str) -> Result<Self> {
        let lines: Vec<Line> = serde_saphyr::from_str(text)
            .context("a list of {suite, name, cause, reason} is expected")?;
        let skip = |line: Line| {
            if line.reason.trim().is_empty() {
                bail!(
                    "the skip of `{}` has an empty reason: say what is missing",
                    line.name
                );
            }
            let name = Regex::new(&line.name)
                .with_context(|| format!("`{}` is no regular expression", line.name))?;
            Ok(Skip {
                suite: line.suite,
                name,
                cause: line.cause,
                reason: line.reason.trim().to_owned(),
            })
        };
        Ok(Self(lines.into_iter().map(skip).collect::<Result<_>>()?))
    }

    /// Why a spec is not run; `None` if it is. The first line that matches counts.
    pub fn reason(&self, spec: &Spec) -> Option<(Cause, &str)> {
        let skip = self.0.iter().find(|skip| skip.matches(spec))?;
        Some((skip.cause, &skip.reason))
    }

    /// Holds the file against the whole list of specs of the suites in it.
    ///
    /// # Errors
    /// Lines that match no spec: what they named has gone, and they would hide the next one.
    pub fn check(&self, all: &[Spec]) -> Result<()> {
        let idle: Vec<&str> = self
            .0
            .iter()
            .filter(|skip| all.iter().any(|spec| spec.suite == skip.suite))
            .filter(|skip| !all.iter().any(|spec| skip.matches(spec)))
            .map(|skip| skip.name.as_str())
            .collect();
        if !idle.is_empty() {
            bail!(
                "these lines of the skips file match no spec, remove or correct them:\n  {}",
                idle.join("\n  ")
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
- suite: k8s
  name: '\\[Feature:SCTP'
  cause: kernel-module
  reason: sctp
- suite: npa
  name: SCTP$
  cause: kernel-module
  reason: sctp
";

    fn spec(suite: Suite, name: &str) -> Spec {
        Spec {
            suite,
            name: name.to_owned(),
        }
    }

    #[test]
    fn a_line_skips_what_its_name_matches_in_its_suite_only() {
        let skips = Skips::parse(FILE).expect("skips");
        let sctp = spec(
            Suite::K8s,
            "[sig-network] Netpol [Feature:SCTPConnectivity] should",
        );
        assert_eq!(skips.reason(&sctp), Some((Cause::KernelModule, "sctp")));
        assert_eq!(skips.reason(&spec(Suite::K8s, "TierEgressSCTP")), None);
        assert!(skips.reason(&spec(Suite::Npa, "TierEgressSCTP")).is_some());
        assert_eq!(skips.reason(&spec(Suite::Npa, "TierEgressTCP")), None);
    }

    #[test]
    fn a_line_that_matches_nothing_is_an_error_that_names_it() {
        let skips = Skips::parse(FILE).expect("skips");
        let all = [
            spec(Suite::K8s, "[sig-network] DNS"),
            spec(Suite::Npa, "EgressSCTP"),
        ];
        let error = skips.check(&all).expect_err("an idle line").to_string();
        assert!(
            error.contains(r"\[Feature:SCTP") && !error.contains("SCTP$"),
            "{error}"
        );
        // Of a suite that is not in this run nothing can be said.
        skips.check(&all[1..]).expect("only npa is looked at");
    }

    #[test]
    fn a_line_needs_one_of_the_three_causes_and_a_reason() {
        let unknown = "- {suite: k8s, name: x, cause: flaky, reason: sometimes}";
        assert!(Skips::parse(unknown).is_err());
        let silent = "- {suite: k8s, name: x, cause: feature-gate, reason: ' '}";
        assert!(Skips::parse(silent).is_err());
        let broken = "- {suite: k8s, name: '(', cause: feature-gate, reason: x}";
        assert!(Skips::parse(broken).is_err());
    }

    #[test]
    fn the_repository_s_file_parses_and_skips_by_name_of_the_policy_suite() {
        let skips = Skips::parse(include_str!("../../e2e-skips.yaml")).expect("the file");
        skips
            .check(&super::super::spec::npa_list())
            .expect("no idle line for npa");
    }
}
