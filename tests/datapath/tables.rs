//! What a test writes into the maps, and reads from them.

use aya::Pod;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, MapData};
use weir_abi::conntrack::{CtEntry, CtKey, Tuple};
use weir_abi::node::NodeCidr;
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
        let key = lpm(&LpmKey::prefix(addr, len));
        let map = self.ebpf.map_mut("NODE_CIDRS").unwrap();
        LpmTrie::try_from(map)
            .unwrap()
            .insert(&key, NodeCidr { node: 1, ifindex }, 0)
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

    /// Number of conntrack entries.
    pub fn entries(&mut self) -> usize {
        ["CT_NEW", "CT_EST"]
            .map(|name| self.map::<CtKey, CtEntry>(name).keys().count())
            .iter()
            .sum()
    }
}

fn lpm(key: &LpmKey) -> Key<[u32; 5]> {
    let [a, b, c, d] = key.addr;
    Key::new(
        key.prefix_len,
        [u32::from_ne_bytes([key.family, 0, 0, 0]), a, b, c, d],
    )
}
