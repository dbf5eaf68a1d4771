use super::*;
use crate::packet::tcp::{ACK, FIN, RST, SYN};

/// What is remembered after these packets: (of the initiator?, TCP flags).
fn after(proto: Proto, first: u32, packets: &[(bool, u8)]) -> u32 {
    packets.iter().fold(first, |seen, &(original, flags)| {
        advance(seen, proto, original, flags)
    })
}

const HANDSHAKE: [(bool, u8); 3] = [(true, SYN), (false, SYN | ACK), (true, ACK)];

#[test]
fn a_handshake_establishes_with_its_last_packet_only() {
    for n in 0..3 {
        assert!(
            !established(after(Proto::TCP, 0, &HANDSHAKE[..n])),
            "after {n}"
        );
    }
    assert!(established(after(Proto::TCP, 0, &HANDSHAKE)));
}

#[test]
fn a_syn_flood_answered_by_the_server_stays_half_open() {
    let seen = after(
        Proto::TCP,
        0,
        &[(true, SYN), (false, SYN | ACK), (false, SYN | ACK)],
    );
    assert!(!established(seen));
    assert_eq!(timeout(seen, Proto::TCP), TCP_OPENING);
}

#[test]
fn an_ack_without_the_servers_answer_establishes_nothing() {
    assert!(!established(after(
        Proto::TCP,
        0,
        &[(true, SYN), (true, ACK)]
    )));
}

#[test]
fn a_connection_met_midway_is_established_by_a_reply() {
    let seen = after(Proto::TCP, seen::MIDSTREAM, &[(true, ACK)]);
    assert!(!established(seen));
    assert!(established(advance(seen, Proto::TCP, false, ACK)));
}

#[test]
fn fins_and_resets_only_shorten_the_timeout() {
    let mut seen = after(Proto::TCP, 0, &HANDSHAKE);
    let mut last = timeout(seen, Proto::TCP);
    assert_eq!(last, TCP_ESTABLISHED);
    for (packet, expected) in [
        ((true, FIN | ACK), TCP_HALF_CLOSED),
        ((false, FIN | ACK), TCP_CLOSED),
        ((false, RST), TCP_RESET),
        ((false, RST | ACK), TCP_RESET),
    ] {
        seen = advance(seen, Proto::TCP, packet.0, packet.1);
        assert!(closing(seen) && !established(seen));
        assert_eq!(timeout(seen, Proto::TCP), expected);
        assert!(expected <= last);
        last = expected;
    }
}

#[test]
fn a_connection_that_goes_on_after_a_reset_does_not_time_out_at_once() {
    let seen = after(Proto::TCP, 0, &HANDSHAKE);
    let seen = advance(seen, Proto::TCP, false, RST);
    assert_eq!(timeout(seen, Proto::TCP), TCP_RESET);
    let seen = advance(seen, Proto::TCP, true, ACK);
    assert!(closing(seen));
    assert_eq!(timeout(seen, Proto::TCP), TCP_HALF_CLOSED);
}

#[test]
fn other_protocols_are_established_by_a_reply() {
    for (proto, long) in [
        (Proto::UDP, UDP_ESTABLISHED),
        (Proto::SCTP, SCTP_ESTABLISHED),
        (Proto::ICMP, ICMP),
        (Proto::ICMPV6, ICMP),
    ] {
        let seen = after(proto, 0, &[(true, 0), (true, 0)]);
        assert!(!established(seen));
        assert_eq!(timeout(seen, proto), OTHER_NEW);
        let seen = advance(seen, proto, false, 0);
        assert!(established(seen));
        assert_eq!(timeout(seen, proto), long);
    }
}

#[test]
fn an_entry_expires_one_tick_after_its_timeout() {
    let last = 1000;
    assert!(!expired(0, Proto::UDP, last, last + OTHER_NEW));
    assert!(expired(0, Proto::UDP, last, last + OTHER_NEW + 1));
}

#[test]
fn a_clock_that_runs_back_or_wraps_expires_nothing_early() {
    assert!(!expired(0, Proto::UDP, 1000, 999));
    assert!(!expired(0, Proto::UDP, u32::MAX, 3));
    assert!(expired(0, Proto::UDP, u32::MAX, OTHER_NEW));
}

#[test]
fn a_second_is_rounded_up_to_ticks() {
    assert_eq!(seconds(1), 1);
    assert_eq!(seconds(60), 56);
    assert_eq!(seconds(21_600), 20_117);
}

#[test]
fn a_translated_port_is_given_on_by_what_is_over_for_its_ends_and_by_nothing_else() {
    const LONG: Ticks = 1000;
    let replied = seen::REPLY | seen::ESTABLISHED;
    for (proto, seen, soon, late) in [
        (Proto::UDP, 0, false, true),
        (Proto::UDP, replied, false, true),
        (Proto::UDP, replied | seen::ASSURED, false, false),
        (Proto::TCP, 0, false, true),
        (Proto::TCP, replied, false, false),
        (Proto::TCP, replied | seen::FIN_INITIATOR, false, false),
        (Proto::TCP, replied | FIN_BOTH, true, true),
        (Proto::TCP, replied | seen::RST, true, true),
        (
            Proto::TCP,
            replied | seen::RST | seen::AFTER_RST,
            false,
            false,
        ),
    ] {
        assert!(!spent(seen, proto, 0));
        assert_eq!(spent(seen, proto, 4), soon, "{proto:?} {seen:#x}");
        assert_eq!(spent(seen, proto, LONG), late, "{proto:?} {seen:#x}");
        assert!(!spent(seen, proto, u32::MAX), "a clock that runs back");
    }
}
