//! The keys around duties for the whole cluster.

use weir_net::IpNetwork;

use super::{ConfigError, Layers};
use crate::compile::node_cidr::{Pool, Pools};

/// `cluster-cidr`, cut as the two `node-cidr-mask-size` say.
pub(super) fn pools(layers: &Layers) -> Result<Pools, ConfigError> {
    let v4 = layers.require("node-cidr-mask-size", |text| parse_bits(text, 32))?;
    let v6 = layers.require("node-cidr-mask-size-ipv6", |text| parse_bits(text, 128))?;
    let pools = layers.optional("cluster-cidr", |text| parse_pools(text, v4, v6))?;
    Ok(pools.unwrap_or_default())
}

fn parse_bits(text: &str, most: u8) -> Result<u8, String> {
    let bits = text.parse().ok().filter(|bits| *bits <= most);
    bits.ok_or_else(|| format!("expected a prefix length, 0 to {most}"))
}

fn parse_pools(text: &str, v4: u8, v6: u8) -> Result<Pools, String> {
    let parts = text.split(',').map(str::trim).filter(|s| !s.is_empty());
    let pools = parts.map(|part| {
        let cidr: IpNetwork = part
            .parse()
            .ok()
            .filter(|_| part.contains('/'))
            .ok_or_else(|| {
                format!("{part:?} is no CIDR: give one of each family at most, such as 10.244.0.0/16,fd44::/56")
            })?;
        Pool::new(cidr, if cidr.is_ipv4() { v4 } else { v6 })
    });
    Pools::new(pools.collect::<Result<_, _>>()?)
}

/// A DNS label (RFC 1123), as names of namespaces are.
pub(super) fn parse_namespace(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_inner = |byte: u8| is_plain(byte) || byte == b'-';
    let ends = [text.bytes().next(), text.bytes().last()];
    let is_label = text.len() < 64
        && text.bytes().all(is_inner)
        && ends.iter().all(|end| end.is_some_and(is_plain));
    match is_label {
        true => Ok(text.to_owned()),
        false => Err("expected the name of a namespace".into()),
    }
}
