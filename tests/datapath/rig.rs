//! One node for one test: a network namespace with interfaces, a load of the eBPF object, and
//! packets run through its programs by BPF_PROG_TEST_RUN.

use std::path::PathBuf;
use std::process::Command;
use std::thread;

use aya::maps::PerCpuArray;
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use weir_abi::counter::Counter;
use weir_abi::dry_run::{CB, Report};
use weir_abi::endpoint::Endpoint;
use weir_abi::node::{NodeAddr, OVERLAY_MAC};
use weir_abi::policy::GroupId;
use weir_agent::dataplane::live::{self, Place};

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
    /// The control block after it.
    pub cb: [u32; Report::WORDS],
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
    pub fn left_to_stack(self) -> Self {
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
    /// What the node itself sends out of the uplink.
    ToUplink,
    /// What comes by the overlay's device, and what goes out of it.
    FromOverlay,
    ToOverlay,
    ToWireguard,
}

/// The node.
pub struct Node {
    pub ebpf: Ebpf,
    /// The counters after the last run.
    counted: Vec<u64>,
    pub if_a: u32,
    pub if_b: u32,
    pub if_uplink: u32,
    pub if_overlay: u32,
    /// The pods that packets of established flows come from and go to.
    adopted: Vec<Endpoint>,
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

/// As `ip` writes it.
pub fn mac(m: [u8; 6]) -> String {
    m.map(|b| format!("{b:02x}")).join(":")
}

impl Node {
    fn new(configure: impl FnOnce(&mut EbpfLoader<'static>)) -> Self {
        ip("link set lo up");
        for (name, address) in [
            ("weira", MAC_HOST_A),
            ("weirb", MAC_HOST_B),
            ("weirup", MAC_UPLINK),
            ("weirov", OVERLAY_MAC),
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
            if_overlay: ifindex("weirov"),
            adopted: Vec::new(),
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
        let old = |e: &mut Endpoint| e.ifindex == endpoint.ifindex || e.addr4 == endpoint.addr4;
        let olds: Vec<Endpoint> = self.adopted.extract_if(.., old).collect();
        self.adopted.push(endpoint);
        let mut places = self.array::<Endpoint>("INCARNATIONS");
        for old in olds {
            let place = Endpoint::place(old.incarnation);
            places.set(place, Endpoint::default(), 0).unwrap();
        }
        places
            .set(Endpoint::place(endpoint.incarnation), endpoint, 0)
            .unwrap();
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
        let Place {
            hook: judge,
            ifindex,
            ingress_ifindex,
        } = self.place(hook);
        let name = match hook {
            Hook::ToOverlay => "to_overlay",
            Hook::ToWireguard => "to_wireguard",
            _ => judge.program(),
        };
        let mut ctx = [0u32; skb::WORDS];
        ctx[skb::MARK] = 0x1234;
        ctx[skb::PRIORITY] = 7;
        ctx[skb::INGRESS_IFINDEX] = ingress_ifindex;
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
            cb: std::array::from_fn(|i| word(CB + i)),
            counted,
        }
    }

    /// Where a hook is.
    pub fn place(&self, hook: Hook) -> Place {
        let (hook, ifindex, ingress_ifindex) = match hook {
            Hook::FromA => (live::Hook::FromPod, self.if_a, self.if_a),
            Hook::FromB => (live::Hook::FromPod, self.if_b, self.if_b),
            Hook::ToB => (live::Hook::ToPod, self.if_b, self.if_uplink),
            Hook::NodeToB => (live::Hook::ToPod, self.if_b, 0),
            Hook::FromUplink => (live::Hook::FromUplink, self.if_uplink, self.if_uplink),
            Hook::ToUplink => (live::Hook::ToUplink, self.if_uplink, 0),
            Hook::FromOverlay | Hook::ToOverlay | Hook::ToWireguard => {
                (live::Hook::FromOverlay, self.if_overlay, self.if_overlay)
            }
        };
        Place {
            hook,
            ifindex,
            ingress_ifindex,
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
        let programs = [
            "from_pod",
            "to_pod",
            "from_uplink",
            "to_uplink",
            "from_overlay",
            "to_overlay",
            "from_wireguard",
            "to_wireguard",
        ];
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
