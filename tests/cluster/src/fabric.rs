//! The wire between the nodes: a bridge in a namespace of its own, which is also the nodes' default
//! gateway. The machine's own network has no part in it.

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use weir_net::{
    NetNs, Netlink,
    netlink::{LinkChange, Route, Veth},
    sysctl,
};

use crate::{plan::Plan, world};

/// The bridge's name.
pub const BRIDGE: &str = "br0";

/// A node's interface.
pub const UPLINK: &str = "eth0";

/// IP MTU of the wire, bytes.
const MTU: u32 = 1500;

/// The wire, as it is made.
pub struct Fabric {
    netlink: Netlink,
    bridge: u32,
}

impl Fabric {
    /// Makes the bridge in the namespace of the process `holder`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn make(holder: u32, plan: &Plan) -> Result<Self> {
        let ns = NetNs::of_process(holder)?;
        let netlink = Netlink::open_in(&ns)?;
        prepare(&ns, &netlink)?;
        netlink.create_link(BRIDGE, "bridge")?;
        let bridge = netlink.link(BRIDGE)?.index;
        netlink.set_up(bridge)?;
        let lo = netlink.link("lo")?.index;
        for address in plan.fabric() {
            netlink.add_address(bridge, Plan::on_wire(address))?;
            for world in world::ADDRESSES {
                if world.is_ipv4() == address.is_ipv4() {
                    netlink.add_address(lo, world.into())?;
                }
            }
        }
        Ok(Self { netlink, bridge })
    }

    /// Connects a node, the `number`th.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn connect(&self, number: u8, holder: u32, plan: &Plan) -> Result<()> {
        let ns = NetNs::of_process(holder)?;
        let port = format!("n{number}");
        self.netlink.create_veth(&Veth {
            name: &port,
            mac: None,
            peer_name: UPLINK,
            peer_ns: &ns,
            peer_mac: None,
            mtu: MTU,
        })?;
        let change = LinkChange {
            up: Some(true),
            master: Some(self.bridge),
            ..LinkChange::default()
        };
        self.netlink
            .set_link(self.netlink.link(&port)?.index, change)?;
        let netlink = Netlink::open_in(&ns)?;
        prepare(&ns, &netlink)?;
        let uplink = netlink.link(UPLINK)?.index;
        netlink.set_up(uplink)?;
        for (address, gateway) in plan.node(number).into_iter().zip(plan.fabric()) {
            netlink.add_address(uplink, Plan::on_wire(address))?;
            let everywhere = if gateway.is_ipv4() {
                "0.0.0.0/0"
            } else {
                "::/0"
            };
            let everywhere: IpNetwork = everywhere.parse().context("a default route")?;
            netlink.add_route(&Route::to(everywhere).via(uplink, gateway))?;
        }
        Ok(())
    }
}

/// Loopback up, and forwarding on, as installers of Kubernetes demand it of a node.
fn prepare(ns: &NetNs, netlink: &Netlink) -> Result<()> {
    netlink.set_up(netlink.link("lo")?.index)?;
    ns.run(|| -> weir_net::Result<()> {
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            if sysctl::exists(key) {
                sysctl::write(key, "1")?;
            }
        }
        Ok(())
    })??;
    Ok(())
}
