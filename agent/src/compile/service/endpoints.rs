//! Which endpoints a port leads to: for everyone in the cluster, and on this node. The rules are
//! those of kube-proxy (`CategorizeEndpoints`).

use std::collections::BTreeMap;

use weir_abi::Addr;
use weir_abi::service::BackendState;

use super::hash::Content;
use super::parse::{NodeHint, ParsedEndpoint, ParsedSlice, Port, Readiness, ServiceName};

/// The endpoints of one port and family.
#[derive(Debug)]
pub(super) struct Endpoints<'a> {
    /// All that the slices say, sorted by address and port.
    pub backends: Vec<Endpoint<'a>>,
}

/// One endpoint.
#[derive(Debug)]
pub(super) struct Endpoint<'a> {
    pub content: Content,
    /// Member of the set that traffic policy Cluster leads to.
    pub in_cluster: bool,
    /// Member of the set that traffic policy Local leads to.
    pub in_local: bool,
    /// What the slices say.
    pub parsed: &'a ParsedEndpoint,
}

impl Endpoint<'_> {
    /// One that serves and that no set has keeps its flows.
    pub fn state(&self) -> BackendState {
        match self.parsed.readiness {
            _ if self.in_cluster || self.in_local => BackendState::Active,
            Readiness::Ready | Readiness::Terminating => BackendState::Draining,
            Readiness::NotReady => BackendState::Removed,
        }
    }
}

impl Endpoints<'_> {
    /// Members of the set for traffic policy Cluster.
    pub fn cluster(&self) -> impl Iterator<Item = Content> {
        self.backends
            .iter()
            .filter(|b| b.in_cluster)
            .map(|b| b.content)
    }

    /// Members of the set for traffic policy Local.
    pub fn local(&self) -> impl Iterator<Item = Content> {
        self.backends
            .iter()
            .filter(|b| b.in_local)
            .map(|b| b.content)
    }

    /// Whether any endpoint of the cluster serves.
    pub fn has_any(&self) -> bool {
        let mut all = self.backends.iter();
        all.any(|b| b.parsed.readiness != Readiness::NotReady)
    }
}

/// Which sets of a port and family frontends lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uses {
    /// Of all backends.
    pub cluster: bool,
    /// Of those on this node.
    pub local: bool,
}

/// What the slices say of a port's endpoints in one family, in those sets that are used.
/// `zone` is this node's.
pub(super) fn endpoints<'a>(
    name: &ServiceName,
    (port, v4): (&Port, bool),
    uses: Uses,
    slices: impl Iterator<Item = &'a ParsedSlice>,
    zone: Option<&str>,
) -> Endpoints<'a> {
    let found = best(port, v4, slices);
    let all: Vec<&ParsedEndpoint> = found.values().copied().collect();

    let topology = Topology::of(&all, zone);
    let cluster = best_of(&all, |e| match e.readiness {
        Readiness::Ready => topology.takes(e, zone),
        // Without topology, as it is about what is ready.
        _ => true,
    });
    let local = best_of(&all, |e| e.is_local);
    let backends = found.into_iter().map(|((addr, number), parsed)| {
        let fields: [&[u8]; 5] = [
            b"backend",
            name.namespace.as_bytes(),
            name.name.as_bytes(),
            &port.number.to_be_bytes(),
            &parsed.uid,
        ];
        let takes = |best, fits| best == Some(parsed.readiness) && fits;
        let fits = parsed.readiness != Readiness::Ready || topology.takes(parsed, zone);
        Endpoint {
            content: Content::new(addr, number, port.proto, &fields),
            in_cluster: uses.cluster && takes(cluster, fits),
            in_local: uses.local && takes(local, parsed.is_local),
            parsed,
        }
    });
    Endpoints {
        backends: backends.collect(),
    }
}

/// Ready ones, or, without any, those that serve while they terminate.
fn best_of(all: &[&ParsedEndpoint], fits: impl Fn(&ParsedEndpoint) -> bool) -> Option<Readiness> {
    let fitting = all.iter().filter(|e| fits(e)).map(|e| e.readiness);
    fitting.max().filter(|best| *best != Readiness::NotReady)
}

/// Which of the ready endpoints are for this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topology {
    All,
    SameNode,
    SameZone,
}

impl Topology {
    /// Hints count only if every ready endpoint has them and one of them is met, so that no client
    /// is left without a backend.
    fn of(all: &[&ParsedEndpoint], zone: Option<&str>) -> Self {
        let ready = || all.iter().filter(|e| e.readiness == Readiness::Ready);
        let is_here = |e: &&&ParsedEndpoint| e.for_node == NodeHint::This;
        if ready().all(|e| e.for_node != NodeHint::None) && ready().any(|e| is_here(&e)) {
            return Self::SameNode;
        }
        let in_zone = |e: &&ParsedEndpoint| Self::SameZone.takes(e, zone);
        if ready().all(|e| !e.for_zones.is_empty()) && ready().any(in_zone) {
            return Self::SameZone;
        }
        Self::All
    }

    fn takes(self, endpoint: &ParsedEndpoint, zone: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::SameNode => endpoint.for_node == NodeHint::This,
            Self::SameZone => endpoint.for_zones.iter().any(|z| Some(&**z) == zone),
        }
    }
}

/// (address, port) → the best that any slice says of it.
fn best<'a>(
    port: &Port,
    v4: bool,
    slices: impl Iterator<Item = &'a ParsedSlice>,
) -> BTreeMap<(Addr, u16), &'a ParsedEndpoint> {
    let mut found: BTreeMap<(Addr, u16), &ParsedEndpoint> = BTreeMap::new();
    let same = |p: &&Port| p.name == port.name && p.proto == port.proto;
    for slice in slices {
        // A slice has each name once per protocol; a second one adds its port's endpoints.
        for port in slice.ports.iter().filter(same) {
            for endpoint in slice.endpoints.iter().filter(|e| e.addr.is_v4() == v4) {
                let best = found
                    .entry((endpoint.addr, port.number))
                    .or_insert(endpoint);
                if (endpoint.readiness, endpoint) > (best.readiness, *best) {
                    *best = endpoint;
                }
            }
        }
    }
    found
}
