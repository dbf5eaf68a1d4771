//! Address blocks.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use k8s_openapi::api::networking::v1::IPBlock;
use weir_abi::Addr;
use weir_abi::policy::LpmKey;

use crate::hash::ContentHasher;

/// Addresses within `cidr` and in none of `except`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Block {
    pub cidr: LpmKey,
    /// Each smaller than `cidr` and inside it. Sorted, without duplicates.
    pub except: Vec<LpmKey>,
}

impl Block {
    /// The error is (field below the ipBlock, reason).
    pub fn parse(block: &IPBlock) -> Result<Self, (String, String)> {
        let cidr = parse(&block.cidr).map_err(|reason| ("cidr".to_owned(), reason))?;
        let mut except = Vec::new();
        for (i, text) in block.except.iter().flatten().enumerate() {
            let field = || format!("except[{i}]");
            let part = parse(text).map_err(|reason| (field(), reason))?;
            let inside = cidr.prefix() < part.prefix() && holds(&cidr, part.network());
            if !inside {
                return Err((
                    field(),
                    format!("{part} is not a smaller block within {cidr}"),
                ));
            }
            except.push(key(&part));
        }
        except.sort();
        except.dedup();
        Ok(Self {
            cidr: key(&cidr),
            except,
        })
    }

    /// All of one CIDR; the error is the reason.
    pub fn whole(cidr: &str) -> Result<Self, String> {
        Ok(Self {
            cidr: key(&parse(cidr)?),
            except: Vec::new(),
        })
    }

    pub fn hash(&self, hasher: &mut ContentHasher) {
        hasher.number(1 + self.except.len() as u64);
        for prefix in [&self.cidr].into_iter().chain(&self.except) {
            hasher.number(prefix.prefix_len.into());
            hasher.number(prefix.family.into());
            for word in prefix.addr {
                hasher.field(&word.to_ne_bytes());
            }
        }
    }
}

fn holds(cidr: &IpNetwork, addr: IpAddr) -> bool {
    cidr.is_ipv4() == addr.is_ipv4() && cidr.contains(addr)
}

/// Parses `ADDRESS/LENGTH`. Host bits are masked, as the API server lets them stand.
fn parse(text: &str) -> Result<IpNetwork, String> {
    let wrong = |why: &str| format!("{text:?} is not a CIDR: {why}");
    let Some((addr, len)) = text.split_once('/') else {
        return Err(wrong("no prefix length"));
    };
    let addr: IpAddr = addr
        .parse()
        .map_err(|_| wrong("no IP address before the slash"))?;
    let canonical = len
        .parse::<u8>()
        .ok()
        .filter(|number| number.to_string() == len);
    let network = canonical.and_then(|len| IpNetwork::new(addr, len).ok());
    let Some(network) = network else {
        let most = if addr.is_ipv4() { 32 } else { 128 };
        return Err(wrong(&format!("the prefix length is not in 0-{most}")));
    };
    if Addr::from(addr).is_v4() && addr.is_ipv6() {
        return Err(wrong("IPv4-mapped addresses are written as IPv4"));
    }
    IpNetwork::new(network.network(), network.prefix()).map_err(|e| wrong(&e.to_string()))
}

/// The key of a network whose host bits are zero.
fn key(network: &IpNetwork) -> LpmKey {
    LpmKey::prefix(network.network().into(), network.prefix())
}

/// The keys of a node's pod CIDRs; what is no CIDR is in the second list, with the reason.
pub(crate) fn parse_list<'a>(
    list: impl Iterator<Item = &'a String>,
) -> (Vec<LpmKey>, Vec<(usize, String)>) {
    let (mut keys, mut refused) = (Vec::new(), Vec::new());
    for (i, text) in list.enumerate() {
        match parse(text) {
            Ok(network) => keys.push(key(&network)),
            Err(reason) => refused.push((i, reason)),
        }
    }
    (keys, refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(cidr: &str, except: &[&str]) -> Result<Block, (String, String)> {
        Block::parse(&IPBlock {
            cidr: cidr.to_owned(),
            except: Some(except.iter().map(|e| (*e).to_owned()).collect()),
        })
    }

    #[test]
    fn host_bits_are_masked_and_order_does_not_count() {
        let a = block("10.1.2.3/8", &["10.2.0.0/16", "10.1.9.9/16", "10.1.0.0/16"]).unwrap();
        let b = block("10.0.0.0/8", &["10.1.0.0/16", "10.2.0.0/16"]).unwrap();
        assert_eq!(a, b);
        assert_eq!(a.cidr, LpmKey::prefix(Addr::from_v4([10, 0, 0, 0]), 8));
        let v6 = block("fd00::1/16", &["fd00:1::/32"]).unwrap();
        let fd: IpAddr = "fd00::".parse().unwrap();
        assert_eq!(v6.cidr, LpmKey::prefix(fd.into(), 16));
    }

    #[test]
    fn what_the_api_server_refuses_is_refused() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0/8",
            "010.0.0.0/8",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            " 10.0.0.0/8",
            "fd00::/129",
            "fd00::%eth0/64",
            "::ffff:10.0.0.0/104",
            "10.0.0.0/8/8",
            "example.com/8",
        ] {
            assert_eq!(block(text, &[]).unwrap_err().0, "cidr", "{text:?}");
            assert_eq!(
                block("0.0.0.0/0", &["1.0.0.0/8", text]).unwrap_err().0,
                "except[1]"
            );
        }
        for text in [
            "0.0.0.0/0",
            "::/0",
            "192.0.2.1/32",
            "fd00::1/128",
            "::1/128",
        ] {
            block(text, &[]).unwrap();
        }
    }

    #[test]
    fn an_except_is_smaller_than_its_block_and_inside_it() {
        for (cidr, except, good) in [
            ("10.0.0.0/8", "10.255.0.0/9", true),
            ("10.0.0.0/8", "10.0.0.0/9", true),
            ("10.0.0.0/8", "10.0.0.0/8", false),
            ("10.0.0.0/8", "10.0.0.0/7", false),
            ("10.0.0.0/8", "11.0.0.0/9", false),
            ("fd00::/16", "fd00::/17", true),
            ("::/0", "10.0.0.0/8", false),
            ("0.0.0.0/0", "::/8", false),
        ] {
            assert_eq!(block(cidr, &[except]).is_ok(), good, "{cidr} {except}");
        }
    }

    #[test]
    fn the_hash_tells_blocks_apart() {
        let hash = |cidr: &str, except: &[&str]| {
            let mut hasher = ContentHasher::new("test");
            block(cidr, except).unwrap().hash(&mut hasher);
            hasher.finish()
        };
        let all = [
            hash("0.0.0.0/0", &[]),
            hash("::/0", &[]),
            hash("10.0.0.0/8", &[]),
            hash("10.0.0.0/9", &[]),
            hash("11.0.0.0/8", &[]),
            hash("10.0.0.0/8", &["10.0.0.0/9"]),
            hash("10.0.0.0/8", &["10.128.0.0/9"]),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b), "{i}");
        }
    }
}
