//! Names and MAC addresses that follow from an attachment's own: whoever knows the container id and
//! the interface's name finds the rest.

use weir_net::netlink::Mac;

/// Name of the host side: `weir` and 11 hex digits (15 bytes, the kernel's limit).
pub fn host_ifname(container_id: &str, ifname: &str) -> String {
    format!("weir{:011x}", hash(container_id, ifname, "") >> 20)
}

/// MAC address of one side: locally administered, unicast. It is set when the link is made, as
/// systemd-udevd gives links without one of their own another address later on, and the other
/// side's permanent neighbour entry would then be wrong.
pub fn mac(container_id: &str, ifname: &str, side: &str) -> Mac {
    let [_, _, _, a, b, c, d, e] = hash(container_id, ifname, side).to_be_bytes();
    Mac([0x0a, a, b, c, d, e])
}

/// FNV-1a with a final mix (from MurmurHash3), so that all bits depend on all bytes. Container ids
/// are the runtime's own random numbers: nobody can aim at a collision, and one is an error at ADD.
fn hash(container_id: &str, ifname: &str, salt: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in [container_id, ifname, salt] {
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_stable_as_a_new_release_must_find_an_older_ones_links() {
        assert_eq!(host_ifname("abc", "eth0"), "weirbfcd42dc845");
        assert_eq!(mac("abc", "eth0", "pod").to_string(), "0a:51:e6:ad:29:f8");
    }

    #[test]
    fn names_differ_with_every_part() {
        let ids = (0..2000).map(|n| format!("container-{n}"));
        let names: HashSet<String> = ids
            .flat_map(|id| [host_ifname(&id, "eth0"), host_ifname(&id, "net1")])
            .collect();
        assert_eq!(names.len(), 4000);
        assert!(names.iter().all(|name| name.len() == 15));
        assert_ne!(host_ifname("ab", "c"), host_ifname("a", "bc"));
        assert_ne!(mac("a", "eth0", "pod"), mac("a", "eth0", "host"));
        assert_eq!(mac("a", "eth0", "pod").0[0] & 3, 2);
    }
}
