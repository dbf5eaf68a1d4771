//! Addresses that change their class.

use std::collections::BTreeSet;

use weir_abi::Addr;
use weir_abi::policy::{ClassId, LpmKey};

use crate::actual::Actual;
use crate::desired::Desired;
use crate::write::Write;

/// What has a class: one address, or all addresses of a prefix that no longer one (of those that
/// are and of those that are to be) holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Place {
    Peer(Addr),
    Cidr(LpmKey),
}

/// What has to be done for one place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    pub place: Place,
    /// The class that its addresses have.
    pub from: ClassId,
    /// The class that they get.
    pub to: ClassId,
    /// The map has an entry of its own for it.
    pub present: bool,
    /// And is to have one.
    pub stays: bool,
}

impl Move {
    pub fn put(&self, class: ClassId) -> Write {
        match self.place {
            Place::Peer(addr) => Write::PutPeer { addr, class },
            Place::Cidr(key) => Write::PutCidr { key, class },
        }
    }

    pub fn delete(&self) -> Write {
        match self.place {
            Place::Peer(addr) => Write::DeletePeer { addr },
            Place::Cidr(key) => Write::DeleteCidr { key },
        }
    }
}

/// All places of which something changes, addresses first, then prefixes, long ones first.
/// `ids` has the kernel's number of each
/// desired class.
pub(super) fn moves(actual: &Actual, desired: &Desired, ids: &[ClassId]) -> Vec<Move> {
    let peers: BTreeSet<Addr> = actual
        .peers
        .keys()
        .chain(desired.peers.keys())
        .copied()
        .collect();
    let of_peers = peers.into_iter().map(|addr| Move {
        place: Place::Peer(addr),
        from: actual.class(addr),
        to: ids[desired.class(addr) as usize],
        present: actual.peers.contains_key(&addr),
        stays: desired.peers.contains_key(&addr),
    });
    let old = actual.cidrs.iter().map(|(key, _)| *key);
    let new = desired.cidrs.iter().map(|(key, _)| *key);
    let cidrs: BTreeSet<LpmKey> = old.chain(new).collect();
    // A prefix must not be changed before the longer ones within it have entries of their own.
    let of_cidrs = cidrs.into_iter().rev().map(|key| Move {
        place: Place::Cidr(key),
        from: actual
            .cidrs
            .longest(&key)
            .copied()
            .unwrap_or(ClassId::WORLD),
        to: ids[desired.cidrs.longest(&key).copied().unwrap_or(0) as usize],
        present: actual.cidrs.get(&key).is_some(),
        stays: desired.cidrs.get(&key).is_some(),
    });
    of_peers
        .chain(of_cidrs)
        .filter(|m| m.from != m.to || m.present != m.stays)
        .collect()
}
