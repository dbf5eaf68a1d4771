//! Finds our clsact filters on devices, by the names of their programs: on kernels without tcx they
//! have no pin that would tell. See [`super::attach`].

use std::fmt;

use aya::programs::{TcAttachType, tc::SchedClassifierLink};
use weir_net::Netlink;

use super::{
    Error,
    attach::{HANDLE, PRIORITY},
};

/// Programs that we attach to devices other than pods'.
const PROGRAMS: [&str; 2] = ["from_uplink", "to_uplink"];

/// One of our filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    device: String,
    program: String,
    ingress: bool,
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.program, self.device)
    }
}

/// Our filters on a device.
///
/// # Errors
/// Netlink's.
pub fn find(device: &str, index: u32) -> weir_net::Result<Vec<Filter>> {
    let netlink = Netlink::open()?;
    let mut found = Vec::new();
    for ingress in [true, false] {
        for filter in netlink.bpf_filters(index, ingress)? {
            let ours = filter.priority == PRIORITY
                && filter.handle == 1
                && PROGRAMS.contains(&filter.name.as_str());
            if ours {
                found.push(Filter {
                    device: device.to_owned(),
                    program: filter.name,
                    ingress,
                });
            }
        }
    }
    Ok(found)
}

impl Filter {
    /// Takes it off. The qdisc stays: it may be somebody else's, and without filters it does nothing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&self) -> Result<(), Error> {
        let kind = if self.ingress {
            TcAttachType::Ingress
        } else {
            TcAttachType::Egress
        };
        match SchedClassifierLink::attached(&self.device, kind, PRIORITY, HANDLE, None) {
            // Dropping a link detaches it.
            Ok(link) => drop(link),
            Err(e) => {
                return Err(Error::Attach {
                    program: self.program.clone(),
                    target: format!("device {}", self.device),
                    message: e.to_string(),
                });
            }
        }
        Ok(())
    }
}
