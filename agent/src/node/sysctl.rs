//! Forwarding, per device and for the node, without losing the node's own default route.

use std::{fs, io};

use weir_net::{Result, sysctl};

/// Reads and writes sysctls below `net/`; a trait so that the order is tested without root.
pub trait Sysctls {
    /// The value; `None` when there is no such key.
    ///
    /// # Errors
    /// It cannot be read.
    fn get(&self, key: &str) -> Result<Option<String>>;
    /// # Errors
    /// It cannot be written.
    fn set(&mut self, key: &str, value: &str) -> Result<()>;
    /// Names below a folder.
    fn list(&self, folder: &str) -> Vec<String>;
}

/// This network namespace's.
pub struct Kernel;

impl Sysctls for Kernel {
    fn get(&self, key: &str) -> Result<Option<String>> {
        if sysctl::exists(key) {
            sysctl::read(key).map(Some)
        } else {
            Ok(None)
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        sysctl::write(key, value)
    }

    fn list(&self, folder: &str) -> Vec<String> {
        let names = |entries: fs::ReadDir| {
            let entries: io::Result<Vec<_>> = entries.collect();
            let mut names: Vec<_> = entries
                .unwrap_or_default()
                .iter()
                .map(|e| e.file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        fs::read_dir(format!("/proc/sys/net/{folder}"))
            .map(names)
            .unwrap_or_default()
    }
}

/// Lets the node forward. IPv6 has one switch that counts, and with it on the kernel stops taking
/// router advertisements unless `accept_ra` is 2: that comes first. Where reverse path filtering is strict
/// everywhere, it is made loose for the loopback device, by which pods' replies to the node itself come.
///
/// # Errors
/// The first key that cannot be written, by name.
pub fn forward_node(sysctls: &mut impl Sysctls) -> Result<()> {
    ensure(sysctls, "ipv4/ip_forward", "1")?;
    if sysctls.get("ipv4/conf/all/rp_filter")?.as_deref() == Some("1") {
        ensure(sysctls, "ipv4/conf/lo/rp_filter", "2")?;
    }
    if sysctls
        .get("ipv6/conf/all/forwarding")?
        .is_none_or(|v| v == "1")
    {
        return Ok(());
    }
    for name in sysctls.list("ipv6/conf") {
        let key = format!("ipv6/conf/{name}/accept_ra");
        if sysctls.get(&key)?.as_deref() == Some("1") {
            sysctls.set(&key, "2")?;
        }
    }
    sysctls.set("ipv6/conf/all/forwarding", "1")
}

/// What Weir needs of one of its own devices (host sides of pods' veth pairs): forwarding, and a
/// reverse path filter that is loose even where `all` is strict (the larger of the two counts).
///
/// # Errors
/// The first key that cannot be written, by name.
pub fn endpoint_device(sysctls: &mut impl Sysctls, device: &str) -> Result<()> {
    ensure(sysctls, &format!("ipv4/conf/{device}/forwarding"), "1")?;
    ensure(sysctls, &format!("ipv4/conf/{device}/rp_filter"), "2")?;
    ensure(sysctls, &format!("ipv6/conf/{device}/forwarding"), "1")
}

/// Writes only what differs; a key that is not there (no IPv6) is passed over.
fn ensure(sysctls: &mut impl Sysctls, key: &str, value: &str) -> Result<()> {
    match sysctls.get(key)? {
        Some(now) if now != value => sysctls.set(key, value),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Default)]
    struct Fake {
        values: BTreeMap<String, String>,
        log: Vec<String>,
    }

    impl Fake {
        fn new(values: &[(&str, &str)]) -> Self {
            let values = values
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect();
            Self {
                values,
                log: Vec::new(),
            }
        }
    }

    impl Sysctls for Fake {
        fn get(&self, key: &str) -> Result<Option<String>> {
            Ok(self.values.get(key).cloned())
        }

        fn set(&mut self, key: &str, value: &str) -> Result<()> {
            self.log.push(format!("{key}={value}"));
            self.values.insert(key.into(), value.into());
            Ok(())
        }

        fn list(&self, folder: &str) -> Vec<String> {
            let below = |key: &String| {
                key.strip_prefix(folder)?
                    .strip_prefix('/')?
                    .split('/')
                    .next()
                    .map(str::to_owned)
            };
            let mut names: Vec<_> = self.values.keys().filter_map(below).collect();
            names.dedup();
            names
        }
    }

    #[test]
    fn router_advertisements_stay_accepted_before_ipv6_forwarding_goes_on() {
        let mut fake = Fake::new(&[
            ("ipv4/ip_forward", "0"),
            ("ipv6/conf/all/accept_ra", "0"),
            ("ipv6/conf/all/forwarding", "0"),
            ("ipv6/conf/eth0/accept_ra", "1"),
            ("ipv6/conf/eth1/accept_ra", "0"),
        ]);
        forward_node(&mut fake).unwrap();
        assert_eq!(
            fake.log,
            [
                "ipv4/ip_forward=1",
                "ipv6/conf/eth0/accept_ra=2",
                "ipv6/conf/all/forwarding=1"
            ]
        );
        fake.log.clear();
        forward_node(&mut fake).unwrap();
        assert!(fake.log.is_empty(), "{:?}", fake.log);
    }

    #[test]
    fn the_loopback_device_has_a_loose_filter_where_all_devices_have_a_strict_one() {
        for (all, log) in [
            ("0", vec![]),
            ("2", vec![]),
            ("1", vec!["ipv4/conf/lo/rp_filter=2"]),
        ] {
            let mut fake = Fake::new(&[
                ("ipv4/ip_forward", "1"),
                ("ipv4/conf/all/rp_filter", all),
                ("ipv4/conf/lo/rp_filter", "0"),
            ]);
            forward_node(&mut fake).unwrap();
            assert_eq!(fake.log, log);
        }
    }

    #[test]
    fn a_node_without_ipv6_is_no_error() {
        let mut fake = Fake::new(&[("ipv4/ip_forward", "1")]);
        forward_node(&mut fake).unwrap();
        assert!(fake.log.is_empty());
    }

    #[test]
    fn an_own_device_gets_a_loose_filter_and_forwarding_and_is_left_alone_when_right() {
        let mut fake = Fake::new(&[
            ("ipv4/conf/w1/forwarding", "1"),
            ("ipv4/conf/w1/rp_filter", "1"),
            ("ipv6/conf/w1/forwarding", "0"),
        ]);
        endpoint_device(&mut fake, "w1").unwrap();
        assert_eq!(
            fake.log,
            ["ipv4/conf/w1/rp_filter=2", "ipv6/conf/w1/forwarding=1"]
        );
    }
}
