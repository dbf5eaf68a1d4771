//! Addresses that change their class.

use std::collections::BTreeSet;

use weir_abi::Addr;
use weir_abi::policy::{ClassId, LpmKey};

use crate::actual::Actual;
use crate::desired::{Desired, WORLD};
use crate::limits::CapacityError;
use crate::slab::Number;
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
    /// The class that they get, in the kernel's numbers and in those of [`Desired`].
    pub to: ClassId,
    pub class: Number,
    /// The map has an entry of its own for it.
    pub present: bool,
    /// And is to have one.
    pub stays: bool,
}

impl Move {
    /// Whether it is that of one address.
    pub fn is_peer(&self) -> bool {
        matches!(self.place, Place::Peer(_))
    }

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

/// The places to look at.
pub(super) struct Places {
    pub peers: BTreeSet<Addr>,
    pub cidrs: BTreeSet<LpmKey>,
}

impl Places {
    /// All that are and all that are to be.
    pub fn all(actual: &Actual, desired: &Desired) -> Self {
        let (old, new) = (actual.cidrs.iter(), desired.cidrs.iter());
        let old = old.map(|(key, _)| *key);
        Self {
            peers: actual
                .peers
                .keys()
                .chain(desired.peers.keys())
                .copied()
                .collect(),
            cidrs: old.chain(new.map(|(key, _)| *key)).collect(),
        }
    }
}

/// The places of which something changes, addresses first, then prefixes, long ones first. `number`
/// gives the kernel's number of each desired class.
///
/// # Errors
/// Those of `number`.
pub(super) fn moves(
    actual: &Actual,
    desired: &Desired,
    places: &Places,
    mut number: impl FnMut(Number) -> Result<ClassId, CapacityError>,
) -> Result<Vec<Move>, CapacityError> {
    let mut moves = Vec::new();
    let mut add = |place, from, class, present, stays| {
        let to = number(class)?;
        if from != to || present != stays {
            moves.push(Move {
                place,
                from,
                to,
                class,
                present,
                stays,
            });
        }
        Ok(())
    };
    for addr in &places.peers {
        add(
            Place::Peer(*addr),
            actual.class(*addr),
            desired.class(*addr),
            actual.peers.contains_key(addr),
            desired.peers.contains_key(addr),
        )?;
    }
    // A prefix must not be changed before the longer ones within it have entries of their own.
    for key in places.cidrs.iter().rev() {
        let from = actual.cidrs.longest(key).copied();
        let class = desired.cidrs.longest(key).copied();
        add(
            Place::Cidr(*key),
            from.unwrap_or(ClassId::WORLD),
            class.unwrap_or(WORLD),
            actual.cidrs.get(key).is_some(),
            desired.cidrs.get(key).is_some(),
        )?;
    }
    Ok(moves)
}
