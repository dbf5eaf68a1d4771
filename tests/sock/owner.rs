//! What the agent's other parts write into the maps that the socket hooks read: whose the namespace
//! is, the node's addresses, the configuration, and the rules of frontends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_abi::node::{NetnsOwner, NodeAddr, config, netns, node_addr};
use weir_abi::service::{Service, ServiceKey, scope};
use weir_abi::{Addr, PortBe, Proto, map};
use weir_net::{NetNs, Netlink};

use crate::rig::{Family, PORT, Rig};

/// Whose sockets the test's are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A pod with the addresses [`Owner::address`].
    Pod,
    /// The node.
    Node,
}

impl Owner {
    /// The owner's address.
    pub fn address(family: Family) -> IpAddr {
        match family {
            Family::V4 | Family::Mapped => Ipv4Addr::new(10, 1, 1, 1).into(),
            Family::V6 => Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 1, 1).into(),
        }
    }
}

/// The node's own address, where NodePorts answer.
pub fn node_address(family: Family) -> IpAddr {
    match family {
        Family::V4 | Family::Mapped => Ipv4Addr::new(192, 0, 2, 1).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// A NodePort.
pub const NODE_PORT: u16 = 30080;

impl Rig {
    /// Says whose this namespace is, and gives it the owner's addresses.
    pub fn own(&mut self, owner: Owner) {
        let netlink = Netlink::open().unwrap();
        let lo = netlink.link("lo").unwrap().index;
        for family in [Family::V4, Family::V6] {
            // Another owner may have been named before.
            let _ = netlink.add_address(lo, Owner::address(family).into());
        }
        let value = NetnsOwner {
            addr4: Owner::address(Family::V4).into(),
            addr6: Owner::address(Family::V6).into(),
            flags: if owner == Owner::Node { netns::NODE } else { 0 },
            zero: 0,
        };
        let cookie = NetNs::current_cookie().unwrap();
        self.map::<u64, NetnsOwner>(map::NETNS)
            .insert(cookie, value, 0)
            .unwrap();
    }

    /// Makes an address the node's, with NodePorts.
    pub fn node_address(&mut self, address: IpAddr) {
        let value = NodeAddr {
            flags: node_addr::NODE_PORTS,
        };
        self.map::<Addr, NodeAddr>(map::NODE_ADDRS)
            .insert(Addr::from(address), value, 0)
            .unwrap();
    }

    /// Gives the Service on `vip(n)` the NodePort [`NODE_PORT`].
    pub fn node_port(&mut self, family: Family, n: u8) {
        let everywhere = ServiceKey::node_wide(family != Family::V6);
        self.also_at(family, n, everywhere, NODE_PORT);
    }

    /// Has the Service on `vip(n)` served at this address and port as well.
    pub fn also_at(&mut self, family: Family, n: u8, addr: Addr, port: u16) {
        let mut services = self.map::<ServiceKey, Service>(map::SERVICES);
        for key in frontends(family, n) {
            let value = services.get(&key, 0).unwrap();
            let key = ServiceKey {
                addr,
                port: PortBe::new(port),
                ..key
            };
            services.insert(key, value, 0).unwrap();
        }
    }

    /// Marks an address as one that has frontends, and leaves other ports alone.
    pub fn mark(&mut self, addr: IpAddr) {
        let key = ServiceKey::marker(addr.into());
        self.map::<ServiceKey, Service>(map::SERVICES)
            .insert(key, Service::default(), 0)
            .unwrap();
    }

    /// Changes the rules of the Service on `vip(n)`.
    pub fn amend(&mut self, family: Family, n: u8, change: impl Fn(&mut Service)) {
        let mut services = self.map::<ServiceKey, Service>(map::SERVICES);
        for key in frontends(family, n) {
            let mut value = services.get(&key, 0).unwrap();
            change(&mut value);
            services.insert(key, value, 0).unwrap();
        }
    }

    /// Leaves the sockets of pods to the packet path, or does not.
    pub fn host_only(&mut self, on: bool) {
        let config = self.ebpf.map_mut(map::CONFIG).unwrap();
        let mut config = aya::maps::Array::<_, u64>::try_from(config).unwrap();
        let value = if on {
            config::flags::SOCKET_LB_HOST_ONLY
        } else {
            0
        };
        config.set(config::FLAGS, value, 0).unwrap();
    }
}

fn frontends(family: Family, n: u8) -> [ServiceKey; 2] {
    [Proto::TCP, Proto::UDP].map(|proto| ServiceKey {
        addr: family.vip(n).into(),
        port: PortBe::new(PORT),
        proto,
        scope: scope::EVERYONE,
    })
}
