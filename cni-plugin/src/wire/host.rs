//! The host side: the pair itself, sysctls, neighbours and routes to the pod.

use std::time::Duration;

use weir_net::{
    IpNetwork, NetNs, Netlink,
    netlink::{LinkWatch, Route, Veth},
    sysctl,
};

use super::Plan;
use crate::error::{CniError, Code, Result};

/// Longest wait for the kernel to activate both sides; it takes microseconds, on a busy machine
/// up to tens of milliseconds.
const ACTIVATION: Duration = Duration::from_secs(5);

/// Makes the pair, the pod's side at once in the pod's namespace and under its final name; both
/// sides are down. `made` is set unless it is certain that there is nothing to remove: the kernel's
/// answer may be lost after it has made the pair.
pub fn make_pair(host: &Netlink, netns: &NetNs, plan: &Plan<'_>, made: &mut bool) -> Result<()> {
    let veth = Veth {
        name: plan.host_ifname,
        mac: Some(plan.host_mac),
        peer_name: plan.ifname,
        peer_ns: netns,
        peer_mac: Some(plan.pod_mac),
        mtu: plan.mtu,
    };
    let created = host.create_veth(&veth);
    *made = !matches!(&created, Err(error) if error.exists());
    created.map_err(|error| {
        let exists = error.exists();
        let error = CniError::from(error);
        if exists {
            error.details(format!(
                "either {} is left over from an attachment the address store does not know \
                 (DEL removes it), or the namespace got an interface {} meanwhile",
                plan.host_ifname, plan.ifname
            ))
        } else {
            error
        }
    })
}

/// Sets the host side's sysctls and the neighbour entries for the pod, while it is down. Its index.
pub fn prepare_host(host: &Netlink, plan: &Plan<'_>) -> Result<u32> {
    let name = plan.host_ifname;
    let link = host.link(name)?;
    // The larger of `all` and the interface's counts: 2 passes even where `all` is 1, as the
    // pod's addresses are behind one interface and no other.
    sysctl::write(&format!("ipv4/conf/{name}/rp_filter"), "2")?;
    sysctl::write(&format!("ipv4/conf/{name}/forwarding"), "1")?;
    if sysctl::exists(&format!("ipv6/conf/{name}")) {
        // The host side has no address of its own, and takes none from the pod.
        for (key, value) in [
            ("accept_ra", "0"),
            ("autoconf", "0"),
            ("addr_gen_mode", "1"),
            ("accept_redirects", "0"),
        ] {
            sysctl::write(&format!("ipv6/conf/{name}/{key}"), value)?;
        }
        if plan.has_ipv6() {
            sysctl::write(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
            sysctl::write(&format!("ipv6/conf/{name}/forwarding"), "1")?;
        }
    } else if plan.has_ipv6() {
        let msg = "the node's kernel has no IPv6 (ipv6.disable=1?), and the pod is to have an IPv6 address";
        return Err(CniError::new(Code::Internal, msg));
    }
    for address in plan.addresses {
        host.set_neighbour(link.index, *address, plan.pod_mac)?;
    }
    Ok(link.index)
}

/// Sets the host side up and routes the pod's addresses to it: from here on it can be reached.
/// Returns once both sides send what they are given, so that the pod's first packet is not lost.
pub fn raise_host(
    host: &Netlink,
    index: u32,
    pod: &Netlink,
    netns: &NetNs,
    plan: &Plan<'_>,
) -> Result<()> {
    let sides = [
        (host, LinkWatch::open_in(&NetNs::current()?)?, index),
        (
            pod,
            LinkWatch::open_in(netns)?,
            pod.link(plan.ifname)?.index,
        ),
    ];
    host.set_up(index)?;
    for address in plan.addresses {
        let route = Route::to(IpNetwork::from(*address)).on_link(index);
        host.replace_route(&route)?;
    }
    for (side, watch, index) in &sides {
        side.await_active(*index, watch, ACTIVATION)?;
    }
    Ok(())
}
