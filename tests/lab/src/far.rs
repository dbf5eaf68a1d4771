//! A machine outside the cluster, beyond a router and a link narrower than all others: what is sent
//! to it from the nodes must learn the path's MTU from the fabric's ICMP errors.
//!
//! ```text
//! nodes ── fabric ──(the narrow link)── router ── machine
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use ipnetwork::IpNetwork;

use crate::control::Control;
use crate::fabric::no_surprises;
use crate::node::UPLINK;
use crate::spawn::{Place, run_in};
use crate::{Lab, netlink};

/// The MTU of the machine's own link, bytes.
const OWN_MTU: u32 = 1500;

/// A machine beyond the router.
#[derive(Debug)]
pub struct FarMachine {
    /// Its IPv4 and IPv6 address.
    pub addresses: [IpAddr; 2],
    /// Its server and prober; it listens on nothing unless it is told to.
    pub control: Arc<Control>,
    _router: Control,
}

impl Lab {
    /// Starts a machine outside the cluster that is not on the fabric but beyond a router, behind a link
    /// with this MTU (bytes) while its own is 1500: who sends it more at once is told so by the fabric.
    /// `number` (0 to 15) tells it from others.
    ///
    /// # Errors
    /// When a namespace or link is refused.
    pub fn add_far(&self, number: u8, mtu: u32) -> Result<FarMachine> {
        let place = Place {
            net: None,
            ..self.fabric()
        }
        .with_new_net()
        .in_cgroup(&self.cgroup().join("uncovered"))?;
        FarMachine::start(number, &place, &self.fabric().net_only(), mtu)
    }
}

/// The two ends of a link, IPv4 first.
type Ends = [[IpNetwork; 2]; 2];

impl FarMachine {
    /// `place` is that of a process with a network namespace of its own.
    fn start(number: u8, place: &Place, fabric: &Place, mtu: u32) -> Result<Self> {
        ensure!(
            number < 16,
            "a far machine's number is 0 to 15, not {number}"
        );
        let name = format!("far{number}");
        let router = Control::start(&format!("router/{name}"), place.clone())?;
        let control = Arc::new(Control::start(&format!("outside/{name}"), place.clone())?);
        // They answer only once they are in their namespaces.
        router.listen(&[])?;
        control.listen(&[])?;
        let (routing, own) = (
            Place::of_process(router.pid())?.net_only(),
            Place::of_process(control.pid())?.net_only(),
        );
        let [outer, inner] = links(number)?;
        cable(fabric, &name, (&router, &routing, UPLINK), outer, mtu)?;
        cable(&routing, &name, (&control, &own, UPLINK), inner, OWN_MTU)?;
        let defaults: [IpNetwork; 2] = ["0.0.0.0/0".parse()?, "::/0".parse()?];
        for family in 0..2 {
            let (up, down) = (outer[0][family].ip(), outer[1][family].ip());
            let near = inner[0][family];
            let net = IpNetwork::new(near.network(), near.prefix())?;
            let all = defaults[family];
            run_in(fabric, || netlink::add_route(net, &name, down))?;
            run_in(&routing, || netlink::add_route(all, UPLINK, up))?;
            run_in(&own, || netlink::add_route(all, UPLINK, near.ip()))?;
        }
        for place in [fabric, &routing] {
            run_in(place, || {
                netlink::sysctl("net/ipv4/ip_forward", "1")?;
                netlink::sysctl("net/ipv6/conf/all/forwarding", "1")
            })?;
        }
        Ok(Self {
            addresses: inner[1].map(|end| end.ip()),
            control,
            _router: router,
        })
    }

    /// Its address of one family.
    #[must_use]
    pub fn address(&self, v4: bool) -> IpAddr {
        self.addresses[usize::from(!v4)]
    }
}

/// The link from the fabric to the router, and the one from the router to the machine: this end, that end.
fn links(number: u8) -> Result<[Ends; 2]> {
    let group = u16::from(number);
    let ends = |[a, b, c]: [u8; 3], first: u8, prefix, net: u16| -> Result<Ends> {
        let end = |host: u8| -> Result<[IpNetwork; 2]> {
            let v6 = Ipv6Addr::new(0x2001, 0xdb8, net, group, 0, 0, 0, host.into());
            Ok([
                IpNetwork::new(Ipv4Addr::new(a, b, c, first + host).into(), prefix)?,
                IpNetwork::new(v6.into(), 64)?,
            ])
        };
        Ok([end(1)?, end(2)?])
    };
    Ok([
        ends([192, 0, 2], 4 * number, 30, 0xff)?,
        ends([203, 0, 113], 16 * number, 28, 0xfa)?,
    ])
}

/// Connects two namespaces by a link with addresses at both ends; `name` is this end's.
fn cable(
    here: &Place,
    name: &str,
    (holder, there, peer): (&Control, &Place, &str),
    ends: Ends,
    mtu: u32,
) -> Result<()> {
    let target = PathBuf::from(format!("/proc/{}/ns/net", holder.pid()));
    run_in(here, || netlink::add_cable(name, peer, &target, mtu))?;
    for (place, link, addresses) in [(there, peer, ends[1]), (here, name, ends[0])] {
        run_in(place, || {
            no_surprises(link)?;
            netlink::raise(link)?;
            addresses
                .iter()
                .try_for_each(|address| netlink::add_address(link, *address))
        })?;
    }
    run_in(there, || netlink::await_active(peer))?;
    run_in(here, || netlink::await_active(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_far_machines_share_a_network() {
        let all: Vec<Ends> = (0..16).flat_map(|n| links(n).unwrap()).collect();
        for (i, a) in all.iter().enumerate() {
            for (j, b) in all.iter().enumerate() {
                for family in 0..2 {
                    let shared = a[0][family].contains(b[1][family].ip());
                    assert_eq!(shared, i == j, "{a:?} {b:?}");
                }
            }
        }
    }
}
