//! Which upstream specs there are, and which of them one run takes.

use std::fmt;

use anyhow::{Result, bail};
use clap::ValueEnum;
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::skips::{Cause, Skips};

/// The owner of all that is tested here, as it stands in front of a spec's name.
const OWNER: &str = "[sig-network] ";
/// The tests of sigs.k8s.io/network-policy-api, which a Go test cannot list.
const NPA_NAMES: &str = include_str!("../../npa-specs.txt");

/// Where a spec is from.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    /// Kubernetes' own e2e.test, what belongs to sig-network.
    K8s,
    /// The conformance suite of sigs.k8s.io/network-policy-api.
    Npa,
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::K8s => "k8s",
            Self::Npa => "npa",
        })
    }
}

/// One upstream test.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Spec {
    /// Where it is from.
    pub suite: Suite,
    /// Its whole name, as the upstream program prints it.
    pub name: String,
}

impl Spec {
    /// Whether it changes what others rely on, and so runs when nothing else does.
    pub fn alone(&self) -> bool {
        self.name.contains("[Serial]") || self.name.contains("[Disruptive]")
    }

    /// Whether it belongs to what every cluster has to pass.
    pub fn conformance(&self) -> bool {
        self.suite == Suite::Npa || self.name.contains("[Conformance]")
    }

    /// The part of the suite that it belongs to: `Netpol`, `Services` and so on.
    pub fn group(&self) -> &str {
        match self.suite {
            Suite::Npa => "ClusterNetworkPolicy",
            Suite::K8s => self
                .name
                .strip_prefix(OWNER)
                .unwrap_or(&self.name)
                .split_whitespace()
                .find(|word| !word.starts_with('['))
                .unwrap_or("other"),
        }
    }
}

/// The specs of sig-network in what `e2e.test --list-tests` prints, by name.
///
/// # Errors
/// There is none: the program is another one, or prints in another form.
pub fn parse_list(text: &str) -> Result<Vec<Spec>> {
    let mut specs: Vec<Spec> = text
        .lines()
        .filter_map(|line| {
            // `    test/e2e/network/dns.go:50: [sig-network] DNS should …`
            let (place, name) = line.strip_prefix("    ")?.split_once(": ")?;
            let (_, number) = place.rsplit_once(':')?;
            number.parse::<u32>().ok()?;
            name.starts_with(OWNER).then(|| Spec {
                suite: Suite::K8s,
                name: name.trim_end().to_owned(),
            })
        })
        .collect();
    specs.sort();
    specs.dedup();
    if specs.is_empty() {
        bail!("`e2e.test --list-tests` names no spec of sig-network: is it the pinned version?");
    }
    Ok(specs)
}

/// The tests of the network-policy-api suite.
pub fn npa_list() -> Vec<Spec> {
    let mut specs: Vec<Spec> = NPA_NAMES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|name| Spec {
            suite: Suite::Npa,
            name: name.to_owned(),
        })
        .collect();
    specs.sort();
    specs
}

/// One part of a run that is spread over several machines: the I-th of N, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    of: usize,
}

impl Shard {
    /// Everything.
    pub const WHOLE: Self = Self { index: 1, of: 1 };

    /// Whether the spec at this place of the sorted list is in this part.
    fn has(self, place: usize) -> bool {
        place % self.of == self.index - 1
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once('/')
            .and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parsed {
            Some((index, of)) if 1 <= index && index <= of => Ok(Self { index, of }),
            _ => Err(format!("`{text}` is no I/N with 1 ≤ I ≤ N, such as 1/4")),
        }
    }
}

/// What is to be run, and what is left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// To run, by name.
    pub run: Vec<Spec>,
    /// Left out by the skips file: why, in its words.
    pub skipped: Vec<(Spec, Cause, String)>,
}

/// Picks from all specs: `focus` and `skip` are the user's, `skips` the repository's. The shards of
/// one selection are disjoint and complete, and the same on every machine.
pub fn select(
    mut all: Vec<Spec>,
    focus: Option<&Regex>,
    skip: Option<&Regex>,
    shard: Shard,
    skips: &Skips,
) -> Selection {
    all.sort();
    let wanted = all.into_iter().filter(|spec| {
        focus.is_none_or(|re| re.is_match(&spec.name))
            && !skip.is_some_and(|re| re.is_match(&spec.name))
    });
    let mut selection = Selection::default();
    for (place, spec) in wanted.enumerate() {
        if !shard.has(place) {
            continue;
        }
        match skips.reason(&spec) {
            Some((cause, reason)) => {
                let reason = reason.to_owned();
                selection.skipped.push((spec, cause, reason));
            }
            None => selection.run.push(spec),
        }
    }
    selection
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LIST: &str = "The following spec names can be used with 'ginkgo run --focus/skip':
    test/e2e/apps/cronjob.go:71: [sig-apps] CronJob should schedule [Conformance]
    test/e2e/network/netpol/network_policy.go:90: [sig-network] Netpol NetworkPolicy should deny: all
    test/e2e/network/dns.go:50: [sig-network] DNS should provide DNS for the cluster [Conformance]
    test/e2e/network/x.go:5: [sig-network] [Feature:X] Thing should be [Serial]

";

    fn named(names: &[&str]) -> Vec<Spec> {
        names
            .iter()
            .map(|name| Spec {
                suite: Suite::K8s,
                name: format!("{OWNER}{name}"),
            })
            .collect()
    }

    #[test]
    fn the_list_keeps_the_specs_of_sig_network_with_colons_in_their_names() {
        let specs = parse_list(LIST).expect("specs");
        let names: Vec<&str> = specs.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "[sig-network] DNS should provide DNS for the cluster [Conformance]",
                "[sig-network] Netpol NetworkPolicy should deny: all",
                "[sig-network] [Feature:X] Thing should be [Serial]",
            ]
        );
        assert_eq!(
            specs.iter().map(Spec::group).collect::<Vec<_>>(),
            ["DNS", "Netpol", "Thing"]
        );
        assert!(specs[0].conformance() && !specs[1].conformance());
        assert!(specs[2].alone() && !specs[0].alone());
    }

    #[test]
    fn a_list_without_specs_is_an_error() {
        assert!(parse_list("unknown flag: --list-tests\n").is_err());
    }

    #[test]
    fn shards_are_disjoint_complete_and_the_same_for_any_order_of_the_list() {
        let names: Vec<String> = (0..23).map(|n| format!("spec {n}")).collect();
        let all = named(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut reversed = all.clone();
        reversed.reverse();
        let none = Skips::default();
        for of in 1..=5 {
            let mut seen = BTreeSet::new();
            for index in 1..=of {
                let shard: Shard = format!("{index}/{of}").parse().expect("a shard");
                let part = select(all.clone(), None, None, shard, &none).run;
                assert_eq!(part, select(reversed.clone(), None, None, shard, &none).run);
                for spec in part {
                    assert!(seen.insert(spec), "in two shards");
                }
            }
            assert_eq!(seen.len(), all.len());
        }
    }

    #[test]
    fn a_shard_must_be_within_its_number() {
        for bad in ["0/2", "3/2", "1", "a/b", "1/0", ""] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }

    #[test]
    fn focus_and_skip_choose_by_name() {
        let focus = Regex::new("spec").expect("a regex");
        let skip = Regex::new("b$").expect("a regex");
        let all = named(&["spec a", "spec b", "other"]);
        let picked = select(
            all,
            Some(&focus),
            Some(&skip),
            Shard::WHOLE,
            &Skips::default(),
        );
        assert_eq!(picked.run, named(&["spec a"]));
        assert!(picked.skipped.is_empty());
    }

    #[test]
    fn the_names_of_the_policy_suite_are_listed_once() {
        let names = npa_list();
        assert_eq!(names.len(), 24);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }
}
