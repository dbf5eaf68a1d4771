//! One node for one test: a network namespace with interfaces, a load of the eBPF object, and
//! packets run through its programs by BPF_PROG_TEST_RUN.

use std::path::PathBuf;
use std::process::Command;
use std::thread;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader, Pod};
use weir_abi::conntrack::{CtEntry, CtKey, Tuple};
use weir_abi::counter::Counter;
use weir_abi::endpoint::Endpoint;
use weir_abi::node::{NodeAddr, NodeCidr};
use weir_abi::policy::*;
use weir_abi::service::*;
use weir_abi::{Addr, PortBe, Proto};

use crate::packets::{Family, MAC_HOST_A, MAC_HOST_B, MAC_POD_A, MAC_POD_B, MAC_UPLINK};

/// Policy slots and incarnations of the two pods.
pub const SLOT_A: u32 = 1;
pub const SLOT_B: u32 = 2;
const INCARNATION_A: u32 = 101;
const INCARNATION_B: u32 = 102;

/// What a program did with a packet.
#[derive(Debug)]
pub struct Run {
    pub action: i32,
    pub packet: Vec<u8>,
    pub mark: u32,
    pub priority: u32,
    /// The counters that the run raised.
    pub counted: Vec<Counter>,
}

pub const STACK: i32 = -1;
pub const DROPPED: i32 = 2;
pub const REDIRECTED: i32 = 7;

impl Run {
    /// Asserts an action and the one counter that goes with it.
    #[track_caller]
    pub fn expect(self, action: i32, counter: Counter) -> Self {
        assert_eq!((self.action, &self.counted[..]), (action, &[counter][..]));
        self
    }
    #[track_caller]
    pub fn dropped(self, why: Counter) -> Self {
        self.expect(DROPPED, why)
    }
    #[track_caller]
    pub fn delivered(self) -> Self {
        self.expect(REDIRECTED, Counter::Delivered)
    }
    #[track_caller]
    pub fn to_stack(self) -> Self {
        self.expect(STACK, Counter::ToStack)
    }
}

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `from_pod` of pod A, of pod B.
    FromA,
    FromB,
    /// `to_pod` of pod B, for a packet that came in by another interface.
    ToB,
    /// The same, for what the node itself sends.
    NodeToB,
    FromUplink,
}

/// The node.
pub struct Node {
    ebpf: Ebpf,
    /// The counters after the last run.
    counted: Vec<u64>,
    pub if_a: u32,
    pub if_b: u32,
    pub if_uplink: u32,
}

/// Runs a test inside a namespace of its own. The namespace has no name: it is gone with the thread,
/// however the test ends.
pub fn on_node(test: impl FnOnce(&mut Node) + Send + 'static) {
    on_node_with(|_| {}, test);
}

/// The same, with a say in how the object is loaded.
pub fn on_node_with(
    configure: impl FnOnce(&mut EbpfLoader<'static>) + Send + 'static,
    test: impl FnOnce(&mut Node) + Send + 'static,
) {
    let body = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .expect("unshare(CLONE_NEWNET): this test needs root");
        test(&mut Node::new(configure));
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` in the calling thread's namespace.
pub fn ip(args: &str) {
    let done = Command::new("ip")
        .args(args.split_whitespace())
        .output()
        .expect("running ip");
    assert!(
        done.status.success(),
        "ip {args}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// The object under test: `WEIR_EBPF_OBJECT`, else where the build puts it.
pub fn object() -> PathBuf {
    let built = "../target/bpf/bpfel-unknown-none/ebpf/weir-ebpf";
    std::env::var_os("WEIR_EBPF_OBJECT").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(built),
        PathBuf::from,
    )
}

pub fn ifindex(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).expect("interface exists")
}

fn mac(m: [u8; 6]) -> String {
    m.map(|b| format!("{b:02x}")).join(":")
}

impl Node {
    fn new(configure: impl FnOnce(&mut EbpfLoader<'static>)) -> Self {
        ip("link set lo up");
        for (name, address) in [
            ("weira", MAC_HOST_A),
            ("weirb", MAC_HOST_B),
            ("weirup", MAC_UPLINK),
        ] {
            let address = mac(address);
            ip(&format!(
                "link add {name} address {address} type veth peer name {name}p"
            ));
            ip(&format!("link set {name} up"));
        }
        let mut loader = EbpfLoader::new();
        // Preallocated: small, so that a test starts in no time.
        loader
            .map_max_entries("CT_NEW", 4096)
            .map_max_entries("CT_EST", 4096);
        configure(&mut loader);
        let path = object();
        let bytes = std::fs::read(&path).unwrap_or_else(|err| {
            panic!("{}: {err}; run `cargo xtask build --ebpf`", path.display())
        });
        let ebpf = loader.load(&bytes).expect("the object loads");
        let mut node = Self {
            ebpf,
            counted: vec![0; Counter::ALL.len()],
            if_a: ifindex("weira"),
            if_b: ifindex("weirb"),
            if_uplink: ifindex("weirup"),
        };
        node.wire();
        node
    }

    /// Pods A and B, open in both directions, and the node's own addresses.
    fn wire(&mut self) {
        for endpoint in [self.pod_a(), self.pod_b()] {
            self.adopt(endpoint);
        }
        for slot in [SLOT_A, SLOT_B] {
            self.groups(slot, GroupId::OPEN, GroupId::OPEN);
        }
        for family in Family::BOTH {
            self.map("NODE_ADDRS")
                .insert(family.node(), NodeAddr::default(), 0)
                .unwrap();
        }
    }

    pub fn adopt(&mut self, endpoint: Endpoint) {
        self.map("ENDPOINTS")
            .insert(endpoint.ifindex, endpoint, 0)
            .unwrap();
        for addr in [endpoint.addr4, endpoint.addr6] {
            self.map("LOCAL_PODS").insert(addr, endpoint, 0).unwrap();
        }
    }

    pub fn pod_a(&self) -> Endpoint {
        Endpoint {
            addr4: Family::V4.a(),
            addr6: Family::V6.a(),
            ifindex: self.if_a,
            slot: SLOT_A,
            incarnation: INCARNATION_A,
            flags: 0,
            pod_mac: MAC_POD_A,
            host_mac: MAC_HOST_A,
            mtu: 1500,
        }
    }

    pub fn pod_b(&self) -> Endpoint {
        Endpoint {
            addr4: Family::V4.b(),
            addr6: Family::V6.b(),
            ifindex: self.if_b,
            slot: SLOT_B,
            incarnation: INCARNATION_B,
            flags: 0,
            pod_mac: MAC_POD_B,
            host_mac: MAC_HOST_B,
            mtu: 1500,
        }
    }

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
        let set = SetId(u32::from(port));
        for (index, &(id, addr, port)) in backends.iter().enumerate() {
            let slot = SlotKey {
                set,
                index: index as u32,
            };
            self.map("SLOTS").insert(slot, BackendId(id), 0).unwrap();
            let port = PortBe::new(port);
            let backend = Backend {
                addr,
                port,
                proto,
                state: 0,
                incarnation: 1,
            };
            self.map("BACKENDS")
                .insert(BackendId(id), backend, 0)
                .unwrap();
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
            affinity_secs: 0,
        };
        self.map("SERVICES").insert(key, value, 0).unwrap();
    }

    /// Marks a backend as gone.
    pub fn remove_backend(&mut self, id: u32) {
        let mut map = self.map::<BackendId, Backend>("BACKENDS");
        let mut backend = map.get(&BackendId(id), 0).unwrap();
        backend.state = BackendState::Removed as u8;
        map.insert(BackendId(id), backend, 0).unwrap();
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

    fn counters(&mut self) -> Vec<u64> {
        let map = self.ebpf.map_mut("COUNTERS").unwrap();
        let map: PerCpuArray<_, u64> = PerCpuArray::try_from(map).unwrap();
        Counter::ALL
            .map(|c| map.get(&(c as u32), 0).unwrap().iter().sum())
            .to_vec()
    }

    /// Runs a packet through a hook.
    pub fn run(&mut self, hook: Hook, packet: &[u8]) -> Run {
        self.run_with(hook, packet, |_| {})
    }

    /// The same, with other fields of `__sk_buff` set (by index of the word).
    pub fn run_with(&mut self, hook: Hook, packet: &[u8], set: impl FnOnce(&mut [u32])) -> Run {
        let (name, ifindex, ingress) = match hook {
            Hook::FromA => ("from_pod", self.if_a, self.if_a),
            Hook::FromB => ("from_pod", self.if_b, self.if_b),
            Hook::ToB => ("to_pod", self.if_b, self.if_uplink),
            Hook::NodeToB => ("to_pod", self.if_b, 0),
            Hook::FromUplink => ("from_uplink", self.if_uplink, self.if_uplink),
        };
        let mut ctx = [0u32; skb::WORDS];
        ctx[skb::MARK] = 0x1234;
        ctx[skb::PRIORITY] = 7;
        ctx[skb::INGRESS_IFINDEX] = ingress;
        ctx[skb::IFINDEX] = ifindex;
        set(&mut ctx);
        let ctx: Vec<u8> = ctx.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let mut ctx_out = vec![0u8; ctx.len()];
        let mut out = vec![0u8; packet.len() + 256];
        let program = self.program(name);
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(packet),
                data_out: Some(&mut out),
                ctx_in: Some(&ctx),
                ctx_out: Some(&mut ctx_out),
                ..TestRunOptions::default()
            })
            .unwrap_or_else(|err| panic!("BPF_PROG_TEST_RUN of {} bytes: {err:?}", packet.len()));
        out.truncate(result.data_size_out as usize);
        let after = self.counters();
        let counted = Counter::ALL
            .into_iter()
            .zip(self.counted.iter().zip(&after))
            .flat_map(|(counter, (before, after))| (*before..*after).map(move |_| counter))
            .collect();
        self.counted = after;
        let word = |i: usize| u32::from_ne_bytes(ctx_out[4 * i..4 * i + 4].try_into().unwrap());
        Run {
            action: result.return_value as i32,
            packet: out,
            mark: word(skb::MARK),
            priority: word(skb::PRIORITY),
            counted,
        }
    }

    /// A program, loaded on first use.
    fn program(&mut self, name: &str) -> &mut SchedClassifier {
        let program: &mut SchedClassifier = self
            .ebpf
            .program_mut(name)
            .expect(name)
            .try_into()
            .expect("a tc program");
        if program.fd().is_err() {
            program
                .load()
                .unwrap_or_else(|err| panic!("{name} is refused: {err:?}"));
        }
        program
    }

    /// How many instructions the verifier has walked through to accept each program.
    pub fn verified(&mut self) -> Vec<(&'static str, u32)> {
        let programs = ["from_pod", "to_pod", "from_uplink"];
        let count = |name| {
            let program = self.program(name);
            (
                name,
                program
                    .info()
                    .unwrap()
                    .verified_instruction_count()
                    .expect("Linux 5.16"),
            )
        };
        programs.map(count).to_vec()
    }

    /// Attaches a program to an interface's tcx hook of the calling thread's namespace.
    pub fn attach(
        &mut self,
        name: &str,
        interface: &str,
        attach_type: aya::programs::TcAttachType,
    ) {
        let program = self.program(name);
        program.attach(interface, attach_type).expect("tcx attach");
    }
}

fn lpm(key: &LpmKey) -> Key<[u32; 5]> {
    let [a, b, c, d] = key.addr;
    Key::new(
        key.prefix_len,
        [u32::from_ne_bytes([key.family, 0, 0, 0]), a, b, c, d],
    )
}

/// Words of `struct __sk_buff` that BPF_PROG_TEST_RUN takes and gives.
pub mod skb {
    pub const MARK: usize = 2;
    pub const PRIORITY: usize = 8;
    pub const INGRESS_IFINDEX: usize = 9;
    pub const IFINDEX: usize = 10;
    pub const GSO_SEGS: usize = 41;
    pub const GSO_SIZE: usize = 44;
    pub const WORDS: usize = 48;
}
