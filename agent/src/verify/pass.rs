//! All endpoints, both directions, all addresses, all boundaries: a slice at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use weir_oracle::{Cluster, Evaluator};
use weir_policy::Direction;

use super::compare::{Disagreement, Outcome, Pair, compare};
use super::ends::{Endpoint, Facts, Peer, Subject};
use super::probes::{self, Probe};
use super::tables::Tables;

/// How far a pass has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// There is more.
    More,
    /// Everything was looked at.
    Done,
}

/// What was found, and how to look at it again.
struct Found {
    pair: Pair,
    probes: Vec<Probe>,
    told: Disagreement,
}

/// One comparison of everything. What neither maps nor objects can tell apart is looked at once.
pub struct Pass<'a> {
    evaluator: &'a Evaluator<'a>,
    cluster: &'a Cluster,
    tables: Tables,
    subjects: Vec<Subject>,
    peers: Vec<Peer>,
    /// Why some endpoints are not judged.
    pub unjudged: Vec<String>,
    /// Pairs of an endpoint in one direction and a peer that were looked at.
    looked: usize,
    /// Where it began.
    first: usize,
    checked: u64,
    found: Vec<Found>,
    /// By namespace: the ports that its rules name.
    named: HashMap<String, BTreeSet<Probe>>,
}

impl<'a> Pass<'a> {
    /// Over these maps and objects; it begins with the `first`th pair (and comes around), so that a
    /// pass which is always cut short does not look at the same ones each time.
    pub fn new(
        cluster: &'a Cluster,
        evaluator: &'a Evaluator<'a>,
        tables: Tables,
        endpoints: &[Endpoint],
        first: usize,
    ) -> Self {
        let facts = Facts::new(cluster, evaluator);
        let (subjects, unjudged) = facts.subjects(endpoints, &tables);
        let addresses = endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        let node = addresses.copied().find_map(|addr| evaluator.who(addr).node);
        let peers = facts.peers(&tables, node.as_deref());
        Self {
            evaluator,
            cluster,
            tables,
            subjects,
            peers,
            unjudged,
            looked: 0,
            first,
            checked: 0,
            found: Vec::new(),
            named: HashMap::new(),
        }
    }

    /// How many pairs there are to look at.
    pub fn pairs(&self) -> usize {
        self.subjects.len() * Direction::ALL.len() * self.peers.len()
    }

    /// How many of them were looked at.
    pub fn looked(&self) -> usize {
        self.looked
    }

    /// Flows compared so far.
    pub fn checked(&self) -> u64 {
        self.checked
    }

    /// The maps.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// What was found so far.
    pub fn found(&self) -> impl Iterator<Item = &Disagreement> {
        self.found.iter().map(|found| &found.told)
    }

    /// How many disagreements were found so far.
    pub fn found_count(&self) -> usize {
        self.found.len()
    }

    /// Looks on until `enough` says so; it is asked after each pair.
    pub fn step(&mut self, mut enough: impl FnMut(&Self) -> bool) -> Progress {
        let pairs = self.pairs();
        while self.looked < pairs {
            let number = (self.first.wrapping_add(self.looked)) % pairs;
            let (rest, peer) = (number / self.peers.len(), number % self.peers.len());
            let direction = Direction::ALL[rest % 2];
            self.look(rest / 2, direction, peer);
            self.looked += 1;
            if enough(self) {
                break;
            }
        }
        if self.looked < pairs {
            Progress::More
        } else {
            Progress::Done
        }
    }

    fn look(&mut self, subject: usize, direction: Direction, peer: usize) {
        let (subject, peer) = (&self.subjects[subject], &self.peers[peer]);
        let endpoint = &subject.endpoint;
        let addr = peer
            .addresses
            .iter()
            .find(|a| !endpoint.addresses.contains(a));
        let Some(addr) = addr.copied() else { return };
        let own = endpoint
            .addresses
            .iter()
            .find(|a| a.is_ipv6() == addr.is_ipv6());
        let Some(own) = own.copied() else { return };
        let group = self.tables.group(endpoint.slot, direction);
        let class = self.tables.class(addr);
        let mut all = probes::of_row(&self.tables.starts(group, class), addr.is_ipv6());
        if let Some((namespace, _)) = &subject.pod {
            if !self.named.contains_key(namespace) {
                let named = probes::of_namespace(self.cluster, namespace);
                self.named.insert(namespace.clone(), named);
            }
            all.extend(self.named.get(namespace).into_iter().flatten());
        }
        let pair = Pair {
            slot: endpoint.slot,
            end: subject.end(own),
            direction,
            peer: addr,
        };
        let mut differ: BTreeMap<(String, String), Vec<Probe>> = BTreeMap::new();
        for probe in all {
            match compare(&pair, probe, &self.tables, self.evaluator) {
                Outcome::NotJudged => {}
                Outcome::Agree => self.checked += 1,
                Outcome::Disagree(objects, kernel) => {
                    self.checked += 1;
                    differ.entry((objects, kernel)).or_default().push(probe);
                }
            }
        }
        for ((objects, kernel), probes) in differ {
            let told = Disagreement {
                endpoint: subject.label.clone(),
                address: own,
                slot: endpoint.slot,
                direction: direction.name(),
                peer: addr,
                peer_is: self.who(addr),
                ports: probes.iter().map(|probe| probe.words()).collect(),
                objects,
                kernel,
                group: group.0,
                class: class.0,
                endpoints_alike: subject.alike,
                peers_alike: peer.alike,
            };
            self.found.push(Found {
                pair: pair.clone(),
                probes,
                told,
            });
        }
    }

    fn who(&self, addr: IpAddr) -> String {
        let party = self.evaluator.who(addr);
        match party.kind {
            weir_oracle::PartyKind::Outside => "outside".to_owned(),
            _ => party.to_string(),
        }
    }

    /// Keeps of what was found since `from` what is still so by maps that were read again.
    pub fn check_again(&mut self, from: usize, tables: &Tables) {
        let again = self.found.split_off(from.min(self.found.len()));
        for mut found in again {
            found.probes.retain(|probe| {
                let outcome = compare(&found.pair, *probe, tables, self.evaluator);
                matches!(outcome, Outcome::Disagree(..))
            });
            found.told.ports = found.probes.iter().map(|probe| probe.words()).collect();
            if !found.probes.is_empty() {
                self.found.push(found);
            }
        }
    }
}

#[cfg(test)]
mod tests;
