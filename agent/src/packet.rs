//! Crafted packets: the first one of a flow, as its source would send it. Pure.

use std::net::IpAddr;

use weir_abi::Proto;

/// A flow, as its first packet has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who sends.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// TCP, UDP, SCTP, or the ICMP of the addresses' family.
    pub protocol: Proto,
    /// The source port; the identifier of an ICMP echo.
    pub source_port: u16,
    /// The destination port; without meaning for ICMP.
    pub port: u16,
}

/// A frame's first 12 bytes: to whom, from whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Macs {
    /// Who is to take the frame.
    pub destination: [u8; 6],
    /// Who sends it.
    pub source: [u8; 6],
}

const HOPS: u8 = 64;

/// A TCP SYN, an empty UDP datagram, an SCTP INIT or an ICMP echo request in an Ethernet frame, all
/// checksums right.
///
/// # Errors
/// The addresses are of two families, or the protocol is none of these.
pub fn first(flow: &Flow, macs: Macs) -> Result<Vec<u8>, String> {
    let (source, destination) = match (flow.source, flow.destination) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.octets().to_vec(), b.octets().to_vec()),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.octets().to_vec(), b.octets().to_vec()),
        (a, b) => return Err(format!("{a} and {b} are of two families")),
    };
    let v4 = flow.source.is_ipv4();
    let mut l4 = transport(flow, v4)?;
    let (addresses, length) = ([source, destination].concat(), l4.len() as u16);
    fill_checksum(flow.protocol, &addresses, &mut l4);
    let mut frame = [macs.destination, macs.source].concat();
    if v4 {
        frame.extend([8, 0]);
        let mut header = vec![0x45, 0];
        header.extend((20 + length).to_be_bytes());
        // No identification; must not be fragmented.
        header.extend([0, 0, 0x40, 0, HOPS, flow.protocol.0, 0, 0]);
        header.extend(addresses);
        let sum = checksum(&header).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        frame.extend(header);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([flow.protocol.0, HOPS]);
        frame.extend(addresses);
    }
    frame.extend(l4);
    Ok(frame)
}

/// The transport header, its checksum zero.
fn transport(flow: &Flow, v4: bool) -> Result<Vec<u8>, String> {
    let [a, b] = flow.source_port.to_be_bytes();
    let [c, d] = flow.port.to_be_bytes();
    let mut l4 = vec![a, b, c, d];
    match flow.protocol {
        Proto::TCP => {
            // Sequence 0, five words of header, SYN, a window of 64 KiB.
            l4.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
        }
        Proto::UDP => l4.extend([0, 8, 0, 0]),
        Proto::SCTP => {
            // No tag before an INIT (RFC 9260 §8.5.1).
            l4.extend([0; 8]);
            // INIT of 20 bytes: tag 1, a window of 64 KiB, one stream each way, TSN 1.
            l4.extend([1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
        }
        Proto::ICMP if v4 => l4 = vec![8, 0, 0, 0, a, b, 0, 1],
        Proto::ICMPV6 if !v4 => l4 = vec![128, 0, 0, 0, a, b, 0, 1],
        Proto::ICMP | Proto::ICMPV6 => {
            return Err(format!(
                "protocol {} is the other family's ICMP",
                flow.protocol.0
            ));
        }
        Proto(other) => {
            return Err(format!(
                "protocol {other}: only TCP (6), UDP (17), SCTP (132) and ICMP (1, 58) can be crafted"
            ));
        }
    }
    Ok(l4)
}

/// Computes the checksum over a header whose field is zero, and fills it in.
fn fill_checksum(protocol: Proto, addresses: &[u8], l4: &mut [u8]) {
    let at = match protocol {
        Proto::SCTP => {
            let crc = crc32c(l4).to_le_bytes();
            l4[8..12].copy_from_slice(&crc);
            return;
        }
        Proto::TCP => 16,
        Proto::UDP => 6,
        _ => 2,
    };
    let mut covered = Vec::new();
    if protocol != Proto::ICMP {
        covered.extend(addresses);
        covered.extend((l4.len() as u32).to_be_bytes());
        covered.extend([0, 0, 0, protocol.0]);
    }
    covered.extend(&*l4);
    let sum = match checksum(&covered) {
        // Zero says that there is none (RFC 768).
        0 if protocol == Proto::UDP => 0xffff,
        sum => sum,
    };
    l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// RFC 9260, appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests;
