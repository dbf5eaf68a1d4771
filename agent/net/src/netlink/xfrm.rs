//! IPsec: how many policies the kernel has (`XFRM_MSG_GETSPDINFO`, linux/xfrm.h).

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable,
    NlasIterator,
};
use netlink_sys::protocols::NETLINK_XFRM;

use super::connection::Connection;
use crate::error::{Error, Result};

/// The multicast group of changed policies (`XFRMNLGRP_POLICY`), as a bit of what a socket is bound to.
pub const POLICY_CHANGES: u32 = 1 << 3;

const NEW_SPD_INFO: u16 = 0x24;
const GET_SPD_INFO: u16 = 0x25;
/// `XFRMA_SPD_INFO`: `struct xfrmu_spdinfo`.
const COUNTS: u16 = 1;
/// What an answer begins with: flags.
const FLAGS: usize = 4;

/// A question, or its answer.
#[derive(Debug)]
struct SpdInfo {
    /// Policies for what comes in, goes out and is forwarded; those of single sockets do not count.
    policies: u64,
}

impl NetlinkSerializable for SpdInfo {
    fn message_type(&self) -> u16 {
        GET_SPD_INFO
    }

    fn buffer_len(&self) -> usize {
        FLAGS
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

impl NetlinkDeserializable for SpdInfo {
    type Error = io::Error;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> io::Result<Self> {
        let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        if header.message_type != NEW_SPD_INFO {
            return Err(broken("not what was asked for"));
        }
        let attributes = payload.get(FLAGS..).unwrap_or_default();
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute.map_err(|e| broken(&e.to_string()))?;
            if attribute.kind() == COUNTS {
                let words = attribute.value().chunks_exact(4).take(3);
                let counts = words.map(|word| word.try_into().map_or(0, u32::from_ne_bytes));
                let policies = counts.map(u64::from).sum();
                return Ok(Self { policies });
            }
        }
        Err(broken("no counts in it"))
    }
}

/// How many IPsec policies there are in the calling thread's namespace; none in a kernel without IPsec.
///
/// # Errors
/// The kernel's.
pub fn ipsec_policies() -> Result<u64> {
    let connection = match Connection::open(NETLINK_XFRM) {
        Ok(connection) => connection,
        Err(e) if e.errno() == Some(libc::EPROTONOSUPPORT) => return Ok(0),
        Err(e) => return Err(e),
    };
    let (call, object) = ("XFRM_MSG_GETSPDINFO", "IPsec policies");
    let mut inner = connection.lock();
    inner.send(
        call,
        object,
        SpdInfo { policies: 0 },
        NLM_F_REQUEST | NLM_F_ACK,
    )?;
    let answer = inner.receive::<SpdInfo>(call, object)?;
    let info = answer.messages.first().ok_or_else(|| Error::Missing {
        object: object.to_owned(),
    })?;
    Ok(info.policies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_of_all_directions_count_and_those_of_sockets_do_not() {
        let mut header = NetlinkHeader::default();
        header.message_type = NEW_SPD_INFO;
        let mut payload = vec![0; FLAGS];
        // An attribute that is not asked for, and the one that is.
        payload.extend([12u16.to_ne_bytes(), 2u16.to_ne_bytes()].concat());
        payload.extend([9; 8]);
        payload.extend([28u16.to_ne_bytes(), COUNTS.to_ne_bytes()].concat());
        for count in [1u32, 2, 4, 8, 16, 32] {
            payload.extend(count.to_ne_bytes());
        }
        assert_eq!(SpdInfo::deserialize(&header, &payload).unwrap().policies, 7);
        for length in 0..20 {
            let cut = SpdInfo::deserialize(&header, &payload[..length]);
            assert!(cut.is_err(), "{length}");
        }
        header.message_type = 0x13;
        assert!(SpdInfo::deserialize(&header, &payload).is_err());
    }
}
