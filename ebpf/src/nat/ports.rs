//! Source ports for flows whose source is translated. Kernel only.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use weir_abi::conntrack::Tuple;
use weir_abi::node::config;
use weir_abi::{PortBe, Proto};

use crate::maps;
use crate::skb::Skb;

/// Ports in the order in which they are tried for one flow. Whether one is free, the caller learns by
/// writing the reply's entry, which succeeds for one flow only.
#[derive(Clone, Copy)]
pub struct NatPorts {
    /// The range; 0 for a flow that keeps its source address.
    first: u32,
    /// How many; 0 if the node has none.
    len: u32,
    start: u32,
    /// How many were tried.
    tried: u32,
}

/// What is to be done with a port.
pub enum Candidate {
    /// Try it.
    Port(PortBe),
    /// A socket of the node is on the reply's tuple.
    Busy,
    /// There are no more.
    None,
}

impl NatPorts {
    /// How many ports are tried for a flow at most.
    pub const TRIES: u32 = 16;

    /// For a flow that gets the node's address (`own`), the range of `config::NAT_PORTS` from a random start;
    /// for others first the client's own port, then any above 32,767.
    #[inline(always)]
    pub fn new(own: bool) -> Self {
        let word = if own {
            maps::config_word(config::NAT_PORTS) as u32
        } else {
            0xffff_8000
        };
        let (first, last) = (word & 0xffff, word >> 16);
        let len = if first != 0 && first <= last {
            last - first + 1
        } else {
            0
        };
        // SAFETY: the helper takes nothing and only returns a word.
        let random = unsafe { bpf_get_prandom_u32() };
        Self {
            first: if own { first } else { 0 },
            len,
            start: ((random as u64 * len as u64) >> 32) as u32,
            tried: 0,
        }
    }

    /// The next port for a flow that goes out as `out`.
    #[inline(always)]
    pub fn next(&mut self, skb: Skb, out: &Tuple, proto: Proto) -> Candidate {
        let attempt = self.tried;
        self.tried += 1;
        if self.first == 0 && self.len != 0 {
            if attempt == 0 {
                return Candidate::Port(out.sport);
            }
            return Candidate::Port(PortBe::new((0x8000 | (self.start + attempt)) as u16));
        }
        if attempt >= self.len {
            return Candidate::None;
        }
        // A prime above every length: no neighbours, which are as old as each other, and no port twice.
        let step = self.start + attempt * 65_537;
        let port = PortBe::new((self.first + step % self.len) as u16);
        let mut reply = out.reversed();
        reply.dport = port;
        if socket_is_on(skb, &reply, proto.0 as u32) != 0 {
            Candidate::Busy
        } else {
            Candidate::Port(port)
        }
    }
}

/// Whether the node's own programs would lose what comes on a tuple.
#[inline(never)]
fn socket_is_on(skb: Skb, reply: &Tuple, proto: u32) -> u32 {
    let tcp = proto == Proto::TCP.0 as u32;
    ((tcp || proto == Proto::UDP.0 as u32) && skb.has_socket(reply, tcp)) as u32
}
