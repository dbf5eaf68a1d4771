//! What the kernel does to packets between nodes, and the programs must leave to it or do in its place.

use weir_net::netlink::ipsec_policies;

use crate::node::{Uplink, reverse_path, sysctl};

/// As last found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guards {
    /// The reverse path filter of an uplink is strict.
    pub strict: bool,
    /// There are IPsec policies: all that is packed has to go through the kernel, which may encrypt it, and may
    /// demand that it was.
    pub ipsec: bool,
}

impl Guards {
    /// Looks. What cannot be read counts as there, and is a failure.
    pub fn find(uplinks: &[Uplink], failures: &mut Vec<String>) -> Self {
        let is_strict = |uplink: &Uplink| reverse_path::is_strict(&sysctl::Kernel, uplink);
        let policies = ipsec_policies();
        failures.extend(policies.as_ref().err().map(ToString::to_string));
        Self {
            strict: uplinks.iter().any(is_strict),
            ipsec: policies.map_or(true, |policies| policies > 0),
        }
    }

    /// What it costs that there is an overlay beside them, for the status.
    pub fn note(self) -> Option<String> {
        let note = "the kernel has IPsec policies: every packet of the overlay goes through its device, at two to three times the cost, so that none escapes them (`ip xfrm policy`)";
        self.ipsec.then(|| note.to_owned())
    }
}
