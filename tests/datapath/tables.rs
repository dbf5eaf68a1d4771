//! What a test writes into the maps, and reads from them.

use aya::Pod;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, MapData};
use weir_abi::conntrack::{CtEntry, CtKey, Tuple};
use weir_abi::node::{NodeAddr, NodeCidr, UplinkInfo, config, node_addr};
use weir_abi::policy::*;
use weir_abi::service::*;
use weir_abi::{Addr, PortBe, Proto};

use crate::rig::Node;

impl Node {
    pub fn map<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        HashMap::try_from(self.ebpf.map_mut(name).expect(name)).expect(name)
    }

    pub fn array<V: Pod>(&mut self, name: &str) -> Array<&mut MapData, V> {
        Array::try_from(self.ebpf.map_mut(name).expect(name)).expect(name)
    }

    /// Sets a slot's groups, and raises its epoch after that.
    pub fn groups(&mut self, slot: u32, ingress: GroupId, egress: GroupId) {
        let mut slots = self.array::<PolicySlot>("POLICY_SLOTS");
        let old = slots.get(&slot, 0).unwrap();
        let new = PolicySlot {
            groups: PolicySlot::pack(ingress, egress),
            epoch: old.epoch + 1,
        };
        slots.set(slot, new, 0).unwrap();
    }

    /// Raises an epoch alone.
    pub fn bump(&mut self, slot: u32) {
        let mut slots = self.array::<PolicySlot>("POLICY_SLOTS");
        let mut value = slots.get(&slot, 0).unwrap();
        value.epoch += 1;
        slots.set(slot, value, 0).unwrap();
    }

    pub fn peer(&mut self, addr: Addr, class: u32) {
        self.map("PEERS").insert(addr, ClassId(class), 0).unwrap();
    }

    pub fn cidr(&mut self, addr: Addr, len: u8, class: u32) {
        let key = lpm(&LpmKey::prefix(addr, len));
        let map = self.ebpf.map_mut("CIDRS").unwrap();
        LpmTrie::try_from(map)
            .unwrap()
            .insert(&key, ClassId(class), 0)
            .unwrap();
    }

    pub fn node_cidr(&mut self, addr: Addr, len: u8, ifindex: u32) {
        let value = NodeCidr {
            node: 1,
            ifindex,
            ..NodeCidr::default()
        };
        self.put_node_cidr(addr, len, value);
    }

    pub fn put_node_cidr(&mut self, addr: Addr, len: u8, value: NodeCidr) {
        let key = lpm(&LpmKey::prefix(addr, len));
        let map = self.ebpf.map_mut("NODE_CIDRS").unwrap();
        LpmTrie::try_from(map)
            .unwrap()
            .insert(&key, value, 0)
            .unwrap();
    }

    /// A row with one verdict for all ports.
    pub fn inline_row(&mut self, group: GroupId, class: u32, verdict: RuleVerdict) {
        self.row(
            group,
            class,
            Decision {
                at: verdict.0,
                len: 0,
            },
        );
    }

    pub fn row(&mut self, group: GroupId, class: u32, decision: Decision) {
        let key = DecisionKey {
            group,
            class: ClassId(class),
        };
        self.map("DECISIONS").insert(key, decision, 0).unwrap();
    }

    /// A row that says `verdicts` from each start on.
    pub fn table(&mut self, group: GroupId, class: u32, at: u32, verdicts: &[(u32, RuleVerdict)]) {
        let mut intervals = self.array::<Interval>("INTERVALS");
        for (i, &(start, verdict)) in verdicts.iter().enumerate() {
            intervals
                .set(at + i as u32, Interval { start, verdict }, 0)
                .unwrap();
        }
        self.row(
            group,
            class,
            Decision {
                at,
                len: verdicts.len() as u32,
            },
        );
    }

    /// A Service with these backends (id, address, port); returns nothing of note.
    pub fn service(&mut self, vip: Addr, port: u16, proto: Proto, backends: &[(u32, Addr, u16)]) {
        let marker = Service {
            flags: marker::REFUSE_UNSERVED,
            ..Service::default()
        };
        self.map("SERVICES")
            .insert(ServiceKey::marker(vip), marker, 0)
            .unwrap();
        // Ports of one test are not so close that their sets meet.
        let set = SetId(u32::from(port) * 16);
        for (index, &(id, addr, port)) in backends.iter().enumerate() {
            let key = SlotKey {
                set,
                index: index as u32,
            };
            let slot = Slot {
                backend: BackendId(id),
                incarnation: 1,
            };
            self.array("SLOTS").set(key.at(), slot, 0).unwrap();
            let port = PortBe::new(port);
            let backend = Backend {
                addr,
                port,
                proto,
                zero: 0,
                check: 0,
                state: BackendState::Active as u32,
                incarnation: 1,
            };
            self.array("BACKENDS").set(id, backend, 0).unwrap();
        }
        let key = ServiceKey {
            addr: vip,
            port: PortBe::new(port),
            proto,
            scope: 0,
        };
        let count = backends.len() as u32;
        let value = Service {
            set,
            count,
            flags: 0,
            ranges: 0,
            affinity_secs: 0,
        };
        self.map("SERVICES").insert(key, value, 0).unwrap();
    }

    /// A frontend without a marker, over backends (id, address, port) with incarnations of their own.
    pub fn frontend(&mut self, key: ServiceKey, value: Service, backends: &[(u32, Addr, u16)]) {
        // Behind the sets of ClusterIPs; ports of one test are not so close that their sets meet.
        let set =
            SetId(110_000 + (u32::from(key.port.get()) % 300 * 2 + u32::from(key.scope)) * 32);
        for (index, &(id, addr, port)) in backends.iter().enumerate() {
            let index = index as u32;
            let incarnation = id.wrapping_mul(0x9e37_79b1);
            let slot = Slot {
                backend: BackendId(id),
                incarnation,
            };
            let at = SlotKey { set, index }.at();
            self.array("SLOTS").set(at, slot, 0).unwrap();
            let backend = Backend {
                addr,
                port: PortBe::new(port),
                proto: key.proto,
                zero: 0,
                check: 0,
                state: BackendState::Active as u32,
                incarnation,
            };
            self.array("BACKENDS").set(id, backend, 0).unwrap();
        }
        let count = backends.len() as u32;
        let value = Service {
            set,
            count,
            ..value
        };
        self.map("SERVICES").insert(key, value, 0).unwrap();
    }

    /// A NodePort, at the node's addresses of the family.
    pub fn node_port(&mut self, v4: bool, port: u16, proto: Proto, backends: &[(u32, Addr, u16)]) {
        let key = node_wide(v4, port, proto, scope::EVERYONE);
        self.frontend(key, Service::default(), backends);
        for family in crate::packets::Family::BOTH {
            let flags = node_addr::NODE_PORTS;
            self.map("NODE_ADDRS")
                .insert(family.node(), NodeAddr { flags }, 0)
                .unwrap();
        }
    }

    /// The uplink's addresses, and the ports that the node translates to.
    pub fn nat(&mut self, first: u16, last: u16) {
        let info = UplinkInfo {
            addr4: crate::packets::Family::V4.node(),
            addr6: crate::packets::Family::V6.node(),
            mac: crate::packets::MAC_UPLINK,
            flags: 0,
        };
        let uplink = self.if_uplink;
        self.map("UPLINKS").insert(uplink, info, 0).unwrap();
        let word = u64::from(first) | u64::from(last) << 16;
        self.array::<u64>("CONFIG")
            .set(config::NAT_PORTS, word, 0)
            .unwrap();
    }

    /// Gives the uplink another address of its family.
    pub fn uplink_address(&mut self, addr: Addr) {
        let uplink = self.if_uplink;
        let mut uplinks = self.map::<u32, UplinkInfo>("UPLINKS");
        let mut info = uplinks.get(&uplink, 0).unwrap();
        if addr.is_v4() {
            info.addr4 = addr;
        } else {
            info.addr6 = addr;
        }
        uplinks.insert(uplink, info, 0).unwrap();
    }

    /// Sets a word of the configuration.
    pub fn config(&mut self, word: u32, value: u64) {
        self.array::<u64>("CONFIG").set(word, value, 0).unwrap();
    }

    /// Sets the configuration's flags.
    pub fn flags(&mut self, flags: u64) {
        self.config(config::FLAGS, flags);
    }

    /// Adds a prefix of a frontend's source ranges.
    pub fn source_range(&mut self, key: RangeKey) {
        let [a, b, c, d] = key.addr;
        let data = [key.ranges, key.family, a, b, c, d];
        let map = self.ebpf.map_mut("SOURCE_RANGES").unwrap();
        LpmTrie::<_, [u32; 6], u32>::try_from(map)
            .unwrap()
            .insert(&Key::new(key.prefix_len, data), 1, 0)
            .unwrap();
    }

    /// Marks a backend as gone.
    pub fn remove_backend(&mut self, id: u32) {
        let mut map = self.array::<Backend>("BACKENDS");
        let mut backend = map.get(&id, 0).unwrap();
        backend.state = BackendState::Removed as u32;
        map.set(id, backend, 0).unwrap();
    }

    /// The entry under a tuple, and the map it is in.
    pub fn entry(&mut self, tuple: &Tuple, proto: Proto) -> Option<(&'static str, CtEntry)> {
        let key = CtKey::sorted(tuple, proto).0;
        ["CT_NEW", "CT_EST"].into_iter().find_map(|name| {
            let entry = self.map::<CtKey, CtEntry>(name).get(&key, 0).ok()?;
            Some((name, entry))
        })
    }

    /// Changes an entry in place.
    pub fn edit_entry(&mut self, tuple: &Tuple, proto: Proto, edit: impl FnOnce(&mut CtEntry)) {
        let (name, mut entry) = self.entry(tuple, proto).expect("the entry exists");
        edit(&mut entry);
        self.map(name)
            .insert(CtKey::sorted(tuple, proto).0, entry, 0)
            .unwrap();
    }

    /// Brings an entry into the map of established flows.
    pub fn establish(&mut self, tuple: &Tuple, proto: Proto) {
        let key = CtKey::sorted(tuple, proto).0;
        let (name, entry) = self.entry(tuple, proto).expect("the entry exists");
        self.map::<CtKey, CtEntry>(name).remove(&key).unwrap();
        self.map("CT_EST").insert(key, entry, 0).unwrap();
    }

    /// Removes a translated flow, as if it had been evicted.
    pub fn forget(&mut self, tuple: &Tuple, proto: Proto) {
        let (_, entry) = self.entry(tuple, proto).expect("the entry exists");
        for tuple in [*tuple, entry.other] {
            for name in ["CT_NEW", "CT_EST"] {
                let key = CtKey::sorted(&tuple, proto).0;
                let _ = self.map::<CtKey, CtEntry>(name).remove(&key);
            }
        }
    }

    /// Number of conntrack entries.
    pub fn entries(&mut self) -> usize {
        ["CT_NEW", "CT_EST"]
            .map(|name| self.map::<CtKey, CtEntry>(name).keys().count())
            .iter()
            .sum()
    }
}

/// The key of a NodePort.
pub fn node_wide(v4: bool, port: u16, proto: Proto, scope: u8) -> ServiceKey {
    ServiceKey {
        addr: ServiceKey::node_wide(v4),
        port: PortBe::new(port),
        proto,
        scope,
    }
}

fn lpm(key: &LpmKey) -> Key<[u32; 5]> {
    let [a, b, c, d] = key.addr;
    Key::new(
        key.prefix_len,
        [u32::from_ne_bytes([key.family, 0, 0, 0]), a, b, c, d],
    )
}
