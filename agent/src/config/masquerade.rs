//! The keys around pods that reach those outside the cluster.

use weir_net::IpNetwork;

/// From which address pods reach those outside the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Masquerade {
    /// The node's.
    #[default]
    On,
    /// Their own: the network routes it.
    Off,
}

pub(super) fn parse_masquerade(text: &str) -> Result<Masquerade, String> {
    match text {
        "true" => Ok(Masquerade::On),
        "false" => Ok(Masquerade::Off),
        _ => Err("expected true or false".into()),
    }
}

/// CIDRs of both families by comma, with host bits masked.
pub(super) fn parse_cidrs(text: &str) -> Result<Vec<IpNetwork>, String> {
    let parts = text.split(',').map(str::trim).filter(|s| !s.is_empty());
    let parse = |part: &str| {
        let cidr = part.parse().ok().filter(|_| part.contains('/'));
        let masked = cidr.and_then(|c: IpNetwork| IpNetwork::new(c.network(), c.prefix()).ok());
        masked.ok_or_else(|| {
            format!("{part:?} is no CIDR: give CIDRs by comma such as 10.0.0.0/8,2001:db8::/32")
        })
    };
    parts.map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masquerade_is_true_or_false() {
        assert_eq!(parse_masquerade("true"), Ok(Masquerade::On));
        assert_eq!(parse_masquerade("false"), Ok(Masquerade::Off));
        assert!(parse_masquerade("yes").unwrap_err().contains("true"));
    }

    #[test]
    fn non_masquerade_cidrs_are_of_both_families_and_lose_their_host_bits() {
        let cidrs = parse_cidrs("10.1.2.3/8, 2001:db8::1/32").unwrap();
        let texts: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.0.0.0/8", "2001:db8::/32"]);
        assert_eq!(parse_cidrs(""), Ok(Vec::new()));
        for bad in ["10.0.0.1", "x/8", "10.0.0.0/33"] {
            assert!(parse_cidrs(bad).unwrap_err().contains(bad), "{bad}");
        }
    }
}
