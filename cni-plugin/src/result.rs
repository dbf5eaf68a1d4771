//! The ADD result in the shape of each version, and the reading of a `prevResult` in any of them.

use std::net::IpAddr;

use serde_json::{Map, Value, json};
use weir_net::IpNetwork;

use crate::{
    error::{CniError, Code, Result},
    version::Version,
    wire::{Plan, gateway},
};

/// Index of the container's side in the result's `interfaces`.
const CONTAINER_SIDE: usize = 1;

/// The result of an ADD.
pub fn of_add(version: Version, plan: &Plan<'_>, netns: &str, dns: &Value) -> String {
    let interface = |name: &str, mac: String, sandbox: Option<&str>| {
        let mut interface = json!({"name": name, "mac": mac});
        if version >= Version::V110 {
            interface["mtu"] = plan.mtu.into();
        }
        if let Some(sandbox) = sandbox {
            interface["sandbox"] = sandbox.into();
        }
        interface
    };
    let ip = |address: &IpAddr| {
        let mut ip = json!({
            "address": IpNetwork::from(*address).to_string(),
            "gateway": gateway(*address).to_string(),
            "interface": CONTAINER_SIDE,
        });
        if version < Version::V100 {
            ip["version"] = if address.is_ipv4() { "4" } else { "6" }.into();
        }
        ip
    };
    let route = |address: &IpAddr| {
        json!({
            "dst": default_route(*address).to_string(),
            "gw": gateway(*address).to_string(),
        })
    };
    let list = |each: &dyn Fn(&IpAddr) -> Value| plan.addresses.iter().map(each).collect::<Value>();
    let result = json!({
        "cniVersion": version.as_str(),
        "interfaces": [
            interface(plan.host_ifname, plan.host_mac.to_string(), None),
            interface(plan.ifname, plan.pod_mac.to_string(), Some(netns)),
        ],
        "ips": list(&ip),
        "routes": list(&route),
        "dns": dns,
    });
    result.to_string()
}

/// `0.0.0.0/0` or `::/0`, by the family of an address.
pub fn default_route(address: IpAddr) -> IpNetwork {
    // A prefix length of 0 leaves nothing of the address, and is never too long.
    let any = if address.is_ipv4() {
        IpAddr::from([0; 4])
    } else {
        IpAddr::from([0; 16])
    };
    IpNetwork::new(any, 0).unwrap_or_else(|_| any.into())
}

/// What CHECK uses of a `prevResult`, which later plugins of the chain may have added to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Previous {
    /// In their order, as `ips` refers to them by index.
    pub interfaces: Vec<Interface>,
    /// Addresses, with the index of their interface where it is given.
    pub ips: Vec<(IpNetwork, Option<usize>)>,
    /// Routes, with their gateway where it is given.
    pub routes: Vec<(IpNetwork, Option<IpAddr>)>,
}

/// An interface of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC address; may be empty.
    pub mac: String,
    /// The namespace's path; empty on the host.
    pub sandbox: String,
}

impl Previous {
    /// Reads a result of any version from 0.3.0.
    pub fn parse(value: &Value) -> Result<Self> {
        let wrong = |what: &str| {
            CniError::new(
                Code::InvalidConfig,
                format!("prevResult: {what} cannot be read"),
            )
        };
        let root = value
            .as_object()
            .ok_or_else(|| wrong("it is not an object and"))?;
        let mut previous = Self::default();
        for item in list(root, "interfaces").ok_or_else(|| wrong("interfaces"))? {
            let text = |key: &str| {
                item.get(key)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .into()
            };
            let interface = Interface {
                name: text("name"),
                mac: text("mac"),
                sandbox: text("sandbox"),
            };
            previous.interfaces.push(interface);
        }
        for item in list(root, "ips").ok_or_else(|| wrong("ips"))? {
            let address = item
                .get("address")
                .and_then(Value::as_str)
                .and_then(|a| a.parse().ok());
            let index = item.get("interface").and_then(Value::as_u64);
            let index = index.and_then(|index| usize::try_from(index).ok());
            previous
                .ips
                .push((address.ok_or_else(|| wrong("an address of ips"))?, index));
        }
        for item in list(root, "routes").ok_or_else(|| wrong("routes"))? {
            let text = |key: &str| item.get(key).and_then(Value::as_str);
            let dst = text("dst").and_then(|dst| dst.parse().ok());
            let gw = text("gw")
                .filter(|gw| !gw.is_empty())
                .map(str::parse)
                .transpose();
            let gw = gw.map_err(|_| wrong("a gateway of routes"))?;
            previous
                .routes
                .push((dst.ok_or_else(|| wrong("a destination of routes"))?, gw));
        }
        Ok(previous)
    }
}

/// A list that may be absent or null; none if it is something else.
fn list<'a>(root: &'a Map<String, Value>, key: &str) -> Option<&'a [Value]> {
    match root.get(key) {
        None | Some(Value::Null) => Some(&[]),
        Some(Value::Array(list)) => Some(list),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_net::netlink::Mac;

    fn result(version: Version) -> Value {
        let addresses = ["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        let plan = Plan {
            host_ifname: "weir0123456789a",
            ifname: "eth0",
            host_mac: Mac([0x0a, 1, 2, 3, 4, 5]),
            pod_mac: Mac([0x0a, 6, 7, 8, 9, 10]),
            mtu: 1450,
            addresses: &addresses,
        };
        serde_json::from_str(&of_add(version, &plan, "/run/netns/x", &json!({}))).unwrap()
    }

    #[test]
    fn a5_a6_a7_a8_the_result_of_1_1_0() {
        let expected = json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                {"name": "weir0123456789a", "mac": "0a:01:02:03:04:05", "mtu": 1450},
                {"name": "eth0", "mac": "0a:06:07:08:09:0a", "mtu": 1450, "sandbox": "/run/netns/x"},
            ],
            "ips": [
                {"address": "10.0.0.5/32", "gateway": "169.254.1.1", "interface": 1},
                {"address": "fd00::5/128", "gateway": "fe80::1", "interface": 1},
            ],
            "routes": [
                {"dst": "0.0.0.0/0", "gw": "169.254.1.1"},
                {"dst": "::/0", "gw": "fe80::1"},
            ],
            "dns": {},
        });
        assert_eq!(result(Version::V110), expected);
    }

    #[test]
    fn a10_older_versions_have_their_own_shapes() {
        for version in Version::ALL {
            let result = result(version);
            assert_eq!(result["cniVersion"], version.as_str());
            assert_eq!(
                result["interfaces"][1].get("mtu").is_some(),
                version == Version::V110
            );
            let family = (version < Version::V100).then(|| json!("4"));
            assert_eq!(
                result["ips"][0].get("version"),
                family.as_ref(),
                "{version:?}"
            );
        }
    }

    #[test]
    fn d4_a_result_of_any_version_is_read_and_garbage_is_refused() {
        let mut all: Vec<_> = Version::ALL
            .iter()
            .map(|v| Previous::parse(&result(*v)).unwrap())
            .collect();
        all.dedup();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].ips[1], ("fd00::5/128".parse().unwrap(), Some(1)));
        assert_eq!(all[0].routes[1].1, Some("fe80::1".parse().unwrap()));
        assert_eq!(Previous::parse(&json!({})).unwrap(), Previous::default());
        for garbage in [
            json!([]),
            json!({"ips": 1}),
            json!({"ips": [{"address": "x"}]}),
            json!({"interfaces": {}}),
            json!({"routes": [{"dst": "0.0.0.0/0", "gw": "x"}]}),
            json!({"routes": [1]}),
        ] {
            assert_eq!(
                Previous::parse(&garbage).unwrap_err().code,
                Code::InvalidConfig,
                "{garbage}"
            );
        }
    }
}
