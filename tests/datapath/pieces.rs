//! Datagrams in fragments.

use weir_abi::{Addr, Proto};

use crate::packets::*;

/// A UDP datagram of some length.
pub fn datagram(src: Addr, sport: u16, dst: Addr, dport: u16) -> Packet {
    let payload: Vec<u8> = (0..500u16).map(|i| (i * 7) as u8).collect();
    Packet::udp(&tuple(src, sport, dst, dport), &payload)
}

/// The frames of a packet that is cut into pieces of `size` bytes, a multiple of eight.
pub fn pieces(whole: &Packet, id: u32, size: usize) -> Vec<Vec<u8>> {
    let v4 = whole.src.is_v4();
    let header = if v4 { 20 } else { 40 };
    let l4 = whole.ip()[header..].to_vec();
    let count = l4.len().div_ceil(size);
    let piece = |(i, part): (usize, &[u8])| {
        let (offset, more) = ((i * size) as u16, i + 1 < count);
        let mut piece = whole.clone();
        piece.l4 = part.to_vec();
        piece.no_checksum = true;
        if !v4 {
            let [a, b] = (offset | u16::from(more)).to_be_bytes();
            piece.first_extension = Some(44);
            piece.options = vec![whole.proto.0, 0, a, b];
            piece.options.extend(id.to_be_bytes());
            return piece.frame();
        }
        piece.fragment = (offset / 8) | (u16::from(more) << 13);
        let mut frame = piece.frame();
        frame[18..20].copy_from_slice(&(id as u16).to_be_bytes());
        frame[24..26].fill(0);
        let sum = checksum(0, &frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    l4.chunks(size).enumerate().map(piece).collect()
}

/// The frame of the packet that a receiver puts together from all its fragments, in order.
#[track_caller]
pub fn join(frames: &[Vec<u8>]) -> Vec<u8> {
    let v4 = frames[0][14] >> 4 == 4;
    let header = if v4 { 34 } else { 54 };
    let mut joined = frames[0][..header].to_vec();
    let mut ends = Vec::new();
    for frame in frames {
        let seen = see_ip(&frame[14..], false);
        ends.push((seen.src, seen.dst, frame[..12].to_vec(), id(frame)));
        joined.extend(&frame[if v4 { header } else { header + 8 }..]);
    }
    assert!(ends.windows(2).all(|pair| pair[0] == pair[1]), "{ends:?}");
    let len = joined.len();
    if v4 {
        joined[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
        joined[20..22].fill(0);
        joined[24..26].fill(0);
        let sum = checksum(0, &joined[14..34]);
        joined[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        assert_eq!(Proto(joined[20]), Proto(44));
        joined[18..20].copy_from_slice(&((len - 54) as u16).to_be_bytes());
        joined[20] = frames[0][54];
    }
    joined
}

fn id(frame: &[u8]) -> Vec<u8> {
    if frame[14] >> 4 == 4 {
        frame[18..20].to_vec()
    } else {
        frame[58..62].to_vec()
    }
}
