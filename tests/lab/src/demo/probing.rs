//! Asks the network: every cell is probed, and judged against what the oracle expects.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::cells::{Cell, Party, name_of};
use super::plan::Plan;
use super::progress::Progress;
use crate::control::Control;
use crate::pod::Pod;
use crate::wire::{Answer, Command, Outcome, Probe, Seen};

/// Time limits of the first and of the second try: a denied probe takes all of it.
pub const LIMITS: [Duration; 2] = [Duration::from_millis(1500), Duration::from_secs(4)];

/// What the network did with a cell's probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// The answer named this pod.
    Allowed(String),
    /// Nothing came back, and nothing reached a server.
    Denied,
    /// The connection was refused.
    Refused,
    /// The kernel lacks the protocol.
    NotApplicable,
    /// Anything else, in words.
    Error(String),
}

impl Observed {
    /// In words, as [`Cell::expected`] puts it.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Allowed(from) => format!("allowed (answered by {from})"),
            Self::Denied => "denied".to_owned(),
            Self::Refused => "refused".to_owned(),
            Self::NotApplicable => "n/a".to_owned(),
            Self::Error(error) => error.clone(),
        }
    }

    /// Whether this is what the oracle expects of the cell. A probe that was not possible is no
    /// disagreement.
    #[must_use]
    pub fn agrees(&self, cell: &Cell) -> bool {
        match self {
            Self::Allowed(from) => cell.backends.contains(&(from.clone(), true)),
            Self::Denied => cell.some_denied(),
            Self::Refused => cell.backends.is_empty(),
            Self::NotApplicable => true,
            Self::Error(_) => false,
        }
    }
}

/// The lab's pods and outside hosts, by their indices in the plan.
#[derive(Debug)]
pub struct Fleet {
    /// The running pods.
    pub pods: Vec<Arc<Pod>>,
    /// The hosts outside.
    pub outside: Vec<Arc<Control>>,
}

impl Fleet {
    /// Who sends a party's probes.
    fn control(&self, party: Party) -> Option<&Arc<Control>> {
        match party {
            Party::Pod(index) => self.pods.get(index).map(|pod| &pod.control),
            Party::Outside(index) => self.outside.get(index),
            Party::Service(_) => None,
        }
    }

    /// The pods' addresses, by their indices in the plan.
    #[must_use]
    pub fn addresses(&self) -> Vec<Vec<IpAddr>> {
        self.pods.iter().map(|pod| pod.addresses.clone()).collect()
    }

    /// What arrived at every pod and outside host, by name.
    fn seen(&self, plan: &Plan) -> Result<HashMap<String, BTreeSet<Seen>>> {
        let pods = (0..self.pods.len()).map(Party::Pod);
        let outside = (0..self.outside.len()).map(Party::Outside);
        pods.chain(outside)
            .filter_map(|party| self.control(party).map(|control| (party, control)))
            .map(|(party, control)| {
                Ok((name_of(plan, party), control.seen()?.into_iter().collect()))
            })
            .collect()
    }
}

/// The outcome of probing all cells.
#[derive(Debug)]
pub struct Probed {
    /// By the cells' indices.
    pub observed: Vec<Observed>,
    /// Cells that disagreed at first and were probed again.
    pub second_tries: usize,
    /// How long it took.
    pub took: Duration,
}

/// Probes every cell; those that disagree a second time, with more patience (a busy machine loses
/// time, a policy does not change its mind).
///
/// # Errors
/// When a pod's server is gone.
pub fn probe(
    plan: &Plan,
    fleet: &Fleet,
    cells: &[Cell],
    limits: [Duration; 2],
    progress: &Progress,
) -> Result<Probed> {
    let start = Instant::now();
    let every: Vec<usize> = (0..cells.len()).collect();
    let mut observed = vec![Observed::Denied; cells.len()];
    for (index, result) in round(plan, fleet, cells, &every, limits[0], progress)? {
        observed[index] = result;
    }
    let again: Vec<usize> = every
        .into_iter()
        .filter(|&index| !observed[index].agrees(&cells[index]))
        .collect();
    for (index, result) in round(plan, fleet, cells, &again, limits[1], progress)? {
        observed[index] = result;
    }
    Ok(Probed {
        observed,
        second_tries: again.len(),
        took: start.elapsed(),
    })
}

/// Probes one cell once.
///
/// # Errors
/// When a pod's server is gone.
pub fn probe_one(plan: &Plan, fleet: &Fleet, cell: &Cell, limit: Duration) -> Result<Observed> {
    let cells = std::slice::from_ref(cell);
    let mut results = round(plan, fleet, cells, &[0], limit, &Progress::silent())?;
    results
        .pop()
        .map(|(_, observed)| observed)
        .context("no outcome")
}

fn round(
    plan: &Plan,
    fleet: &Fleet,
    cells: &[Cell],
    which: &[usize],
    limit: Duration,
    progress: &Progress,
) -> Result<Vec<(usize, Observed)>> {
    let (sender, receiver) = mpsc::channel();
    for &index in which {
        let cell = &cells[index];
        let Some(control) = fleet.control(cell.from) else {
            continue;
        };
        let probe = Probe::new(cell.address, cell.listen.port, cell.listen.proto)
            .timeout_ms(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        let sender = sender.clone();
        control.send(
            Command::Probe(probe),
            Box::new(move |answer| {
                let _ = sender.send((index, answer));
            }),
        )?;
    }
    drop(sender);
    let mut outcomes = Vec::new();
    for (index, answer) in receiver {
        outcomes.push((index, answer));
        progress.step("probing", outcomes.len(), which.len());
    }
    progress.done();
    anyhow::ensure!(
        outcomes.len() == which.len(),
        "a pod's server died while it was probing"
    );
    let seen = fleet.seen(plan)?;
    Ok(outcomes
        .into_iter()
        .map(|(index, answer)| (index, judge(&cells[index], answer, &seen)))
        .collect())
}

/// Tells what a probe's outcome means, with the servers' own records of what arrived.
fn judge(cell: &Cell, answer: Answer, seen: &HashMap<String, BTreeSet<Seen>>) -> Observed {
    let outcome = match answer {
        Answer::Probe(outcome) => outcome,
        other => return Observed::Error(format!("{other:?}")),
    };
    match outcome {
        Outcome::Answer { from, .. } if cell.backends.iter().any(|(name, _)| *name == from) => {
            Observed::Allowed(from)
        }
        Outcome::Answer { from, .. } => Observed::Error(format!("answered by {from}")),
        Outcome::Timeout { local } => {
            let arrived = cell.backends.iter().find(|(name, _)| {
                seen.get(name).into_iter().flatten().any(|packet| {
                    // A Service's backend has a port of its own; the source is enough there.
                    let same_port =
                        matches!(cell.to, Party::Service(_)) || packet.port == cell.listen.port;
                    packet.proto == cell.listen.proto && packet.from == local && same_port
                })
            });
            match arrived {
                Some((name, _)) => {
                    Observed::Error(format!("reached {name}, but no answer came back"))
                }
                None => Observed::Denied,
            }
        }
        Outcome::Refused => Observed::Refused,
        Outcome::Unsupported => Observed::NotApplicable,
        Outcome::Reset => Observed::Error("reset".to_owned()),
        Outcome::Unreachable => Observed::Error("unreachable".to_owned()),
        Outcome::Failed { error } => Observed::Error(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Listen, Proto};

    fn cell(backends: &[(&str, bool)]) -> Cell {
        Cell {
            from: Party::Pod(0),
            to: Party::Pod(1),
            address: "10.0.0.2".parse().unwrap(),
            listen: Listen {
                proto: Proto::Tcp,
                port: 80,
            },
            declared: true,
            backends: backends
                .iter()
                .map(|(name, ok)| ((*name).to_owned(), *ok))
                .collect(),
        }
    }

    fn timeout() -> Answer {
        Answer::Probe(Outcome::Timeout {
            local: "10.0.0.1:4000".parse().unwrap(),
        })
    }

    fn record(port: u16) -> HashMap<String, BTreeSet<Seen>> {
        let from = "10.0.0.1:4000".parse().unwrap();
        let seen = Seen {
            proto: Proto::Tcp,
            from,
            port,
        };
        HashMap::from([("a/b".to_owned(), BTreeSet::from([seen]))])
    }

    #[test]
    fn a_timeout_is_a_denial_only_if_nothing_arrived() {
        let denied = cell(&[("a/b", false)]);
        assert_eq!(judge(&denied, timeout(), &HashMap::new()), Observed::Denied);
        assert_eq!(judge(&denied, timeout(), &record(81)), Observed::Denied);
        let leaked = judge(&denied, timeout(), &record(80));
        assert!(matches!(leaked, Observed::Error(_)), "{leaked:?}");
        assert!(!leaked.agrees(&denied));
    }

    #[test]
    fn an_answer_must_name_a_pod_that_backs_the_target() {
        let answer = |from: &str| {
            let local = "10.0.0.1:4000".parse().unwrap();
            let outcome = Outcome::Answer {
                from: from.to_owned(),
                peer: local,
                local,
            };
            judge(
                &cell(&[("a/b", true), ("a/c", false)]),
                Answer::Probe(outcome),
                &HashMap::new(),
            )
        };
        let cell = cell(&[("a/b", true), ("a/c", false)]);
        assert!(answer("a/b").agrees(&cell));
        assert!(!answer("a/c").agrees(&cell), "a denied backend answered");
        assert!(!answer("x/y").agrees(&cell), "a stranger answered");
        assert!(Observed::Denied.agrees(&cell));
    }

    #[test]
    fn refused_and_reset_are_failures_unless_a_service_has_no_endpoints() {
        assert!(!Observed::Refused.agrees(&cell(&[("a/b", true)])));
        assert!(!Observed::Refused.agrees(&cell(&[("a/b", false)])));
        assert!(Observed::Refused.agrees(&cell(&[])));
        let reset = judge(
            &cell(&[("a/b", true)]),
            Answer::Probe(Outcome::Reset),
            &HashMap::new(),
        );
        assert!(!reset.agrees(&cell(&[("a/b", true)])));
    }
}
