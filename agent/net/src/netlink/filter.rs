//! tc filters that are eBPF programs.

use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};

use super::Netlink;
use crate::error::Result;

/// A filter of a device's clsact qdisc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BpfFilter {
    /// The program's name, as it was given when the filter was made.
    pub name: String,
    /// Lower ones run first.
    pub priority: u16,
    /// The filter's number among those of its priority.
    pub handle: u32,
}

impl Netlink {
    /// The eBPF filters at one hook of a device; none where it has no clsact qdisc.
    pub fn bpf_filters(&self, index: u32, ingress: bool) -> Result<Vec<BpfFilter>> {
        let minor = if ingress {
            TcHandle::MIN_INGRESS
        } else {
            TcHandle::MIN_EGRESS
        };
        let mut request = TcMessage::default();
        request.header.index = index.cast_signed();
        request.header.parent = TcHandle {
            major: TcHandle::CLSACT.major,
            minor,
        };
        let object = format!("tc filters of link #{index}");
        let request = RouteNetlinkMessage::GetTrafficFilter(request);
        let found = match self.dump("RTM_GETTFILTER", &object, &request) {
            Ok(messages) => messages,
            Err(error) if error.is_gone() => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(found.into_iter().filter_map(parse).collect())
    }
}

fn parse(message: RouteNetlinkMessage) -> Option<BpfFilter> {
    let RouteNetlinkMessage::NewTrafficFilter(message) = message else {
        return None;
    };
    let options = message.attributes.iter().find_map(|a| match a {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let name = options.iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
        _ => None,
    })?;
    let handle = &message.header.handle;
    Some(BpfFilter {
        name,
        // The upper half of `tcm_info`; the lower one is the protocol.
        priority: (message.header.info >> 16) as u16,
        handle: (u32::from(handle.major) << 16) | u32::from(handle.minor),
    })
}
