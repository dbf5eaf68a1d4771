//! Who has an address.

use std::net::IpAddr;

use crate::cluster::Evaluator;
use crate::party::{End, Party, PartyKind};

impl Evaluator<'_> {
    /// Whom the objects say an address belongs to: [`Evaluator::evaluate`] takes it for the same.
    pub fn who(&self, addr: IpAddr) -> Party {
        let addr = addr.to_canonical();
        match self.resolve(&End::Address(addr)) {
            Ok(candidate) => Party {
                kind: candidate.kind,
                node: candidate.node,
                address: Some(addr),
            },
            // An address always resolves; if it did not, no one would be known to have it.
            Err(_) => Party {
                kind: PartyKind::Outside,
                node: None,
                address: Some(addr),
            },
        }
    }
}
