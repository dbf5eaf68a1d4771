//! What kube-proxy 1.36 writes for ClusterIP Services, as text for `nft -f` and
//! `iptables-restore`: the same chains, sets and maps in the same order, IPv4.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::world::{PORT, TARGET, World};

/// What kube-proxy takes for the cluster's pods (`--cluster-cidr`): no masquerading from there.
pub const CLUSTER_CIDR: &str = "10.244.0.0/16";

/// The nftables proxier's table without Services.
const NFT_BASE: &str = r#"
add table ip kube-proxy { comment "rules for kube-proxy" ; }
add chain ip kube-proxy cluster-ips-check
add chain ip kube-proxy filter-prerouting { type filter hook prerouting priority -110 ; }
add chain ip kube-proxy filter-forward { type filter hook forward priority -110 ; }
add chain ip kube-proxy filter-input { type filter hook input priority -110 ; }
add chain ip kube-proxy filter-output { type filter hook output priority -110 ; }
add chain ip kube-proxy filter-output-post-dnat { type filter hook output priority -90 ; }
add chain ip kube-proxy firewall-check
add chain ip kube-proxy mark-for-masquerade
add chain ip kube-proxy masquerading
add chain ip kube-proxy nat-output { type nat hook output priority -100 ; }
add chain ip kube-proxy nat-postrouting { type nat hook postrouting priority 100 ; }
add chain ip kube-proxy nat-prerouting { type nat hook prerouting priority -100 ; }
add chain ip kube-proxy nodeport-endpoints-check
add chain ip kube-proxy reject-chain
add chain ip kube-proxy services
add chain ip kube-proxy service-endpoints-check
add set ip kube-proxy cluster-ips { type ipv4_addr ; }
add set ip kube-proxy nodeport-ips { type ipv4_addr ; }
add map ip kube-proxy firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict ; }
add map ip kube-proxy no-endpoint-nodeports { type inet_proto . inet_service : verdict ; }
add map ip kube-proxy no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict ; }
add map ip kube-proxy service-ips { type ipv4_addr . inet_proto . inet_service : verdict ; }
add map ip kube-proxy service-nodeports { type inet_proto . inet_service : verdict ; }
add rule ip kube-proxy cluster-ips-check ip daddr @cluster-ips reject
add rule ip kube-proxy filter-prerouting ct state new jump firewall-check
add rule ip kube-proxy filter-forward ct state new jump service-endpoints-check
add rule ip kube-proxy filter-forward ct state new jump cluster-ips-check
add rule ip kube-proxy filter-input ct state new jump nodeport-endpoints-check
add rule ip kube-proxy filter-input ct state new jump service-endpoints-check
add rule ip kube-proxy filter-output ct state new jump service-endpoints-check
add rule ip kube-proxy filter-output ct state new jump firewall-check
add rule ip kube-proxy filter-output-post-dnat ct state new jump cluster-ips-check
add rule ip kube-proxy firewall-check ip daddr . meta l4proto . th dport vmap @firewall-ips
add rule ip kube-proxy mark-for-masquerade mark set mark or 0x4000
add rule ip kube-proxy masquerading mark and 0x4000 == 0 return
add rule ip kube-proxy masquerading mark set mark xor 0x4000
add rule ip kube-proxy masquerading masquerade fully-random
add rule ip kube-proxy nat-output jump services
add rule ip kube-proxy nat-postrouting jump masquerading
add rule ip kube-proxy nat-prerouting jump services
add rule ip kube-proxy nodeport-endpoints-check ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
add rule ip kube-proxy reject-chain reject
add rule ip kube-proxy services ip daddr . meta l4proto . th dport vmap @service-ips
add rule ip kube-proxy services ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
add rule ip kube-proxy service-endpoints-check ip daddr . meta l4proto . th dport vmap @no-endpoint-services
"#;

fn service_chain(world: &World, i: usize) -> String {
    let (namespace, name) = world.name(i);
    format!("service-{i:08}-{namespace}/{name}/tcp/http")
}

fn endpoint_chain(world: &World, i: usize, ip: Ipv4Addr) -> String {
    let (namespace, name) = world.name(i);
    let hash = u32::from(ip);
    format!("endpoint-{hash:08X}-{namespace}/{name}/tcp/http__{ip}/{TARGET}")
}

/// The rules of one Service's own chain.
fn nft_service(out: &mut String, world: &World, i: usize, ips: &[Ipv4Addr]) -> std::fmt::Result {
    let (vip, chain) = (world.cluster_ip(i), service_chain(world, i));
    let table = "ip kube-proxy";
    writeln!(
        out,
        "add rule {table} {chain} ip daddr {vip} tcp dport {PORT} ip saddr != {CLUSTER_CIDR} jump mark-for-masquerade"
    )?;
    let gotos: Vec<String> = ips
        .iter()
        .enumerate()
        .map(|(n, ip)| format!("{n} : goto {}", endpoint_chain(world, i, *ip)))
        .collect();
    let (count, gotos) = (ips.len(), gotos.join(" , "));
    writeln!(
        out,
        "add rule {table} {chain} numgen random mod {count} vmap {{ {gotos} }}"
    )
}

fn nft_endpoint(out: &mut String, world: &World, i: usize, ip: Ipv4Addr) -> std::fmt::Result {
    let chain = endpoint_chain(world, i, ip);
    let table = "ip kube-proxy";
    writeln!(out, "add chain {table} {chain}")?;
    writeln!(
        out,
        "add rule {table} {chain} ip saddr {ip} jump mark-for-masquerade"
    )?;
    writeln!(
        out,
        "add rule {table} {chain} meta l4proto tcp dnat to {ip}:{TARGET}"
    )
}

/// Everything, as the first transaction after a start.
pub fn nftables(world: &World) -> Result<String, std::fmt::Error> {
    let mut out = NFT_BASE.to_owned();
    for i in 0..world.services {
        let (vip, chain, ips) = (
            world.cluster_ip(i),
            service_chain(world, i),
            world.endpoints(i, 0),
        );
        writeln!(out, "add chain ip kube-proxy {chain}")?;
        for ip in &ips {
            nft_endpoint(&mut out, world, i, *ip)?;
        }
        nft_service(&mut out, world, i, &ips)?;
        writeln!(out, "add element ip kube-proxy cluster-ips {{ {vip} }}")?;
        writeln!(
            out,
            "add element ip kube-proxy service-ips {{ {vip} . tcp . {PORT} : goto {chain} }}"
        )?;
    }
    Ok(out)
}

/// One endpoint of one Service gives way to another: the transaction of that sync.
pub fn nftables_change(world: &World, i: usize, version: usize) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let (old, new) = (world.endpoints(i, version), world.endpoints(i, version + 1));
    let chain = service_chain(world, i);
    writeln!(out, "flush chain ip kube-proxy {chain}")?;
    for ip in new.iter().filter(|ip| !old.contains(ip)) {
        nft_endpoint(&mut out, world, i, *ip)?;
    }
    nft_service(&mut out, world, i, &new)?;
    for ip in old.iter().filter(|ip| !new.contains(ip)) {
        let gone = endpoint_chain(world, i, *ip);
        writeln!(out, "flush chain ip kube-proxy {gone}")?;
        writeln!(out, "delete chain ip kube-proxy {gone}")?;
    }
    Ok(out)
}

/// The iptables proxier's rules. From 1,000 endpoints on kube-proxy leaves comments out.
pub fn iptables(world: &World) -> Result<String, std::fmt::Error> {
    let mut chains = String::new();
    let mut rules = String::new();
    let large = world.services * world.endpoints > 1000;
    for i in 0..world.services {
        let (namespace, name) = world.name(i);
        let comment = |text: &str| {
            if large {
                String::new()
            } else {
                format!("-m comment --comment \"{namespace}/{name}:http{text}\" ")
            }
        };
        let (vip, svc) = (world.cluster_ip(i), format!("KUBE-SVC-{i:016}"));
        writeln!(chains, ":{svc} - [0:0]")?;
        writeln!(
            rules,
            "-A KUBE-SERVICES {}-m tcp -p tcp -d {vip} --dport {PORT} -j {svc}",
            comment(" cluster IP")
        )?;
        writeln!(
            rules,
            "-A {svc} {}-m tcp -p tcp -d {vip} --dport {PORT} ! -s {CLUSTER_CIDR} -j KUBE-MARK-MASQ",
            comment(" cluster IP")
        )?;
        let ips = world.endpoints(i, 0);
        for (n, ip) in ips.iter().enumerate() {
            let sep = format!("KUBE-SEP-{:016X}", u32::from(*ip));
            let left = ips.len() - n;
            let chance = if left > 1 {
                format!(
                    "-m statistic --mode random --probability {:.10} ",
                    1.0 / left as f64
                )
            } else {
                String::new()
            };
            writeln!(chains, ":{sep} - [0:0]")?;
            let to = comment(&format!(" -> {ip}:{TARGET}"));
            writeln!(rules, "-A {svc} {to}{chance}-j {sep}")?;
            writeln!(rules, "-A {sep} {}-s {ip} -j KUBE-MARK-MASQ", comment(""))?;
            writeln!(
                rules,
                "-A {sep} {}-m tcp -p tcp -j DNAT --to-destination {ip}:{TARGET}",
                comment("")
            )?;
        }
    }
    Ok(format!(
        "{IPT_FILTER}{IPT_NAT}{chains}{IPT_NAT_RULES}{rules}{IPT_NAT_END}"
    ))
}

const IPT_FILTER: &str = "\
*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A FORWARD -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";
const IPT_NAT: &str = "\
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
";
const IPT_NAT_RULES: &str = "\
-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
";
const IPT_NAT_END: &str = "\
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
COMMIT
";

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> World {
        World {
            services: 3,
            endpoints: 2,
            served: None,
        }
    }

    #[test]
    fn every_service_has_an_element_and_every_endpoint_a_chain_that_translates() {
        let text = nftables(&world()).expect("text");
        assert_eq!(
            text.matches("add element ip kube-proxy service-ips")
                .count(),
            3
        );
        assert_eq!(text.matches(" dnat to ").count(), 6);
        assert_eq!(text.matches("numgen random mod 2 vmap").count(), 3);
        let text = iptables(&world()).expect("text");
        assert_eq!(text.matches("-A KUBE-SERVICES -m comment").count(), 3);
        assert_eq!(text.matches("-j DNAT").count(), 6);
        assert_eq!(text.matches("--probability 0.5000000000").count(), 3);
    }

    #[test]
    fn a_change_of_one_endpoint_adds_one_chain_and_deletes_another() {
        let text = nftables_change(&world(), 1, 0).expect("text");
        assert_eq!(text.matches("add chain").count(), 1);
        assert_eq!(text.matches("delete chain").count(), 1);
        assert_eq!(text.matches("numgen").count(), 1);
    }
}
