//! Strict reverse path filters on the node's uplinks. They are the node's: Weir says so, and leaves them.

use super::{Uplink, sysctl::Sysctls};

/// Whether an uplink's filter is strict. The larger of `all`'s and the device's own value counts: 1 is strict, 2
/// loose. There is no such filter for IPv6.
pub fn is_strict(sysctls: &impl Sysctls, uplink: &Uplink) -> bool {
    let value = |scope: &str| {
        let key = format!("ipv4/conf/{scope}/rp_filter");
        // What cannot be read is no filter that Weir could speak of.
        let text = sysctls.get(&key).ok().flatten();
        text.and_then(|text| text.parse::<u8>().ok()).unwrap_or(0)
    };
    value("all").max(value(&uplink.name)) == 1
}

/// Says of each uplink with a strict filter what that means, and how to make it loose.
pub fn notes(sysctls: &impl Sysctls, uplinks: &[Uplink]) -> Vec<String> {
    let harm = if uplinks.len() > 1 {
        "what comes in by this uplink and is answered by another is dropped by the kernel"
    } else {
        "harmless as long as the node has no other way to whom it answers"
    };
    let note = |uplink: &Uplink| {
        let name = &uplink.name;
        format!(
            "uplink {name}: its reverse path filter is strict: {harm}; to make it loose: sysctl -w net/ipv4/conf/{name}/rp_filter=2"
        )
    };
    let strict = uplinks.iter().filter(|uplink| is_strict(sysctls, uplink));
    strict.map(note).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weir_net::Result;

    use super::*;

    struct Fake(BTreeMap<String, String>);

    impl Sysctls for Fake {
        fn get(&self, key: &str) -> Result<Option<String>> {
            Ok(self.0.get(key).cloned())
        }

        fn set(&mut self, key: &str, value: &str) -> Result<()> {
            panic!("the node's own {key} was set to {value}");
        }

        fn list(&self, _: &str) -> Vec<String> {
            Vec::new()
        }
    }

    fn notes_of(values: &[(&str, &str)], uplinks: &[&str]) -> Vec<String> {
        let key = |scope: &str| format!("ipv4/conf/{scope}/rp_filter");
        let values = values.iter().map(|(k, v)| (key(k), (*v).to_owned()));
        let uplink = |name: &&str| Uplink {
            index: 2,
            name: (*name).into(),
            mtu: 1500,
            addresses: Vec::new(),
            sources: Vec::new(),
            mac: None,
            kind: None,
        };
        let uplinks: Vec<Uplink> = uplinks.iter().map(uplink).collect();
        notes(&Fake(values.collect()), &uplinks)
    }

    #[test]
    fn the_larger_of_all_and_the_device_counts_and_only_a_strict_one_is_told() {
        for (all, own, told) in [
            ("0", "0", false),
            ("1", "0", true),
            ("0", "1", true),
            ("1", "1", true),
            ("1", "2", false),
            ("2", "1", false),
        ] {
            let notes = notes_of(&[("all", all), ("eth0", own)], &["eth0"]);
            assert_eq!(!notes.is_empty(), told, "{all} {own}: {notes:?}");
        }
    }

    #[test]
    fn a_note_has_the_line_that_mends_it_and_says_whether_there_is_harm() {
        let values = [("all", "1"), ("eth0", "1"), ("eth1.7", "2")];
        let one = notes_of(&values, &["eth0"]);
        assert!(one[0].contains("harmless"), "{one:?}");
        let several = notes_of(&values, &["eth0", "eth1.7"]);
        assert_eq!(several.len(), 1, "{several:?}");
        for part in ["dropped", "sysctl -w net/ipv4/conf/eth0/rp_filter=2"] {
            assert!(several[0].contains(part), "{several:?}");
        }
    }

    #[test]
    fn a_node_without_ipv4_has_no_notes() {
        assert_eq!(notes_of(&[], &["eth0", "eth1"]), [""; 0]);
    }
}
