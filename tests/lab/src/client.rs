//! A machine outside the cluster that is a client of its Services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::{Result, ensure};
use ipnetwork::IpNetwork;

use crate::control::Control;
use crate::fabric::{self, Wire};
use crate::node::{Holder, Node, UPLINK};
use crate::spawn::{Place, run_in};
use crate::{Outcome, Probe, netlink};

/// A client on the fabric.
#[derive(Debug)]
pub struct OutsideClient {
    /// Its IPv4 and IPv6 address.
    pub addresses: [IpAddr; 2],
    /// Its prober; it listens on nothing unless it is told to.
    pub control: Arc<Control>,
}

impl OutsideClient {
    pub(crate) fn start(number: u8, place: Place, fabric: &Holder, wire: Wire) -> Result<Self> {
        ensure!(number < 50, "a client's number is 0 to 49, not {number}");
        let name = format!("c{number}");
        let control = Arc::new(Control::start(&format!("outside/{name}"), place)?);
        // It answers only once it is in its namespace.
        control.listen(&[])?;
        let last = 200 + number;
        let addresses = [
            Ipv4Addr::new(172, 18, 0, last).into(),
            Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 0x200 + u16::from(number)).into(),
        ];
        fabric::plug(fabric, &name, control.pid(), &addresses, wire)?;
        Ok(Self { addresses, control })
    }

    /// Its address of one family.
    #[must_use]
    pub fn address(&self, v4: bool) -> IpAddr {
        self.addresses[usize::from(!v4)]
    }

    /// Sends what is for `address` to a node, as the router of an ExternalIP or load balancer does.
    ///
    /// # Errors
    /// The kernel's.
    pub fn route(&self, address: IpAddr, node: &Node) -> Result<()> {
        let via = node.addresses[usize::from(address.is_ipv6())];
        let place = Place::of_process(self.control.pid())?.net_only();
        run_in(&place, || {
            netlink::add_route(IpNetwork::from(address), UPLINK, via)
        })
    }

    /// Makes one probe.
    ///
    /// # Errors
    /// When its process is gone.
    pub fn probe(&self, probe: Probe) -> Result<Outcome> {
        self.control.probe(probe)
    }
}
