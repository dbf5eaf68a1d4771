//! One world, compiled as if every pod were an endpoint here.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodIP};
use weir_policy::{Direction, Event, Index, LocalEndpoint, ObjectName, PodRef, Subject};

use super::census::{Census, Kind, Party};
use super::difference::events;
use super::tables::{OPEN, TableId, Tables};
use crate::cli::world::World;

/// How the policy engine sees a party of one world: parties with equal views are told apart by no
/// policy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(in super::super) struct View {
    /// Ingress and egress; none for who is subject to no policy.
    pub subjects: Option<[Subject; 2]>,
    /// The classes of its addresses, IPv4 and IPv6.
    pub classes: [Option<u32>; 2],
}

/// A table that was not asked for yet.
const UNKNOWN: TableId = TableId::MAX;

/// A compiled world.
pub(in super::super) struct Compiled {
    index: Index,
    /// By party.
    pub views: Vec<View>,
    /// By group and class: the table's number, or [`UNKNOWN`].
    known: Vec<Vec<TableId>>,
}

impl Compiled {
    /// `number` is the world's among those of the census.
    pub fn new(world: &World, number: usize, census: &Census<'_>) -> Self {
        let mut index = Index::new("");
        for event in events(None, world) {
            let _ = index.apply(event);
        }
        Self::of(index, number, census)
    }

    /// Another world of the census; this one is of `before`. Only what differs is compiled again.
    pub fn edited(
        &self,
        (before, after): (&World, &World),
        number: usize,
        census: &Census<'_>,
    ) -> Self {
        let mut index = self.index.clone();
        for event in events(Some(before), after) {
            let _ = index.apply(event);
        }
        Self::of(index, number, census)
    }

    fn of(mut index: Index, number: usize, census: &Census<'_>) -> Self {
        for party in &census.parties {
            if let Kind::Pod(slot) = party.kind {
                let face = &party.faces[number];
                let addresses = face.addresses.into_iter().flatten();
                // The Pod says what was made up for it, as if it had been there.
                if let Some(pod) = face.pod.filter(|_| face.made_up) {
                    let pod = with_addresses(pod, addresses.clone());
                    let _ = index.apply(Event::ApplyPod(Box::new(pod)));
                }
                // One that is as it was changes nothing.
                let _ = index.apply(Event::ApplyEndpoint(LocalEndpoint {
                    slot,
                    pod: Some(PodRef {
                        name: ObjectName::new(&party.namespace, &party.name),
                        uid: None,
                    }),
                    addresses: addresses.collect(),
                }));
            }
        }
        index.compile();
        let desired = index.desired();
        let view = |party: &Party<'_>| View {
            subjects: match party.kind {
                Kind::Pod(slot) => Some(Direction::ALL.map(|d| desired.subject(slot, d))),
                Kind::Node | Kind::Outside => None,
            },
            classes: party.faces[number]
                .addresses
                .map(|a| a.map(|a| desired.class_of(a))),
        };
        Self {
            views: census.parties.iter().map(view).collect(),
            index,
            known: Vec::new(),
        }
    }

    /// The tables that judge a flow at its source and at its destination, over one family (0:
    /// IPv4, 1: IPv6); none if an end does not have it.
    pub fn tables(
        &mut self,
        from: &View,
        to: &View,
        family: usize,
        tables: &mut Tables,
    ) -> Option<(TableId, TableId)> {
        let (source, target) = (from.classes[family]?, to.classes[family]?);
        let of = |subjects: Option<[Subject; 2]>, direction| match (subjects, direction) {
            (None, _) => Subject::Open,
            (Some([ingress, _]), Direction::Ingress) => ingress,
            (Some([_, egress]), Direction::Egress) => egress,
        };
        let egress = self.table(of(from.subjects, Direction::Egress), target, tables);
        let ingress = self.table(of(to.subjects, Direction::Ingress), source, tables);
        Some((egress, ingress))
    }

    fn table(&mut self, subject: Subject, class: u32, tables: &mut Tables) -> TableId {
        let group = match subject {
            Subject::Open => return OPEN,
            Subject::Closed => return tables.number(&self.index.desired().cells(subject, class)),
            Subject::Group(group) => group as usize,
        };
        if self.known.len() <= group {
            self.known.resize_with(group + 1, Vec::new);
        }
        let row = &mut self.known[group];
        let class_at = class as usize;
        if row.len() <= class_at {
            row.resize(class_at + 1, UNKNOWN);
        }
        if row[class_at] == UNKNOWN {
            row[class_at] = tables.number(&self.index.desired().cells(subject, class));
        }
        row[class_at]
    }

    /// The view of an address that is no party's.
    pub fn outside(&self, addr: IpAddr) -> View {
        let class = Some(self.index.desired().class_of(addr));
        View {
            subjects: None,
            classes: if addr.is_ipv4() {
                [class, None]
            } else {
                [None, class]
            },
        }
    }
}

fn with_addresses(pod: &Pod, addresses: impl Iterator<Item = IpAddr>) -> Pod {
    let mut pod = pod.clone();
    let listed = addresses.map(|addr| PodIP {
        ip: addr.to_string(),
    });
    pod.status.get_or_insert_default().pod_ips = Some(listed.collect());
    pod
}
