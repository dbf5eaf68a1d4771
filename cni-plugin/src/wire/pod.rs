//! The pod's side: addresses, gateway neighbours, default routes.

use weir_net::{IpNetwork, NetNs, Netlink, netlink::Route, sysctl};

use super::{Plan, gateway};
use crate::{
    error::{CniError, Code, Result},
    result::default_route,
};

/// Metric of the routes of a pod's second and later interfaces, to which the interface's index is added.
const LATER_METRIC: u32 = 2000;

/// Configures the pod's side, and the loopback. `pod` is a connection to the pod's namespace.
pub fn configure_pod(pod: &Netlink, netns: &NetNs, plan: &Plan<'_>) -> Result<()> {
    let loopback = pod.link("lo")?;
    let link = pod.link(plan.ifname)?;
    netns.run(|| set_sysctls(plan))??;
    if !loopback.up {
        pod.set_up(loopback.index)?;
    }
    pod.set_up(link.index)?;
    for address in plan.addresses {
        pod.add_address(link.index, IpNetwork::from(*address))?;
        pod.set_neighbour(link.index, gateway(*address), plan.host_mac)?;
        if address.is_ipv4() {
            // The gateway is in no subnet of the pod's: it must be said to be on the link. (For
            // IPv6 a link-local gateway always is.)
            let to_gateway = Route::to(IpNetwork::from(gateway(*address))).on_link(link.index);
            add_route(pod, to_gateway, link.index)?;
        }
        let default = Route::to(default_route(*address)).via(link.index, gateway(*address));
        add_route(pod, default, link.index)?;
    }
    Ok(())
}

/// Adds a route. If another interface of the pod has made the same, that one stays the one that is
/// taken, and this one serves sockets bound to its interface.
fn add_route(pod: &Netlink, mut route: Route, index: u32) -> Result<()> {
    match pod.add_route(&route) {
        Err(error) if error.exists() => {
            route.priority = Some(LATER_METRIC + index);
            Ok(pod.add_route(&route)?)
        }
        result => Ok(result?),
    }
}

/// Runs inside the pod's namespace.
fn set_sysctls(plan: &Plan<'_>) -> Result<()> {
    if !plan.has_ipv6() {
        return Ok(());
    }
    let name = plan.ifname;
    if !sysctl::exists(&format!("ipv6/conf/{name}")) {
        let msg =
            "the kernel has no IPv6 (ipv6.disable=1?), and the pod is to have an IPv6 address";
        return Err(CniError::new(Code::Internal, msg));
    }
    // Some runtimes make namespaces with IPv6 switched off.
    sysctl::write("ipv6/conf/lo/disable_ipv6", "0")?;
    for (key, value) in [
        ("disable_ipv6", "0"),
        ("accept_ra", "0"),
        ("accept_dad", "0"),
    ] {
        sysctl::write(&format!("ipv6/conf/{name}/{key}"), value)?;
    }
    Ok(())
}
