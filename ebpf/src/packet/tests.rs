use weir_abi::PortBe;

use super::*;

impl Bytes for &[u8] {
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let at = offset as usize;
        self.get(at..at + N)?.try_into().ok()
    }
    fn len(&self) -> u32 {
        <[u8]>::len(self) as u32
    }
}

/// An IPv4 frame; `options` are whole words.
fn v4(proto: u8, fragment: u16, options: &[u8], l4: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut frame = vec![0; 12];
    frame.extend([8, 0, 0x40 | (header / 4) as u8, 0]);
    frame.extend(((header + l4.len()) as u16).to_be_bytes());
    frame.extend([0, 1]);
    frame.extend(fragment.to_be_bytes());
    frame.extend([64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(options);
    frame.extend(l4);
    frame
}

/// An IPv6 frame with extension headers already laid out.
fn v6(next: u8, extensions: &[u8], l4: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(((extensions.len() + l4.len()) as u16).to_be_bytes());
    frame.extend([next, 64]);
    frame.extend([0xfd; 16]);
    frame.extend([0xfe; 16]);
    frame.extend(extensions);
    frame.extend(l4);
    frame
}

const UDP: [u8; 12] = [0, 7, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4];

fn tcp_header(flags: u8) -> [u8; 20] {
    let mut h = [0; 20];
    h[..4].copy_from_slice(&[0x12, 0x34, 0, 80]);
    (h[12], h[13]) = (0x50, flags);
    h
}

#[track_caller]
fn parsed(frame: &[u8]) -> Packet {
    let mut packet = Packet::default();
    assert_eq!(parse(&frame, &mut packet), Frame::Ip);
    packet
}

#[track_caller]
fn malformed(frame: &[u8]) {
    assert_eq!(parse(&frame, &mut Packet::default()), Frame::Malformed);
}

#[test]
fn ports_are_found_behind_ipv4_options() {
    for words in [0, 1, 5, 10] {
        let p = parsed(&v4(17, 0, &vec![1; words * 4], &UDP));
        assert_eq!((p.tuple.sport.get(), p.tuple.dport.get()), (7, 53));
        assert_eq!(p.l4, 34 + 4 * words as u32);
        assert_eq!((p.family, p.ttl, p.kind), (4, 64, Kind::Flow));
    }
}

#[test]
fn ports_are_found_behind_each_extension_header() {
    let auth = [17, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
    for (next, extension) in [
        (0u8, &[17, 0, 1, 4, 0, 0, 0, 0][..]),
        (60, &[17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (43, &[17, 0, 3, 0, 0, 0, 0, 0]),
        (44, &[17, 0, 0, 0, 0, 0, 0, 9]),
        (51, &auth),
    ] {
        let p = parsed(&v6(next, extension, &UDP));
        assert_eq!(
            (p.tuple.sport.get(), p.tuple.dport.get()),
            (7, 53),
            "header {next}"
        );
        assert_eq!((p.kind, p.fragmented), (Kind::Flow, 0));
    }
}

#[test]
fn a_packet_that_is_yet_to_be_routed_on_is_malformed() {
    malformed(&v6(43, &[17, 0, 3, 1, 0, 0, 0, 0], &UDP));
}

#[test]
fn eight_extension_headers_are_read_and_nine_are_not() {
    let chain = |n: usize| -> Vec<u8> {
        (0..n)
            .flat_map(|i| [if i + 1 == n { 17 } else { 60 }, 0, 1, 4, 0, 0, 0, 0])
            .collect()
    };
    assert_eq!(parsed(&v6(60, &chain(8), &UDP)).tuple.dport.get(), 53);
    malformed(&v6(60, &chain(9), &UDP));
}

#[test]
fn an_extension_header_longer_than_the_packet_is_malformed() {
    malformed(&v6(60, &[17, 200, 1, 4, 0, 0, 0, 0], &UDP));
}

#[test]
fn fragments_are_told_apart_in_both_families() {
    for (frame, kind, fragmented) in [
        (v4(17, 0x2000, &[], &UDP), Kind::Flow, 1),
        (v4(17, 0x2005, &[], &UDP), Kind::LaterFragment, 1),
        (v4(17, 0x0005, &[], &[1]), Kind::LaterFragment, 0),
        (v4(17, 0x4000, &[], &UDP), Kind::Flow, 0),
        (v6(44, &[17, 0, 0, 1, 0, 0, 0, 9], &UDP), Kind::Flow, 1),
        (
            v6(44, &[17, 0, 0, 9, 0, 0, 0, 9], &UDP),
            Kind::LaterFragment,
            1,
        ),
        (
            v6(44, &[17, 0, 1, 0, 0, 0, 0, 9], &[1]),
            Kind::LaterFragment,
            0,
        ),
    ] {
        let p = parsed(&frame);
        assert_eq!(
            (p.kind, p.fragmented, p.proto),
            (kind, fragmented, Proto::UDP)
        );
        if kind == Kind::LaterFragment {
            assert_eq!((p.tuple.sport, p.tuple.dport), (PortBe(0), PortBe(0)));
        }
    }
}

#[test]
fn a_fragment_says_which_datagrams_it_is_and_where_in_it_it_lies() {
    let facts = |frame: &[u8]| {
        let p = parsed(frame);
        (p.fragment_id, p.fragment_offset, p.fragment_start)
    };
    let mut first = v4(17, 0x2000, &[1; 4], &UDP);
    first[18..20].copy_from_slice(&[0x12, 0x34]);
    assert_eq!(facts(&first), (0x1234, 0, 38));
    let mut later = v4(17, 0x2005, &[], &UDP);
    later[18..20].copy_from_slice(&[0x12, 0x34]);
    assert_eq!(facts(&later), (0x1234, 40, 34));
    let header = |offset| [17, 0, 0, offset, 0x12, 0x34, 0x56, 0x78];
    assert_eq!(facts(&v6(44, &header(1), &UDP)), (0x1234_5678, 0, 62));
    assert_eq!(facts(&v6(44, &header(40), &UDP)), (0x1234_5678, 40, 62));
    // What stands before the header is in every fragment, what stands behind it in the first alone.
    let before = [[44, 0, 1, 4, 0, 0, 0, 0], header(1)].concat();
    assert_eq!(facts(&v6(60, &before, &UDP)).2, 70);
    let behind = [
        [60, 0, 0, 1, 0x12, 0x34, 0x56, 0x78],
        [17, 0, 1, 4, 0, 0, 0, 0],
    ];
    assert_eq!(facts(&v6(44, &behind.concat(), &UDP)).2, 62);
}

#[test]
fn a_fragment_of_a_fragment_is_malformed() {
    for (outer, inner) in [(1, 0), (0, 8), (0, 0), (1, 8)] {
        let headers = [[44, 0, 0, outer, 0, 0, 0, 9], [17, 0, 0, inner, 0, 0, 0, 9]];
        malformed(&v6(44, &headers.concat(), &UDP));
    }
}

#[test]
fn a_later_fragment_may_not_lie_over_the_header_of_tcp() {
    for (units, fits) in [(1u16, false), (2, false), (3, true)] {
        for frame in [
            v4(6, units, &[], &UDP),
            v6(44, &[6, 0, 0, (units * 8) as u8, 0, 0, 0, 9], &UDP),
        ] {
            if fits {
                assert_eq!(parsed(&frame).kind, Kind::LaterFragment);
            } else {
                malformed(&frame);
            }
        }
    }
}

#[test]
fn an_echo_request_and_its_reply_have_tuples_that_mirror_each_other() {
    for (frame, request) in [
        (v4(1, 0, &[], &[8, 0, 0, 0, 0x12, 0x34, 0, 1]), true),
        (v4(1, 0, &[], &[0, 0, 0, 0, 0x12, 0x34, 0, 1]), false),
        (v6(58, &[], &[128, 0, 0, 0, 0x12, 0x34, 0, 1]), true),
        (v6(58, &[], &[129, 0, 0, 0, 0x12, 0x34, 0, 1]), false),
    ] {
        let p = parsed(&frame);
        let ports = (p.tuple.sport.get(), p.tuple.dport.get());
        assert_eq!(ports, if request { (0x1234, 0) } else { (0, 0x1234) });
        assert_eq!((p.is_echo(true), p.kind), (request, Kind::Flow));
    }
}

#[test]
fn icmp_errors_are_told_from_other_messages() {
    for (kind, error) in [
        (3, true),
        (4, true),
        (5, false),
        (9, false),
        (11, true),
        (12, true),
        (13, false),
    ] {
        let p = parsed(&v4(1, 0, &[], &[kind, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(p.kind == Kind::IcmpError, error, "ICMP {kind}");
    }
    for (kind, error) in [
        (1, true),
        (2, true),
        (4, true),
        (127, true),
        (130, false),
        (135, false),
    ] {
        let p = parsed(&v6(58, &[], &[kind, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(p.kind == Kind::IcmpError, error, "ICMPv6 {kind}");
    }
}

#[test]
fn icmp_of_the_other_family_is_malformed() {
    malformed(&v4(58, 0, &[], &[128, 0, 0, 0, 0, 0, 0, 0]));
    malformed(&v6(1, &[], &[8, 0, 0, 0, 0, 0, 0, 0]));
}

#[test]
fn a_protocol_without_ports_has_none() {
    for frame in [
        v4(47, 0, &[], &[1, 2, 3, 4]),
        v6(47, &[], &[1, 2, 3, 4]),
        v6(59, &[], &[]),
    ] {
        let p = parsed(&frame);
        assert_eq!(
            (p.tuple.sport, p.tuple.dport, p.kind),
            (PortBe(0), PortBe(0), Kind::Flow)
        );
    }
}

#[test]
fn only_a_plain_syn_and_an_init_open_a_connection() {
    use tcp::{ACK, FIN, RST, SYN};
    for (flags, opens) in [
        (SYN, true),
        (SYN | ACK, false),
        (SYN | FIN, false),
        (SYN | RST, false),
        (ACK, false),
        (0, false),
    ] {
        assert_eq!(
            parsed(&v4(6, 0, &[], &tcp_header(flags))).opens(),
            opens,
            "flags {flags:#x}"
        );
    }
    for (chunk, opens) in [(1, true), (0, false), (2, false)] {
        let mut sctp = [0; 16];
        sctp[12] = chunk;
        assert_eq!(parsed(&v6(132, &[], &sctp)).opens(), opens, "chunk {chunk}");
    }
}

#[test]
fn lengths_that_contradict_each_other_are_malformed() {
    let set = |mut frame: Vec<u8>, at: usize, value: u8| {
        frame[at] = value;
        frame
    };
    malformed(&set(v4(17, 0, &[], &UDP), 14, 0x44)); // header of 16 bytes
    malformed(&set(v4(17, 0, &[], &UDP), 14, 0x4f)); // header longer than the packet
    malformed(&set(v4(17, 0, &[], &UDP), 14, 0x65)); // version 6
    malformed(&set(v4(17, 0, &[], &UDP), 17, 33)); // one byte more than there is
    malformed(&set(v4(17, 0, &[], &UDP), 17, 19)); // less than its header
    malformed(&set(v4(17, 0, &[], &UDP), 34 + 5, 13)); // UDP longer than the packet
    malformed(&set(v4(17, 0, &[], &UDP), 34 + 5, 7)); // UDP shorter than its header
    malformed(&set(v6(17, &[], &UDP), 14, 0x40)); // version 4
    malformed(&set(v6(17, &[], &UDP), 19, 13)); // one byte more than there is
    malformed(&set(v4(6, 0, &[], &tcp_header(2)), 34 + 12, 0x40)); // TCP header of 16 bytes
    malformed(&set(v4(6, 0, &[], &tcp_header(2)), 34 + 12, 0x60)); // and of 24
}

#[test]
fn what_pads_the_frame_is_not_the_packets() {
    // 20 bytes of IPv4 that claim TCP, and a TCP header in the padding.
    let mut frame = v4(6, 0, &[], &tcp_header(2));
    frame[17] = 20;
    malformed(&frame);
    let mut frame = v6(17, &[], &UDP);
    frame[19] = 4;
    malformed(&frame);
}

#[test]
fn every_truncation_of_every_header_is_malformed() {
    let frames = [
        v4(6, 0, &[], &tcp_header(2)),
        v4(17, 0, &[1; 8], &UDP),
        v4(1, 0, &[], &[8, 0, 0, 0, 0, 1, 0, 1]),
        v4(132, 0, &[], &[0; 16]),
        v6(6, &[], &tcp_header(2)),
        v6(
            60,
            &[44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 9],
            &UDP,
        ),
        v6(
            51,
            &[58, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2],
            &[128, 0, 0, 0, 0, 1, 0, 1],
        ),
    ];
    for frame in &frames {
        parsed(frame);
        for len in 0..frame.len() {
            malformed(&frame[..len]);
        }
    }
}

#[test]
fn a_quoted_packet_needs_its_first_eight_transport_bytes_only() {
    let tcp = tcp_header(2);
    for (family, quoted) in [(4, v4(6, 0, &[], &tcp)), (6, v6(6, &[], &tcp))] {
        let full = &quoted[14..];
        let header = if family == 4 { 20 } else { 40 };
        for (keep, ok) in [(header + 8, true), (header + 7, false), (header - 1, false)] {
            let mut bytes = vec![0; 42];
            bytes.extend(&full[..keep]);
            let outer = Packet {
                l4: 34,
                end: bytes.len() as u32,
                family,
                ..Packet::default()
            };
            let mut inner = Packet::default();
            assert_eq!(
                parse_quoted(&&bytes[..], &outer, &mut inner),
                ok,
                "{family} {keep}"
            );
            if ok {
                assert_eq!(
                    (inner.tuple.sport.get(), inner.tuple.dport.get()),
                    (0x1234, 80)
                );
                assert_eq!(inner.l3, 42);
            }
        }
    }
}
