//! What a program works on beside its stack, which has 512 bytes for all its functions together.
//! Kernel only.
//!
//! The steps of a packet's way are functions that take this and answer with a word: the verifier
//! knows nothing of what stands in a map's memory, so the many ways to reach a step are one to it.
//! Passed in registers, the same facts would multiply the ways (beyond its million instructions).

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use weir_abi::Addr;
use weir_abi::conntrack::{CtEntry, CtKey, Tuple};
use weir_abi::dry_run::Report;
use weir_abi::endpoint::Endpoint;
use weir_abi::fragment::{FragmentEntry, FragmentKey};
use weir_abi::service::ServiceKey;

use crate::dry_run;
use crate::nat::NatPorts;
use crate::packet::Packet;
use crate::service::Ask;

/// Most bytes of a packet that an ICMP error quotes.
pub const QUOTE: usize = 128;

/// One CPU's working memory. A tc program is not interrupted by another one on its CPU.
#[repr(C)]
pub struct Scratch {
    /// The packet.
    pub packet: Packet,
    /// What an ICMP error quotes.
    pub inner: Packet,
    /// Where the packet was met.
    pub hook: Hook,
    /// The node itself sends the packet (1 or 0): exempt from policy.
    pub own_node: u32,
    /// How the packet is judged and remembered.
    pub mode: Mode,
    /// Now, in conntrack's ticks.
    pub now: u32,
    /// What is known of the pod whose interface this is; valid in the hooks of pods' interfaces.
    pub pod: Endpoint,
    /// The pod that sends, where it is met at its own interface.
    pub from: Local,
    /// The pod that receives, if it is one of this node.
    pub to: Local,
    /// What is asked of the Services.
    pub ask: Ask,
    /// The frontend that was found.
    pub frontend: ServiceKey,
    /// Addresses and ports after translation.
    pub out: Tuple,
    /// The quoted packet's after translation.
    pub inner_out: Tuple,
    /// Whether `out` differs from the packet's (1 or 0).
    pub translate: u32,
    /// The flow as policy sees it.
    pub judged: Judged,
    /// Conntrack key of the packet as it came.
    pub key: CtKey,
    /// Whether the packet's source is the key's higher end (1 or 0).
    pub from_high: u32,
    /// Whether the packet goes the way of the flow's first one (1 or 0).
    pub original: u32,
    /// Conntrack key of the flow's other tuple.
    pub twin: CtKey,
    /// The source ports that are tried for a new flow.
    pub ports: NatPorts,
    /// A copy of the flow's entry, or the entry that is being written.
    pub entry: CtEntry,
    /// Which datagram the packet is a fragment of.
    pub fragment_key: FragmentKey,
    /// What is known of its first fragment.
    pub fragment: FragmentEntry,
    /// The pod that the first fragment went to, if it is one of this node.
    pub fragment_to: Local,
    /// Where the packet goes.
    pub target: Target,
    /// The interface that it goes to.
    pub target_ifindex: u32,
    /// The MTU of a way that is too narrow.
    pub mtu: u32,
    /// An answer that is being built: an ICMP header and the quote.
    pub answer: [u32; ANSWER_WORDS],
    /// What a dry run reports; without one it is never touched.
    pub report: Report,
    /// The tag of the flow whose entry a dry run takes for removed, or 0.
    pub removed: u32,
}

impl Scratch {
    /// Whether the packet is met at an uplink, and is for no pod that it names.
    #[inline(always)]
    pub fn at_uplink(&self) -> bool {
        (self.hook == Hook::FROM_UPLINK && self.to.present == 0) || self.hook == Hook::TO_UPLINK
    }

    /// Whether a Service may be meant by the packet's destination.
    #[inline(always)]
    pub fn asks_services(&self) -> bool {
        self.hook == Hook::FROM_POD || self.at_uplink()
    }

    /// Empties `entry`, by words.
    #[inline(always)]
    pub fn clear_entry(&mut self) {
        let words = (&raw mut self.entry).cast::<u64>();
        for i in 0..size_of::<CtEntry>() / 8 {
            // SAFETY: within the entry, which is aligned to 8 bytes. Volatile, or the loop would
            // become a byte-wise one.
            unsafe { words.add(i).write_volatile(0) };
        }
    }
}

/// Words of [`Scratch::answer`]: an ICMP error's header and its quote.
pub const ANSWER_WORDS: usize = (8 + QUOTE) / 4 + 1;

/// Where a packet is met.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hook(u32);

impl Hook {
    /// A pod sends it.
    pub const FROM_POD: Self = Self(0);
    /// The node's stack brings it to a pod.
    pub const TO_POD: Self = Self(1);
    /// It has come in by an uplink, for a pod or for a Service.
    pub const FROM_UPLINK: Self = Self(2);
    /// The node's stack sends it out of an uplink.
    pub const TO_UPLINK: Self = Self(3);

    /// As a word of a map's key.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// Where a packet goes.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Target(u32);

impl Target {
    /// Wherever the kernel routes it.
    pub const STACK: Self = Self(0);
    /// Into the pod `to`.
    pub const POD: Self = Self(1);
    /// Out of `target_ifindex`, to another node.
    pub const UPLINK: Self = Self(2);
    /// To the node itself, by its loopback device.
    pub const LOOPBACK: Self = Self(3);

    /// As a word of a map's value.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// What [`Target::number`] has said.
    #[inline(always)]
    pub const fn of(number: u32) -> Self {
        Self(number)
    }
}

/// How a packet is judged and remembered.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mode(u32);

impl Mode {
    /// By its flow's entry.
    pub const TRACKED: Self = Self(0);
    /// It opens a flow.
    pub const OPENS: Self = Self(1);
    /// For itself.
    pub const ALONE: Self = Self(2);
    /// A later fragment that may pass whatever its first was.
    pub const FRAGMENT: Self = Self(3);
    /// A later fragment that goes where its first has gone.
    pub const FOLLOWS: Self = Self(4);
}

/// Answers of the functions that plan a packet's way, beside [`crate::outcome::Outcome::code`].
pub struct Plan;

impl Plan {
    /// `mode`, `judged`, `out`, `translate` and `to` are filled in: go on.
    pub const GO: u32 = 1 << 16;
    /// Refuse it.
    pub const REFUSE: u32 = 1 << 17;
}

/// What must be known of a pod of this node.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Local {
    /// 1 if there is such a pod; else the rest means nothing.
    pub present: u32,
    /// Index in `POLICY_SLOTS`.
    pub slot: u32,
    /// See [`Endpoint::incarnation`].
    pub incarnation: u32,
    /// Host side of its interface.
    pub ifindex: u32,
    /// Its MTU.
    pub mtu: u32,
    /// A frame's first 12 bytes: to the pod, from its gateway.
    pub macs: [u32; 3],
}

impl Local {
    /// Who has sent a frame to one of the node's own interfaces, for the way back: the frame's first 12 bytes
    /// after that.
    #[inline(always)]
    pub fn outside(ifindex: u32, macs: [u32; 3]) -> Self {
        Self {
            present: 0,
            slot: 0,
            incarnation: 0,
            ifindex,
            mtu: 0,
            macs,
        }
    }

    /// What must be known of an endpoint.
    #[inline(always)]
    pub fn of(e: &Endpoint) -> Self {
        let [a, b, c, d, f, g] = e.pod_mac;
        let [h, i, j, k, l, m] = e.host_mac;
        Self {
            present: 1,
            slot: e.slot,
            incarnation: e.incarnation,
            ifindex: e.ifindex,
            mtu: e.mtu,
            macs: [
                u32::from_ne_bytes([a, b, c, d]),
                u32::from_ne_bytes([f, g, h, i]),
                u32::from_ne_bytes([j, k, l, m]),
            ],
        }
    }

    /// Whether there is such a pod.
    #[inline(always)]
    pub fn is_present(&self) -> bool {
        self.present != 0
    }
}

/// The original direction's tuple after DNAT and before SNAT: what policy judges.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Judged {
    /// The initiator's own address.
    pub src: Addr,
    /// The responder's own address.
    pub dst: Addr,
    /// Protocol and the responder's port: `weir_abi::policy::Interval::key`.
    pub port: u32,
}

#[map(name = "SCRATCH")]
static SCRATCH_MAP: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's working memory. Nothing in it is valid at the program's start.
#[inline(always)]
pub fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: the element is this CPU's own, and each program takes it once.
    let s = SCRATCH_MAP.get_ptr_mut(0).map(|p| unsafe { &mut *p })?;
    dry_run::begin(s);
    Some(s)
}

/// The same at the program's last step; what it holds stays.
#[inline(always)]
pub fn scratch_again() -> Option<&'static Scratch> {
    // SAFETY: as above; nobody uses the first reference any more.
    SCRATCH_MAP.get_ptr(0).map(|p| unsafe { &*p })
}
