//! What the node's network looks like, read at once.

use std::{collections::BTreeSet, net::IpAddr};

use weir_net::{
    IpNetwork, Netlink,
    netlink::{Address, Link, Mac, Route, RouteKind},
};

/// The device on which a kube-proxy in IPVS mode keeps the addresses of all Services.
const IPVS: &str = "kube-ipvs0";

/// A device towards other machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// IP MTU, bytes.
    pub mtu: u32,
    /// Its addresses with their subnets.
    pub addresses: Vec<IpNetwork>,
    /// Those that the node may speak from to other machines, in the kernel's order: no link-local,
    /// tentative or deprecated ones.
    pub sources: Vec<IpAddr>,
    /// Its MAC address, where it has one.
    pub mac: Option<Mac>,
    /// `veth`, `bond`, …; none for hardware.
    pub kind: Option<String>,
}

/// A reading of the node's network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Network {
    /// Every link.
    pub links: Vec<Link>,
    /// Every address.
    pub addresses: Vec<Address>,
    /// Every route of the main table.
    pub routes: Vec<Route>,
}

impl Network {
    /// Reads it.
    ///
    /// # Errors
    /// Netlink's.
    pub fn read(netlink: &Netlink) -> weir_net::Result<Self> {
        let mut routes = netlink.routes()?;
        routes.retain(|route| route.table == Route::MAIN);
        Ok(Self {
            links: netlink.links()?,
            addresses: netlink.addresses(0)?,
            routes,
        })
    }

    /// The link of an index.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The uplinks, by index: those that are named (`NAME*` is all that begin so, but for Weir's own), else the devices with a default route or one of
    /// the node's own addresses. The second value names what is configured but not there.
    pub fn uplinks(&self, named: &[String], own: &[IpAddr]) -> (Vec<Uplink>, Vec<String>) {
        let missing = named
            .iter()
            .filter(|name| !self.links.iter().any(|l| is_meant(name, l)));
        let missing: Vec<String> = missing
            .map(|name| format!("uplink {name}: there is no such device: mend --uplinks"))
            .collect();
        let mut indexes = BTreeSet::new();
        if named.is_empty() {
            let default = |route: &&Route| {
                route.destination.prefix() == 0 && route.kind == RouteKind::Unicast
            };
            indexes.extend(
                self.routes
                    .iter()
                    .filter(default)
                    .filter_map(|route| route.index),
            );
            let owns = |address: &&Address| own.contains(&address.network.ip());
            indexes.extend(
                self.addresses
                    .iter()
                    .filter(owns)
                    .map(|address| address.index),
            );
        } else {
            indexes.extend(
                self.links
                    .iter()
                    .filter(|l| named.iter().any(|name| is_meant(name, l)))
                    .map(|l| l.index),
            );
        }
        let uplinks = indexes
            .into_iter()
            .filter_map(|index| self.link(index))
            .filter(|link| !link.loopback)
            .map(|link| Uplink {
                index: link.index,
                name: link.name.clone(),
                mtu: link.mtu,
                addresses: self.addresses_of(link.index),
                sources: self.sources_of(link.index),
                mac: link.mac,
                kind: link.kind.clone(),
            })
            .collect();
        (uplinks, missing)
    }

    /// Every address that the node may speak from to its pods. The route to a pod names no source, so
    /// that the kernel takes an address of any device, not only of an uplink. Those of Services, which
    /// a kube-proxy in IPVS mode has put (or left) on a device of its own, are not the node's.
    pub fn own_addresses(&self) -> Vec<IpAddr> {
        let usable = |ip: &IpAddr| !ip.is_loopback() && !is_link_local(ip);
        let services = self.links.iter().find(|link| link.name == IPVS);
        let services = services.map(|link| link.index);
        let of_node = self.addresses.iter().filter(|a| Some(a.index) != services);
        let all = of_node.map(|a| a.network.ip());
        all.filter(usable).collect()
    }

    fn sources_of(&self, index: u32) -> Vec<IpAddr> {
        let on = self.addresses.iter().filter(|a| a.index == index);
        let usable = on.filter(|a| !a.link_scope && !a.tentative && !a.deprecated);
        let ips = usable.map(|a| a.network.ip());
        ips.filter(|ip| !ip.is_loopback() && !is_link_local(ip))
            .collect()
    }

    fn addresses_of(&self, index: u32) -> Vec<IpNetwork> {
        let on = self.addresses.iter().filter(|a| a.index == index);
        on.map(|a| a.network).collect()
    }
}

/// Whether a name of `--uplinks` means a device.
fn is_meant(name: &str, link: &Link) -> bool {
    match name.strip_suffix('*') {
        Some(start) => link.name.starts_with(start) && !link.loopback && !is_own(&link.name),
        None => link.name == name,
    }
}

/// Whether a device is one of Weir's: a pod's, or the overlay's.
fn is_own(name: &str) -> bool {
    name.starts_with("weir")
}

/// IPv6 only: IPv4's link-local addresses are used as any other (node-local DNS caches).
fn is_link_local(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    fn network() -> Network {
        let link = |index, name: &str| Link {
            index,
            name: name.into(),
            mtu: 1500,
            ..Link::default()
        };
        let address = |index, text: &str| Address {
            index,
            network: net(text),
            link_scope: false,
            tentative: false,
            deprecated: false,
        };
        let loopback = Link {
            loopback: true,
            ..link(1, "lo")
        };
        Network {
            links: vec![loopback, link(2, "eth0"), link(3, "eth1"), link(4, "weir0")],
            addresses: vec![
                address(1, "127.0.0.1/8"),
                address(2, "192.0.2.1/24"),
                address(2, "2001:db8::1/64"),
                address(3, "198.51.100.1/24"),
            ],
            routes: vec![Route::to(net("0.0.0.0/0")).via(2, "192.0.2.254".parse().unwrap())],
        }
    }

    fn names(uplinks: &[Uplink]) -> Vec<&str> {
        uplinks.iter().map(|u| u.name.as_str()).collect()
    }

    #[test]
    fn a_device_with_a_default_route_is_an_uplink() {
        let (uplinks, missing) = network().uplinks(&[], &[]);
        assert_eq!(names(&uplinks), ["eth0"]);
        assert_eq!(
            uplinks[0].addresses,
            [net("192.0.2.1/24"), net("2001:db8::1/64")]
        );
        assert!(missing.is_empty());
    }

    #[test]
    fn a_device_with_the_nodes_address_is_an_uplink_in_either_family() {
        let mut network = network();
        network.routes.clear();
        let v6 = "2001:db8::1".parse().unwrap();
        assert_eq!(names(&network.uplinks(&[], &[v6]).0), ["eth0"]);
        let v4 = "198.51.100.1".parse().unwrap();
        assert_eq!(names(&network.uplinks(&[], &[v4, v6]).0), ["eth0", "eth1"]);
    }

    #[test]
    fn an_unreachable_default_route_makes_no_uplink() {
        let mut network = network();
        network.routes[0].kind = RouteKind::Unreachable;
        assert!(network.uplinks(&[], &[]).0.is_empty());
    }

    #[test]
    fn named_uplinks_are_taken_as_named_and_a_missing_one_is_a_problem() {
        let (uplinks, missing) = network().uplinks(&["eth1".into(), "eth9".into()], &[]);
        assert_eq!(names(&uplinks), ["eth1"]);
        assert!(
            missing[0].contains("eth9") && missing[0].contains("--uplinks"),
            "{missing:?}"
        );
    }

    #[test]
    fn a_name_with_a_star_is_all_devices_that_begin_so_but_the_loopback_and_weirs_own() {
        let uplinks = |name: &str| network().uplinks(&[name.into()], &[]);
        assert_eq!(names(&uplinks("eth*").0), ["eth0", "eth1"]);
        assert_eq!(names(&uplinks("*").0), ["eth0", "eth1"]);
        let (none, missing) = uplinks("bond*");
        assert!(
            none.is_empty() && missing[0].contains("bond*"),
            "{missing:?}"
        );
    }

    #[test]
    fn sources_leave_out_what_is_link_local_tentative_or_deprecated() {
        let mut network = network();
        let address = |text: &str| Address {
            index: 2,
            network: net(text),
            link_scope: false,
            tentative: false,
            deprecated: false,
        };
        network.addresses.extend([
            address("fe80::1/64"),
            Address {
                link_scope: true,
                ..address("169.254.7.7/16")
            },
            Address {
                tentative: true,
                ..address("2001:db8::2/64")
            },
            Address {
                deprecated: true,
                ..address("2001:db8::3/64")
            },
            address("2001:db8::4/64"),
        ]);
        let sources = &network.uplinks(&[], &[]).0[0].sources;
        let texts: Vec<String> = sources.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["192.0.2.1", "2001:db8::1", "2001:db8::4"]);
    }

    #[test]
    fn the_services_addresses_that_ipvs_keeps_are_not_the_nodes() {
        let mut network = network();
        let before = network.own_addresses();
        network.links.push(Link {
            index: 9,
            name: IPVS.into(),
            ..Link::default()
        });
        network.addresses.push(Address {
            index: 9,
            network: net("10.96.0.1/32"),
            ..network.addresses[0].clone()
        });
        assert_eq!(network.own_addresses(), before);
    }

    #[test]
    fn the_loopback_is_never_an_uplink() {
        assert!(
            network()
                .uplinks(&[], &["127.0.0.1".parse().unwrap()])
                .0
                .iter()
                .all(|u| u.index != 1)
        );
    }
}
