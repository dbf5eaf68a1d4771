//! For `--cni bridge`: the reference plugins, their configuration, and routes between nodes.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use serde_json::{Value, json};
use weir_net::{NetNs, Netlink, netlink::Route};

/// Where distributions put the reference plugins.
const PLUGIN_DIRS: [&str; 3] = ["/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin"];

/// Copies the reference plugins to where containerd looks for them; `opt` is the node's `/opt`, as this
/// process sees it.
///
/// # Errors
/// They are not installed.
pub fn reference_plugins(opt: &Path) -> Result<()> {
    let from = PLUGIN_DIRS
        .iter()
        .map(Path::new)
        .find(|dir| dir.join("bridge").exists())
        .with_context(|| {
            format!("no reference plugins in {PLUGIN_DIRS:?}; apt-get install containernetworking-plugins")
        })?;
    for name in ["loopback", "bridge", "host-local", "portmap"] {
        let to = opt.join("cni/bin").join(name);
        fs::copy(from.join(name), &to)
            .with_context(|| format!("cannot copy {name} to {}", to.display()))?;
    }
    Ok(())
}

/// The configuration list for a node.
#[must_use]
pub fn conflist(pod_cidrs: &[IpNetwork]) -> Value {
    let ranges: Vec<Value> = pod_cidrs
        .iter()
        .map(|cidr| json!([{"subnet": cidr}]))
        .collect();
    let routes: Vec<Value> = pod_cidrs
        .iter()
        .map(|cidr| json!({"dst": if cidr.is_ipv4() { "0.0.0.0/0" } else { "::/0" }}))
        .collect();
    json!({
        "cniVersion": "1.0.0",
        "name": "bridge",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "hairpinMode": true,
                "ipam": {"type": "host-local", "ranges": ranges, "routes": routes},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

/// Routes to nodes' pods by the device `by`, in the namespace of the process `holder`.
///
/// # Errors
/// The kernel refuses.
pub fn routes(holder: u32, by: &str, to: &[(Vec<IpNetwork>, Vec<IpAddr>)]) -> Result<()> {
    let netlink = Netlink::open_in(&NetNs::of_process(holder)?)?;
    let uplink = netlink.link(by)?.index;
    for (cidrs, addresses) in to {
        for cidr in cidrs {
            let gateway = addresses
                .iter()
                .find(|a| a.is_ipv4() == cidr.is_ipv4())
                .with_context(|| format!("no node address of the family of {cidr}"))?;
            netlink.replace_route(&Route::to(*cidr).via(uplink, *gateway))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bridges_list_has_a_range_and_a_route_of_each_family() {
        let cidrs = ["10.244.1.0/24", "fd44:0:0:1::/64"].map(|c| c.parse().unwrap());
        let list = conflist(&cidrs);
        let ipam = &list["plugins"][0]["ipam"];
        assert_eq!(ipam["ranges"][1][0]["subnet"], "fd44:0:0:1::/64");
        assert_eq!(ipam["routes"][0]["dst"], "0.0.0.0/0");
        assert_eq!(ipam["routes"][1]["dst"], "::/0");
    }
}
