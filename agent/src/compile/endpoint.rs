//! From an adopted attachment to its entries in `ENDPOINTS` and `LOCAL_PODS`.

use std::net::IpAddr;

use weir_abi::{Addr, endpoint::Endpoint};
use weir_api::endpoint::AdoptRequest;
use weir_net::netlink::Mac;

/// The entry of an attachment.
///
/// # Errors
/// What is wrong with the request, by field.
pub fn entry(request: &AdoptRequest, slot: u32, incarnation: u32) -> Result<Endpoint, String> {
    let AdoptRequest {
        container_id,
        ifname,
        network: _,
        netns: _,
        netns_cookie: _,
        host_ifname,
        host_ifindex,
        host_mac,
        pod_mac,
        mtu,
        addresses,
        pod: _,
    } = request;
    if container_id.is_empty() || ifname.is_empty() {
        return Err("containerId and ifname: must not be empty".into());
    }
    if *host_ifindex == 0 || host_ifname.is_empty() {
        return Err("hostIfindex and hostIfname: must name the host side".into());
    }
    let mac = |field: &str, text: &str| -> Result<[u8; 6], String> {
        Ok(text.parse::<Mac>().map_err(|e| format!("{field}: {e}"))?.0)
    };
    let mut endpoint = Endpoint {
        addr4: Addr::NONE,
        addr6: Addr::NONE,
        ifindex: *host_ifindex,
        slot,
        incarnation,
        flags: 0,
        pod_mac: mac("podMac", pod_mac)?,
        host_mac: mac("hostMac", host_mac)?,
        mtu: *mtu,
    };
    if addresses.is_empty() {
        return Err("addresses: at least one is needed".into());
    }
    for address in addresses {
        let place = match address {
            IpAddr::V4(_) => &mut endpoint.addr4,
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
                return Err(format!("addresses: {address} is IPv4 in IPv6 clothes"));
            }
            IpAddr::V6(_) => &mut endpoint.addr6,
        };
        if !place.is_none() {
            return Err("addresses: at most one per family".into());
        }
        *place = (*address).into();
    }
    Ok(endpoint)
}

/// The addresses an entry has.
pub fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = Addr> {
    [endpoint.addr4, endpoint.addr6]
        .into_iter()
        .filter(|a| !a.is_none())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn request(container: &str, ifindex: u32, addresses: &[&str]) -> AdoptRequest {
        AdoptRequest {
            container_id: container.into(),
            ifname: "eth0".into(),
            network: "weir".into(),
            netns: Some("/run/netns/x".into()),
            netns_cookie: Some(1000 + u64::from(ifindex)),
            host_ifname: format!("weir{ifindex}"),
            host_ifindex: ifindex,
            host_mac: "0a:00:00:00:00:01".into(),
            pod_mac: "0a:00:00:00:00:02".into(),
            mtu: 1500,
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            pod: None,
        }
    }

    #[test]
    fn both_families_and_both_macs_reach_the_entry() {
        let entry = entry(&request("c", 7, &["10.0.0.5", "fd00::5"]), 3, 9).unwrap();
        assert_eq!(entry.addr4.to_ip(), "10.0.0.5".parse::<IpAddr>().unwrap());
        assert_eq!(entry.addr6.to_ip(), "fd00::5".parse::<IpAddr>().unwrap());
        assert_eq!(
            (entry.ifindex, entry.slot, entry.incarnation, entry.mtu),
            (7, 3, 9, 1500)
        );
        assert_eq!((entry.host_mac[5], entry.pod_mac[5]), (1, 2));
        assert_eq!(addresses(&entry).count(), 2);
    }

    #[test]
    fn one_family_alone_is_enough() {
        let entry = entry(&request("c", 7, &["fd00::5"]), 0, 0).unwrap();
        assert!(entry.addr4.is_none());
        assert_eq!(addresses(&entry).count(), 1);
    }

    #[test]
    fn a_wrong_request_names_its_field() {
        let wrong = |change: &dyn Fn(&mut AdoptRequest), field: &str| {
            let mut request = request("c", 7, &["10.0.0.5"]);
            change(&mut request);
            let message = entry(&request, 0, 0).unwrap_err();
            assert!(message.contains(field), "{message}");
        };
        wrong(&|r| r.container_id.clear(), "containerId");
        wrong(&|r| r.host_ifindex = 0, "hostIfindex");
        wrong(&|r| r.pod_mac = "x".into(), "podMac");
        wrong(&|r| r.host_mac.clear(), "hostMac");
        wrong(&|r| r.addresses.clear(), "addresses");
        wrong(
            &|r| r.addresses.push("10.0.0.6".parse().unwrap()),
            "addresses",
        );
        wrong(
            &|r| r.addresses = vec!["::ffff:10.0.0.5".parse().unwrap()],
            "addresses",
        );
    }
}
