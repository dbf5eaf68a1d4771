use super::*;
use weir_ebpf::packet::{self as program, Frame};

const MACS: Macs = Macs {
    destination: [2, 0, 0, 0, 0, 1],
    source: [2, 0, 0, 0, 0, 2],
};

fn flow(protocol: Proto, v4: bool) -> Flow {
    let (source, destination) = if v4 {
        ("10.1.0.7", "10.2.0.9")
    } else {
        ("fd00:1::7", "fd00:2::9")
    };
    Flow {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        protocol,
        source_port: 61_000,
        port: 5432,
    }
}

const ALL: [(Proto, bool); 8] = [
    (Proto::TCP, true),
    (Proto::UDP, true),
    (Proto::SCTP, true),
    (Proto::ICMP, true),
    (Proto::TCP, false),
    (Proto::UDP, false),
    (Proto::SCTP, false),
    (Proto::ICMPV6, false),
];

struct Frames(Vec<u8>);

impl program::Bytes for Frames {
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let at = offset as usize;
        self.0.get(at..at + N)?.try_into().ok()
    }
    fn len(&self) -> u32 {
        self.0.len() as u32
    }
}

/// The sum over a pseudo header and what it covers is zero.
fn verifies(frame: &[u8], v4: bool, protocol: Proto) {
    let (addresses, l4) = if v4 {
        assert_eq!(checksum(&frame[14..34]), 0, "the IPv4 header's checksum");
        (&frame[26..34], &frame[34..])
    } else {
        (&frame[22..54], &frame[54..])
    };
    if protocol == Proto::SCTP {
        let mut zeroed = l4.to_vec();
        zeroed[8..12].fill(0);
        assert_eq!(crc32c(&zeroed).to_le_bytes(), l4[8..12]);
        return;
    }
    let mut covered = Vec::new();
    if protocol != Proto::ICMP {
        covered.extend(addresses);
        covered.extend((l4.len() as u32).to_be_bytes());
        covered.extend([0, 0, 0, protocol.0]);
    }
    covered.extend(l4);
    assert_eq!(checksum(&covered), 0, "{protocol:?} v4 {v4}");
}

#[test]
fn the_programs_parser_reads_every_packet_as_what_it_was_made_of_and_its_checksums_are_right() {
    for (protocol, v4) in ALL {
        let flow = flow(protocol, v4);
        let frame = first(&flow, MACS).unwrap();
        assert_eq!(frame[..12], [MACS.destination, MACS.source].concat());
        verifies(&frame, v4, protocol);
        let mut packet = program::Packet::default();
        let kind = program::parse(&Frames(frame), &mut packet);
        assert!(matches!(kind, Frame::Ip), "{protocol:?} v4 {v4}");
        let tuple = packet.tuple;
        assert_eq!(
            (tuple.src.to_ip(), tuple.dst.to_ip()),
            (flow.source, flow.destination)
        );
        assert_eq!(
            (packet.proto, packet.family),
            (protocol, if v4 { 4 } else { 6 })
        );
        assert_eq!(tuple.sport.get(), 61_000);
        if !matches!(protocol, Proto::ICMP | Proto::ICMPV6) {
            assert_eq!(tuple.dport.get(), 5432);
        }
        assert!(packet.opens() && packet.ttl > 1);
    }
}

#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_all_ones() {
    let frames = (0..=u16::MAX).map(|source_port| {
        let flow = Flow {
            source_port,
            ..flow(Proto::UDP, true)
        };
        first(&flow, MACS).unwrap()
    });
    let sums: Vec<_> = frames
        .map(|frame| u16::from_be_bytes([frame[40], frame[41]]))
        .collect();
    assert!(sums.contains(&0xffff) && !sums.contains(&0));
}

#[test]
fn crc32c_is_that_of_rfc_3720() {
    // Appendix B.4: 32 bytes of zeros, of ones, rising.
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
}

#[test]
fn what_cannot_be_crafted_is_refused_by_name() {
    let mixed = Flow {
        destination: "fd00::1".parse().unwrap(),
        ..flow(Proto::TCP, true)
    };
    assert!(first(&mixed, MACS).unwrap_err().contains("two families"));
    for (protocol, v4) in [(Proto::ICMPV6, true), (Proto::ICMP, false)] {
        let error = first(&flow(protocol, v4), MACS).unwrap_err();
        assert!(error.contains("other family's ICMP"), "{error}");
    }
    let error = first(&flow(Proto(47), true), MACS).unwrap_err();
    assert!(error.contains("protocol 47"), "{error}");
}
