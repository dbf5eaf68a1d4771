//! The connection state machine: what is remembered of a flow, for how long, and in which map.
//! Pure.

use weir_abi::Proto;
use weir_abi::conntrack::seen;

use crate::packet::tcp;

/// A span of conntrack's clock: ticks of 2^30 ns.
pub type Ticks = u32;

/// Seconds in ticks, rounded up.
const fn seconds(s: u64) -> Ticks {
    (s * 1_000_000_000).div_ceil(1 << 30) as Ticks
}

/// TCP before the handshake has ended.
pub const TCP_OPENING: Ticks = seconds(60);
/// TCP, established: six hours, for idle connections with keepalives of two hours.
pub const TCP_ESTABLISHED: Ticks = seconds(6 * 3600);
/// TCP after one FIN: the other end may go on sending. Also after a RST that an end did not
/// believe (RFC 5961 §3.2) and went on.
pub const TCP_HALF_CLOSED: Ticks = seconds(600);
/// TCP after both FINs.
pub const TCP_CLOSED: Ticks = seconds(60);
/// TCP after a RST.
pub const TCP_RESET: Ticks = seconds(10);
/// UDP and others, no reply yet.
pub const OTHER_NEW: Ticks = seconds(30);
/// UDP, with replies.
pub const UDP_ESTABLISHED: Ticks = seconds(180);
/// SCTP, with replies.
pub const SCTP_ESTABLISHED: Ticks = seconds(6 * 3600);
/// ICMP echo.
pub const ICMP: Ticks = seconds(30);

const FIN_BOTH: u32 = seen::FIN_INITIATOR | seen::FIN_RESPONDER;

/// What has been seen of a flow after one more packet. Bits are only added.
#[inline(always)]
pub fn advance(before: u32, proto: Proto, original: bool, flags: u8) -> u32 {
    let mut now = before;
    if !original {
        now |= seen::REPLY;
    }
    if proto.0 != Proto::TCP.0 {
        return if !original {
            now | seen::ESTABLISHED
        } else if before & seen::REPLY != 0 {
            now | seen::ASSURED
        } else {
            now
        };
    }
    if flags & tcp::RST != 0 {
        return now | seen::RST;
    }
    if before & seen::RST != 0 && flags & tcp::ACK != 0 {
        now |= seen::AFTER_RST;
    }
    if flags & tcp::FIN != 0 {
        now |= if original {
            seen::FIN_INITIATOR
        } else {
            seen::FIN_RESPONDER
        };
    }
    let syn_ack = flags & (tcp::SYN | tcp::ACK) == tcp::SYN | tcp::ACK;
    if !original && syn_ack {
        now |= seen::SYN_ACK;
    }
    // The handshake's last packet; of a connection met midway, a packet of each end.
    let acknowledged = original && flags & (tcp::SYN | tcp::ACK) == tcp::ACK;
    if acknowledged && now & seen::SYN_ACK != 0 {
        now |= seen::ESTABLISHED;
    }
    if now & seen::MIDSTREAM != 0 && now & seen::REPLY != 0 && flags & tcp::SYN == 0 {
        now |= seen::ESTABLISHED;
    }
    now
}

/// Whether a new connection may take the entry's place.
#[inline(always)]
pub fn closing(seen: u32) -> bool {
    seen & (FIN_BOTH | seen::RST) != 0
}

/// Whether the entry belongs into `CT_EST`.
#[inline(always)]
pub fn established(seen: u32) -> bool {
    seen & seen::ESTABLISHED != 0 && !closing(seen)
}

/// How long the entry holds without a packet.
#[inline(always)]
pub fn timeout(seen: u32, proto: Proto) -> Ticks {
    if proto.0 == Proto::TCP.0 {
        return tcp_timeout(seen);
    }
    if seen & seen::ESTABLISHED == 0 {
        OTHER_NEW
    } else if proto.0 == Proto::UDP.0 {
        UDP_ESTABLISHED
    } else if proto.0 == Proto::SCTP.0 {
        SCTP_ESTABLISHED
    } else {
        ICMP
    }
}

#[inline(always)]
fn tcp_timeout(seen: u32) -> Ticks {
    if seen & (seen::RST | seen::AFTER_RST) == seen::RST {
        TCP_RESET
    } else if seen & FIN_BOTH == FIN_BOTH {
        TCP_CLOSED
    } else if seen & (FIN_BOTH | seen::RST) != 0 {
        TCP_HALF_CLOSED
    } else if seen & seen::ESTABLISHED != 0 {
        TCP_ESTABLISHED
    } else {
        TCP_OPENING
    }
}

/// How long a closed connection, and one that never came to be, keeps its translated source port from
/// others that need one.
const SPENT_CLOSED: Ticks = seconds(2);
const SPENT_OPENING: Ticks = seconds(8);

/// Whether a flow that has been idle for this long may lose its translated source port to another: it
/// is over for its ends, though a late packet of it may still come. Ports are few (thousands for each
/// backend), and without this a small flood or many short flows would hold them all.
#[inline(always)]
pub fn spent(seen: u32, proto: Proto, idle: Ticks) -> bool {
    if idle >= u32::MAX / 2 {
        return false;
    }
    if proto.0 != Proto::TCP.0 {
        // One question and its answer, or not even that.
        return seen & seen::ASSURED == 0 && idle > SPENT_OPENING;
    }
    let reset = seen & (seen::RST | seen::AFTER_RST) == seen::RST;
    if reset || seen & FIN_BOTH == FIN_BOTH {
        idle > SPENT_CLOSED
    } else {
        seen & seen::ESTABLISHED == 0 && idle > SPENT_OPENING
    }
}

/// Whether an entry last used at `last_seen` is over. A clock that seems to run back (another
/// CPU's tick) expires nothing.
#[inline(always)]
pub fn expired(seen: u32, proto: Proto, last_seen: Ticks, now: Ticks) -> bool {
    let idle = now.wrapping_sub(last_seen);
    idle < u32::MAX / 2 && idle > timeout(seen, proto)
}

#[cfg(test)]
mod tests;
