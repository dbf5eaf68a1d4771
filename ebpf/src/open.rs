//! A new flow: Service, verdicts, entries. Kernel only.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use weir_abi::conntrack::{CtEntry, Stamp, Way, flags, seen};
use weir_abi::counter::Counter;
use weir_abi::endpoint::GATEWAY_V4;
use weir_abi::service::BackendId;
use weir_abi::{PortBe, Proto};

use crate::conntrack::{self, Inserted};
use crate::neighbour::is_group;
use crate::packet::{Packet, tcp};
use crate::scratch::{Hook, Mode, Plan, Scratch, Target};
use crate::outcome::Outcome;
use crate::service::{self, Ask, Asker, Frontend, Selection};
use crate::nat::{Candidate, NatPorts};
use crate::skb::Skb;
use crate::{dry_run, dsr, flow, masquerade, outside};

/// Plans the way of a flow's first packet, or of one whose flow is not remembered.
#[inline(never)]
pub fn plan(skb: Skb, s: &mut Scratch) -> u32 {
    describe(s);
    if s.asks_services() {
        match service(s) {
            NOT_A_SERVICE if s.at_uplink() => return masquerade::keep_own(s),
            NOT_A_SERVICE | Plan::GO => {}
            other => return other,
        }
    }
    flow::receiver(s);
    dsr::accept(skb, s);
    if s.hook == Hook::FROM_UPLINK {
        s.entry.uplink = skb.ifindex();
        if s.translate != 0 {
            let failed = outside::source(skb, s);
            if failed != 0 {
                return failed;
            }
        }
    }
    if s.hook == Hook::FROM_POD && remembered(&s.packet) {
        masquerade::source(skb, s);
    }
    s.entry.initiator = if s.from.is_present() {
        s.from.incarnation
    } else {
        0
    };
    s.entry.responder = if s.to.is_present() {
        s.to.incarnation
    } else {
        0
    };
    if s.own_node != 0 {
        s.entry.flags |= flags::HOST_LOCAL;
    }
    flow::judged_by_packet(s);
    s.mode = if remembered(&s.packet) {
        Mode::OPENS
    } else {
        Mode::ALONE
    };
    Plan::GO
}

/// Whether a flow is worth an entry: one that nothing can answer is not.
#[inline(always)]
pub fn remembered(p: &Packet) -> bool {
    if p.is_icmp() {
        return p.is_echo(true);
    }
    if p.proto.0 == Proto::TCP.0 {
        // A SYN-ACK without its SYN would make the server the initiator.
        return p.tcp_flags & (tcp::RST | tcp::SYN) == 0 || p.opens();
    }
    !is_group(&p.tuple.dst)
}

const NOT_A_SERVICE: u32 = 0;
const AGAIN: u32 = 1;

/// Asks the Services; translates `s.out`, and notes the backend in `s.entry` ([`Plan::GO`]), or
/// answers with what else is to be done.
#[inline(always)]
fn service(s: &mut Scratch) -> u32 {
    match frontend(s) {
        Plan::GO => {}
        other => return other,
    }
    for _ in 0..service::SERVICE_TRIES {
        match backend(s) {
            AGAIN => {}
            other => return other,
        }
    }
    Plan::REFUSE
}

/// Fills in `s.ask` and `s.frontend`.
#[inline(never)]
fn frontend(s: &mut Scratch) -> u32 {
    let p = &s.packet;
    let has_ports = matches!(p.proto, Proto::TCP | Proto::UDP | Proto::SCTP);
    s.ask = Ask {
        dst: p.tuple.dst,
        port: if has_ports { p.tuple.dport } else { PortBe(0) },
        proto: p.proto,
        client: p.tuple.src,
        client_port: p.tuple.sport,
        from: match s.hook {
            Hook::TO_UPLINK => Asker::Node,
            Hook::FROM_UPLINK => Asker::Outside,
            _ => Asker::Pod,
        },
        now: s.now,
    };
    match service::frontend(&s.ask) {
        Frontend::NotAService => NOT_A_SERVICE,
        Frontend::Refuse => Plan::REFUSE,
        Frontend::Serves(key) => {
            s.frontend = key;
            Plan::GO
        }
    }
}

/// Chooses one of the backends of `s.frontend`.
#[inline(never)]
fn backend(s: &mut Scratch) -> u32 {
    let (id, backend) = match service::choose_for(&s.ask, &s.frontend) {
        Selection::NotAService | Selection::Refuse | Selection::NoneAccepted => {
            return Plan::REFUSE;
        }
        Selection::Again => return AGAIN,
        Selection::Silent => return Outcome::drop(Counter::DropNoLocalBackend).code(),
        Selection::OutOfRange => return Outcome::drop(Counter::DropSourceRange).code(),
        Selection::Backend { id, backend } => (id, backend),
    };
    let p = &s.packet;
    if backend.addr.is_v4() != (p.family == 4) || !(p.opens() || resumes(s)) {
        // A connection that is not remembered belongs to one backend, nobody knows which.
        return Plan::REFUSE;
    }
    s.translate = 1;
    s.out.dst = backend.addr;
    s.out.dport = backend.port;
    s.entry.flags = flags::NAT;
    s.entry.backend = BackendId(id.0);
    s.entry.backend_incarnation = backend.incarnation;
    if s.from.is_present() && backend.addr == p.tuple.src {
        // The pod would take a packet from its own address for a forged one.
        s.entry.flags |= flags::HAIRPIN;
        // It comes from the gateway; in IPv6 from the Service, as an answer to a link-local address
        // would leave an unconnected socket from the pod's own link-local one (RFC 6724, rule 2).
        s.out.src = if p.family == 4 {
            GATEWAY_V4
        } else {
            p.tuple.dst
        };
    }
    Plan::GO
}

/// Whether a packet may belong to a connection that had come by another node before: the choice for
/// those outside is the same on all nodes.
#[inline(always)]
fn resumes(s: &Scratch) -> bool {
    s.hook == Hook::FROM_UPLINK
        && s.packet.proto.0 == Proto::TCP.0
        && s.packet.tcp_flags & (tcp::SYN | tcp::RST) == 0
}

/// Begins the flow's entry.
#[inline(always)]
fn describe(s: &mut Scratch) {
    // SAFETY: the helper takes nothing and only returns a word.
    let tag = dry_run::tag(s, unsafe { bpf_get_prandom_u32() });
    s.clear_entry();
    s.entry.version = CtEntry::VERSION;
    s.entry.last_seen = s.now;
    s.entry.tag = tag;
    s.entry.egress = Stamp::unjudged(tag);
    s.entry.ingress = Stamp::unjudged(tag);
    s.entry.way = Way::unknown(tag);
    if s.packet.proto.0 == Proto::TCP.0 && !s.packet.opens() {
        s.entry.seen = seen::MIDSTREAM;
        if s.packet.tcp_flags & tcp::FIN != 0 {
            s.entry.seen |= seen::FIN_INITIATOR;
        }
    }
}

/// Writes `s.entry`, and for a translated flow its twin first: whoever finds the first can rely on
/// the second. 0, or what the packet is counted as.
#[inline(always)]
pub fn record(skb: Skb, s: &mut Scratch) -> u32 {
    if s.hook == Hook::FROM_POD && s.target == Target::STACK {
        s.entry.flags |= flags::BY_STACK;
    }
    if s.entry.flags & flags::NAT == 0 {
        s.entry.flags |= high(s.from_high != 0);
        return match conntrack::insert_new(&s.key, &s.entry, s.now) {
            // Taken: another CPU has judged and opened the same flow.
            Inserted::Yes | Inserted::Taken => 0,
            Inserted::Full => Counter::DropConntrackFull as u32,
        };
    }
    if s.entry.flags & flags::KEY_TRANSLATED != 0 {
        // Translated at another node: nothing comes here under the other tuple.
        s.entry.flags |= high(s.from_high != 0);
        return match conntrack::insert_new(&s.key, &s.entry, s.now) {
            Inserted::Yes | Inserted::Taken => 0,
            Inserted::Full => Counter::DropConntrackFull as u32,
        };
    }
    s.entry.other = s.packet.tuple;
    s.entry.flags |= flags::KEY_TRANSLATED;
    s.ports = NatPorts::new(s.entry.flags & flags::SNAT != 0);
    for _ in 0..NatPorts::TRIES {
        match record_twin(skb, s) {
            TAKEN if s.entry.flags & flags::DSR != 0 => {
                if by_the_node(skb, s) != 0 {
                    return Counter::DropNoRoute as u32;
                }
            }
            TAKEN => {}
            0 => return record_first(s),
            failed => return failed,
        }
    }
    Counter::DropPortsExhausted as u32
}

const TAKEN: u32 = u32::MAX;

/// A flow that cannot have the client's own port at the backend goes there from the node's address.
#[inline(never)]
fn by_the_node(skb: Skb, s: &mut Scratch) -> u32 {
    dsr::gives_up(s);
    s.ports = NatPorts::new(true);
    outside::own_source(skb, s)
}

/// Tries to write the translated tuple's entry: 0, [`TAKEN`] by another flow or by a socket, or what the
/// packet is counted as.
#[inline(never)]
fn record_twin(skb: Skb, s: &mut Scratch) -> u32 {
    match s.ports.next(skb, &s.out, s.packet.proto) {
        Candidate::Port(port) => s.out.sport = port,
        Candidate::Busy => return TAKEN,
        Candidate::None => return Counter::DropPortsExhausted as u32,
    }
    let (twin, twin_high) = conntrack::key(&s.out, s.packet.proto);
    s.twin = twin;
    s.entry.flags = s.entry.flags & !flags::INITIATOR_HIGH | high(twin_high);
    match conntrack::insert_new(&s.twin, &s.entry, s.now) {
        Inserted::Yes => 0,
        Inserted::Taken => TAKEN,
        Inserted::Full => Counter::DropConntrackFull as u32,
    }
}

#[inline(always)]
fn record_first(s: &mut Scratch) -> u32 {
    s.entry.other = s.out;
    s.entry.flags &= !(flags::KEY_TRANSLATED | flags::INITIATOR_HIGH);
    s.entry.flags |= high(s.from_high != 0);
    match conntrack::insert_new(&s.key, &s.entry, s.now) {
        Inserted::Yes => 0,
        Inserted::Taken | Inserted::Full => {
            conntrack::undo(&s.twin);
            Counter::DropConntrackFull as u32
        }
    }
}

/// The flag of an entry whose initiator is its key's higher end.
#[inline(always)]
pub fn high(yes: bool) -> u32 {
    if yes { flags::INITIATOR_HIGH } else { 0 }
}
