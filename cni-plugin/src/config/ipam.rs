//! `ipam`: host-local's `ranges`, served by the plugin itself.

use std::net::IpAddr;

use weir_net::IpNetwork;

use super::{invalid, keys::Object};
use crate::{
    error::{CniError, Code, Result},
    ipam::{Pool, Range},
};

/// The pools that `ipam.ranges` describes; none without it.
pub(super) fn pools(root: &Object<'_>) -> Result<Option<Vec<Pool>>> {
    let Some(ipam) = root.object("ipam")? else {
        return Ok(None);
    };
    if let Some(kind) = ipam
        .string("type")?
        .filter(|kind| !matches!(*kind, "" | "weir-cni"))
    {
        let msg =
            format!("unsupported field: ipam.type {kind:?}; weir-cni allocates addresses itself");
        return Err(CniError::new(Code::UnsupportedField, msg));
    }
    // host-local's older form of one range: to pass it over would hand out other addresses.
    for key in ["subnet", "rangeStart", "rangeEnd"] {
        if let Some(value) = ipam.value(key) {
            let msg = format!("unsupported field: ipam.{key} {value}; write ipam.ranges [[{{…}}]]");
            return Err(CniError::new(Code::UnsupportedField, msg));
        }
    }
    let Some(sets) = ipam.list("ranges")? else {
        return Ok(None);
    };
    let mut parsed = Vec::with_capacity(sets.len());
    for (at, set) in sets.iter().enumerate() {
        let name = format!("ipam.ranges[{at}]");
        let Some(ranges) = set.as_array() else {
            return Err(super::keys::wrong(&name, "a list of ranges", set));
        };
        let range = |(n, value)| range(&Object::of(format!("{name}[{n}]"), value)?);
        parsed.push(
            ranges
                .iter()
                .enumerate()
                .map(range)
                .collect::<Result<Vec<_>>>()?,
        );
    }
    Pool::from_sets(parsed)
        .map(Some)
        .map_err(|reason| invalid(format!("ipam.ranges: {reason}")))
}

fn range(object: &Object<'_>) -> Result<Range> {
    let text = object.string("subnet")?.unwrap_or_default();
    let subnet: Option<IpNetwork> = text.parse().ok().filter(|_| text.contains('/'));
    let name = object.name_of("subnet");
    let subnet = subnet.ok_or_else(|| invalid(format!("{name} {text:?} is not a CIDR")))?;
    let address = |key: &str| -> Result<Option<IpAddr>> {
        let Some(text) = object.string(key)?.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let name = object.name_of(key);
        text.parse()
            .map(Some)
            .map_err(|_| invalid(format!("{name} {text:?} is not an address")))
    };
    let range = Range::new(
        subnet,
        address("rangeStart")?,
        address("rangeEnd")?,
        address("gateway")?,
    );
    range.map_err(|reason| invalid(format!("{name}: {reason}")))
}
