//! Who has which address: the pods and nodes of the cluster.

mod pod;
mod profile;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use weir_abi::Addr;
use weir_abi::policy::LpmKey;

use crate::event::ObjectName;
use crate::slab::{Number, Slab};
pub(crate) use pod::{PodInfo, namespace_labels};
pub(crate) use profile::Profiles;

/// All known pods and nodes, by their addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Census {
    names: HashMap<ObjectName, Number>,
    pods: Slab<PodEntry>,
    pub profiles: Profiles,
    addresses: BTreeMap<Ordered, Claims>,
}

/// A known pod.
#[derive(Clone, Debug)]
pub(crate) struct PodEntry {
    name: ObjectName,
    pub info: Arc<PodInfo>,
    /// Its number in [`Profiles`], if it is a peer.
    pub profile: Option<Number>,
}

/// Who says that an address is theirs.
#[derive(Clone, Debug, Default)]
struct Claims {
    /// Pods that are peers.
    pods: Vec<Number>,
    /// Endpoints of this node, by slot: what the node's own record says goes before all pods.
    endpoints: BTreeSet<u32>,
    /// Nodes.
    nodes: BTreeSet<String>,
}

impl Claims {
    fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.endpoints.is_empty() && self.nodes.is_empty()
    }
}

/// An address in the order of its bits; IPv4 is mapped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Ordered(u128);

impl From<Addr> for Ordered {
    fn from(addr: Addr) -> Self {
        let word = |i: usize| u128::from(u32::from_be(addr.0[i]));
        Self(word(0) << 96 | word(1) << 64 | word(2) << 32 | word(3))
    }
}

impl From<Ordered> for Addr {
    fn from(Ordered(bits): Ordered) -> Self {
        Self([96, 64, 32, 0].map(|shift| ((bits >> shift) as u32).to_be()))
    }
}

/// The addresses of a prefix. Those of an IPv6 one may have IPv4 among them.
fn span(key: &LpmKey) -> RangeInclusive<Ordered> {
    let bits = key.prefix_len.saturating_sub(LpmKey::FAMILY_BITS);
    let (first, bits) = match key.family {
        4 => {
            let mapped = 0xffff_0000_0000 | u128::from(u32::from_be(key.addr[0]));
            (mapped, bits + 96)
        }
        _ => (Ordered::from(Addr(key.addr)).0, bits),
    };
    let rest = u128::MAX.checked_shr(bits).unwrap_or(0);
    Ordered(first & !rest)..=Ordered(first | rest)
}

impl Census {
    /// A pod, while its object is there.
    pub fn pod(&self, name: &ObjectName) -> Option<&PodEntry> {
        self.pods.get(*self.names.get(name)?)
    }

    /// Takes a pod in, or what has changed of one. Where the pod is on the host's network or has
    /// finished, nothing is its own.
    pub fn set_pod(&mut self, name: &ObjectName, info: Arc<PodInfo>) {
        self.remove_pod(name);
        let number = self.pods.insert(PodEntry {
            name: name.clone(),
            info: Arc::clone(&info),
            profile: None,
        });
        self.names.insert(name.clone(), number);
        if !info.is_peer() {
            return;
        }
        let profile = self
            .profiles
            .enter(&info.namespace, &info.labels, &info.addresses);
        if let Some(entry) = self.pods.get_mut(number) {
            entry.profile = Some(profile);
        }
        for addr in &info.addresses {
            self.claims(*addr).pods.push(number);
        }
    }

    /// A pod's object is gone.
    pub fn remove_pod(&mut self, name: &ObjectName) -> Option<Arc<PodInfo>> {
        let number = self.names.remove(name)?;
        let entry = self.pods.remove(number)?;
        if let Some(profile) = entry.profile {
            self.profiles.leave(profile, &entry.info.addresses);
            for addr in &entry.info.addresses {
                self.disclaim(*addr, |claims| claims.pods.retain(|pod| *pod != number));
            }
        }
        Some(entry.info)
    }

    fn claims(&mut self, addr: Addr) -> &mut Claims {
        self.addresses.entry(addr.into()).or_default()
    }

    fn disclaim(&mut self, addr: Addr, change: impl FnOnce(&mut Claims)) {
        if let Some(claims) = self.addresses.get_mut(&addr.into()) {
            change(claims);
            if claims.is_empty() {
                self.addresses.remove(&addr.into());
            }
        }
    }

    /// An endpoint of this node has an address.
    pub fn add_endpoint(&mut self, addr: Addr, slot: u32) {
        self.claims(addr).endpoints.insert(slot);
    }

    /// And has it no more.
    pub fn remove_endpoint(&mut self, addr: Addr, slot: u32) {
        self.disclaim(addr, |claims| {
            claims.endpoints.remove(&slot);
        });
    }

    /// A node has an address.
    pub fn add_node(&mut self, addr: Addr, name: &str) {
        self.claims(addr).nodes.insert(name.to_owned());
    }

    /// And has it no more.
    pub fn remove_node(&mut self, addr: Addr, name: &str) {
        self.disclaim(addr, |claims| {
            claims.nodes.remove(name);
        });
    }

    /// The endpoint of this node that has an address.
    pub fn endpoint(&self, addr: Addr) -> Option<u32> {
        self.addresses.get(&addr.into())?.endpoints.last().copied()
    }

    /// The pod that has an address, if no endpoint of this node does: the newest, of equally new ones
    /// the one whose (namespace, name) comes last.
    pub fn owner(&self, addr: Addr) -> Option<&PodEntry> {
        let claims = self.addresses.get(&addr.into())?;
        let pods = claims.pods.iter().filter_map(|pod| self.pods.get(*pod));
        pods.max_by_key(|pod| (pod.info.created, &pod.name))
    }

    /// The nodes that have an address.
    pub fn nodes(&self, addr: Addr) -> impl Iterator<Item = &String> {
        let claims = self.addresses.get(&addr.into());
        claims.into_iter().flat_map(|claims| &claims.nodes)
    }

    /// The known addresses within a prefix.
    pub fn within(&self, key: &LpmKey) -> impl Iterator<Item = Addr> {
        let is_v4 = key.family == 4;
        let known = self.addresses.range(span(key));
        known
            .map(|(addr, _)| Addr::from(*addr))
            .filter(move |addr| addr.is_v4() == is_v4)
    }

    /// All known addresses.
    pub fn all(&self) -> impl Iterator<Item = Addr> {
        self.addresses.keys().map(|addr| Addr::from(*addr))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn addresses_are_found_by_the_prefixes_that_hold_them() {
        let mut census = Census::default();
        for text in [
            "10.0.0.0",
            "10.0.0.255",
            "10.0.1.0",
            "fd00::1",
            "fd00:1::1",
            "::1",
        ] {
            census.add_endpoint(addr(text), 1);
        }
        let within = |prefix: &str, len: u8| {
            let key = LpmKey::prefix(addr(prefix), len);
            let found = census.within(&key);
            found
                .map(|addr| addr.to_ip().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(within("10.0.0.0", 24), ["10.0.0.0", "10.0.0.255"]);
        assert_eq!(within("10.0.1.0", 32), ["10.0.1.0"]);
        assert_eq!(within("0.0.0.0", 0).len(), 3);
        assert_eq!(within("::", 0), ["::1", "fd00::1", "fd00:1::1"]);
        assert_eq!(within("fd00::", 64), ["fd00::1"]);
        assert_eq!(within("fd00::1", 128), ["fd00::1"]);
    }

    #[test]
    fn order_goes_by_the_bits_and_back() {
        for (low, high) in [
            ("1.0.0.2", "2.0.0.1"),
            ("::2", "::ffff:0.0.0.1"),
            ("9.255.255.255", "10.0.0.0"),
        ] {
            let (low, high) = (addr(low), addr(high));
            assert!(Ordered::from(low) < Ordered::from(high));
            assert_eq!(Addr::from(Ordered::from(low)), low);
        }
    }
}
