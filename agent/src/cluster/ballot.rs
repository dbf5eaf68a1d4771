//! Who may take the Lease: pure, as client-go's leader election decides.
//!
//! The clocks of other nodes count for nothing: a Lease has run out when this agent has seen no
//! change of it for as long as it is valid.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp,
};

/// The times of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a Lease is valid that is not renewed.
    pub duration: Duration,
    /// How long after its last renewal the holder gives up; less than `duration`.
    pub deadline: Duration,
    /// Time between two renewals.
    pub retry: Duration,
}

impl Default for Timing {
    /// client-go's.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

impl Timing {
    /// How long an agent that is not the holder waits until it looks again: so that not all agents of
    /// a large cluster look every two seconds, longer the more Nodes there are.
    pub fn follow(&self, nodes: usize) -> Duration {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        let wait = self.retry.saturating_mul(nodes) / 10;
        wait.clamp(self.retry, self.duration)
    }
}

/// Whose the Lease is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Nobody's, or it has run out.
    Nobodys,
    /// This agent's.
    Mine,
    /// Another's, at least until then.
    Theirs(Instant),
}

/// One candidate.
#[derive(Clone, Debug)]
pub struct Ballot {
    identity: String,
    /// Its times.
    pub timing: Timing,
    /// The Lease as last seen, and since when it has been so.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Ballot {
    /// An agent of that node, told from all others, also from a former one of that node.
    pub fn new(node_name: &str, timing: Timing) -> Self {
        let random = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
        Self::with_identity(format!("{node_name}_{}", random.trim()), timing)
    }

    /// With an identity that is nobody else's.
    pub fn with_identity(identity: String, timing: Timing) -> Self {
        Self {
            identity,
            timing,
            seen: None,
        }
    }

    /// Takes in what the Lease says at a moment.
    pub fn observe(&mut self, spec: &LeaseSpec, now: Instant) {
        if self.seen.as_ref().is_none_or(|(seen, _)| seen != spec) {
            self.seen = Some((spec.clone(), now));
        }
    }

    /// Whose the Lease is, by what was observed.
    pub fn whose(&self, now: Instant) -> Whose {
        let Some((spec, since)) = &self.seen else {
            return Whose::Nobodys;
        };
        match spec.holder_identity.as_deref() {
            None | Some("") => Whose::Nobodys,
            Some(holder) if holder == self.identity => Whose::Mine,
            Some(_) => {
                let seconds = spec.lease_duration_seconds.unwrap_or_default();
                let valid = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
                let until = *since + valid;
                match until <= now {
                    true => Whose::Nobodys,
                    false => Whose::Theirs(until),
                }
            }
        }
    }

    /// Who holds it, for people.
    pub fn holder(&self) -> &str {
        let holder = self.seen.as_ref();
        let holder = holder.and_then(|(spec, _)| spec.holder_identity.as_deref());
        holder.unwrap_or_default()
    }

    /// The Lease as this agent writes it to take or keep it.
    pub fn claim(&self, old: &LeaseSpec, now: Timestamp) -> LeaseSpec {
        let is_mine = old.holder_identity.as_deref() == Some(&self.identity);
        let transitions = old.lease_transitions.unwrap_or_default();
        LeaseSpec {
            acquire_time: match is_mine {
                true => old.acquire_time.clone(),
                false => Some(MicroTime(now)),
            },
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.timing.duration.as_secs()).ok(),
            lease_transitions: Some(transitions.saturating_add(i32::from(!is_mine))),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }
    }

    /// The Lease as this agent writes it to give it back.
    pub fn release(&self, old: &LeaseSpec, now: Timestamp) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            lease_transitions: old.lease_transitions,
            renew_time: Some(MicroTime(now)),
            acquire_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ballot(identity: &str) -> Ballot {
        Ballot::with_identity(identity.to_owned(), Timing::default())
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_lease_runs_out_by_what_was_seen_whatever_its_times_say() {
        let (a, mut b) = (ballot("a"), ballot("b"));
        let start = Instant::now();
        // A's clock is a year ahead, then a year back.
        let first = a.claim(&LeaseSpec::default(), at(100_000_000));
        b.observe(&first, start);
        assert_eq!(b.whose(start), Whose::Theirs(start + 15 * SECOND));
        b.observe(&first, start + 14 * SECOND);
        assert_eq!(b.whose(start + 15 * SECOND), Whose::Nobodys);
        let renewed = a.claim(&first, at(1));
        b.observe(&renewed, start + 15 * SECOND);
        let until = start + 30 * SECOND;
        assert_eq!(b.whose(start + 29 * SECOND), Whose::Theirs(until));
        assert_eq!(b.holder(), "a");
    }

    #[test]
    fn a_lease_never_seen_before_is_valid_for_its_whole_time() {
        let mut b = ballot("b");
        let old = ballot("a").claim(&LeaseSpec::default(), at(0));
        let start = Instant::now();
        b.observe(&old, start);
        assert_eq!(b.whose(start), Whose::Theirs(start + 15 * SECOND));
    }

    #[test]
    fn who_takes_it_counts_a_transition_and_who_renews_it_does_not() {
        let (a, b) = (ballot("a"), ballot("b"));
        let first = a.claim(&LeaseSpec::default(), at(1));
        let renewed = a.claim(&first, at(2));
        assert_eq!(renewed.lease_transitions, first.lease_transitions);
        assert_eq!(renewed.acquire_time, Some(MicroTime(at(1))));
        assert_eq!(renewed.renew_time, Some(MicroTime(at(2))));
        let taken = b.claim(&renewed, at(3));
        assert_eq!(taken.lease_transitions, Some(2));
        assert_eq!(taken.acquire_time, Some(MicroTime(at(3))));
    }

    #[test]
    fn a_lease_given_back_is_free_at_once_and_mine_is_mine() {
        let (a, mut b) = (ballot("a"), ballot("b"));
        let start = Instant::now();
        assert_eq!(b.whose(start), Whose::Nobodys);
        b.observe(&b.claim(&LeaseSpec::default(), at(1)), start);
        assert_eq!(b.whose(start + 100 * SECOND), Whose::Mine);
        let held = a.claim(&LeaseSpec::default(), at(1));
        b.observe(&held, start);
        b.observe(&a.release(&held, at(2)), start);
        assert_eq!(b.whose(start), Whose::Nobodys);
    }

    #[test]
    fn two_agents_of_one_node_are_told_apart() {
        let identity = || Ballot::new("n1", Timing::default()).identity;
        assert_ne!(identity(), identity());
        assert!(identity().starts_with("n1_"));
    }

    #[test]
    fn the_more_nodes_the_less_often_each_looks() {
        let timing = Timing::default();
        assert_eq!(timing.follow(0), 2 * SECOND);
        assert_eq!(timing.follow(10), 2 * SECOND);
        assert_eq!(timing.follow(50), 10 * SECOND);
        assert_eq!(timing.follow(usize::MAX), 15 * SECOND);
    }
}
