//! Which flows that were *seen* would break: the seam for the record of flows that is to come. Until
//! there is one nothing of this is shown.
//!
//! Whoever keeps flows gives them to [`Judge::broken`] as an iterator; it may be as long as it likes,
//! nothing is kept of it.
#![cfg_attr(
    not(test),
    expect(dead_code, reason = "used as soon as flows are recorded")
)]

use std::collections::HashMap;
use std::net::IpAddr;

use weir_abi::Proto;
use weir_abi::policy::Interval;

use crate::cli::reach::{Causes, Census, Compiled, Kind, Tables, View};

/// A flow as it was seen, after Service translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Flow {
    pub from: IpAddr,
    pub to: IpAddr,
    pub proto: Proto,
    /// The destination port; 0 for protocols without ports.
    pub port: u16,
}

/// Judges single flows in both worlds.
pub(super) struct Judge<'a> {
    census: &'a Census<'a>,
    worlds: &'a mut [Compiled; 2],
    tables: &'a mut Tables,
    /// By world.
    parties: [HashMap<IpAddr, usize>; 2],
}

impl<'a> Judge<'a> {
    pub fn new(
        census: &'a Census<'a>,
        worlds: &'a mut [Compiled; 2],
        tables: &'a mut Tables,
    ) -> Self {
        let parties = [0, 1].map(|world| {
            let all = census.parties.iter().enumerate();
            let of = all.filter(|(_, party)| party.kind != Kind::Outside);
            let addresses = of.flat_map(|(number, party)| {
                let addresses = party.faces[world].addresses.into_iter().flatten();
                addresses.map(move |addr| (addr, number))
            });
            addresses.collect()
        });
        Self {
            census,
            worlds,
            tables,
            parties,
        }
    }

    /// Those of the flows that pass now and would not, and what would deny them.
    pub fn broken(
        &mut self,
        flows: impl IntoIterator<Item = Flow>,
    ) -> impl Iterator<Item = (Flow, Causes)> {
        flows.into_iter().filter_map(move |flow| {
            let before = self.judge(0, flow)?;
            let after = self.judge(1, flow)?;
            (before.allow() && !after.allow()).then_some((flow, after))
        })
    }

    /// None where no policy is asked: a pod reaches itself, a node its own pods.
    fn judge(&mut self, world: usize, flow: Flow) -> Option<Causes> {
        let party = |addr: &IpAddr| self.parties[world].get(addr).copied();
        let (from, to) = (party(&flow.from), party(&flow.to));
        if let (Some(from), Some(to)) = (from, to) {
            let (source, target) = (&self.census.parties[from], &self.census.parties[to]);
            let runs_on = target.faces[world].node.as_ref();
            let own = source.kind == Kind::Node && runs_on == Some(&source.name);
            if from == to || own {
                return None;
            }
        }
        let compiled = &mut self.worlds[world];
        let view = |party: Option<usize>, addr| -> View {
            party.map_or_else(|| compiled.outside(addr), |party| compiled.views[party])
        };
        let (from, to) = (view(from, flow.from), view(to, flow.to));
        let family = usize::from(flow.to.is_ipv6());
        let (egress, ingress) = compiled.tables(&from, &to, family, self.tables)?;
        let key = Interval::key(flow.proto, flow.port);
        let stretches = self.tables.flow(egress, ingress);
        let found = stretches
            .iter()
            .find(|(start, end, _)| (*start..*end).contains(&key));
        found.map(|(_, _, causes)| *causes)
    }
}

#[cfg(test)]
mod tests {
    use weir_manifests::Manifests;

    use super::*;
    use crate::cli::world::World;

    const OBJECTS: &str = "\
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {nodeName: n1, containers: []}
status: {podIPs: [{ip: 10.1.0.2}, {ip: 'fd01::2'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n2, containers: []}
status: {podIPs: [{ip: 10.2.0.3}, {ip: 'fd02::3'}]}
";
    const POLICY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 5432}]}]}
";

    fn world(text: &str) -> World {
        let mut manifests = Manifests::default();
        manifests.add_file("x.yaml".as_ref(), text.as_bytes());
        manifests.imply_namespaces();
        World::of_manifests(manifests)
    }

    #[test]
    fn of_the_flows_seen_those_are_told_that_would_be_denied() {
        let (before, after) = (world(OBJECTS), world(&format!("{OBJECTS}---\n{POLICY}")));
        let census = Census::of(&[&before, &after]);
        let now = Compiled::new(&before, 0, &census);
        let then = now.edited((&before, &after), 1, &census);
        let mut worlds = [now, then];
        let mut tables = Tables::new();
        let flow = |from: &str, to: &str, proto, port| Flow {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            proto,
            port,
        };
        let broken = [
            flow("10.2.0.3", "10.1.0.2", Proto::TCP, 22),
            flow("fd02::3", "fd01::2", Proto::ICMPV6, 0),
            flow("203.0.113.9", "10.1.0.2", Proto::TCP, 5432),
        ];
        let fine = [
            flow("10.2.0.3", "10.1.0.2", Proto::TCP, 5432),
            flow("10.1.0.2", "10.2.0.3", Proto::TCP, 22),
            flow("192.168.0.1", "10.1.0.2", Proto::TCP, 22),
            flow("10.1.0.2", "10.1.0.2", Proto::TCP, 22),
        ];
        let mut judge = Judge::new(&census, &mut worlds, &mut tables);
        let seen = fine.into_iter().chain(broken);
        let found: Vec<_> = judge.broken(seen).collect();
        let flows: Vec<Flow> = found.iter().map(|(flow, _)| *flow).collect();
        assert_eq!(flows, broken);
        assert_eq!(tables.words(&found[0].1), "ingress: isolated by shop/db");
    }
}
