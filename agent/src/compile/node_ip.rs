//! `node-ip`: the addresses that the node itself names, in the place of those in its Node object.

use std::net::IpAddr;

use super::route::NodeView;

/// Puts the configured addresses where the object's of their family are; a family without one keeps those.
pub fn put(node: &mut NodeView, configured: &[IpAddr]) {
    let replaced = |ip: &IpAddr| configured.iter().any(|own| own.is_ipv4() == ip.is_ipv4());
    node.internal_ips.retain(|ip| !replaced(ip));
    node.internal_ips.extend(configured);
}

/// What is wrong with the configured addresses, beside the `object`'s InternalIPs and those of the node's own
/// devices. Other nodes know the object only; with an overlay (`packs`) they believe no other address.
pub fn problems(
    name: &str,
    configured: &[IpAddr],
    object: &[IpAddr],
    devices: &[IpAddr],
    packs: bool,
) -> Vec<String> {
    let mut problems = Vec::new();
    for ip in configured {
        if !devices.contains(ip) {
            problems.push(format!(
                "--node-ip {ip}: no device of this node has it: give it to one, or mend --node-ip"
            ));
        }
        let published = object.iter().find(|other| other.is_ipv4() == ip.is_ipv4());
        if let Some(published) = published.filter(|published| packs && *published != ip) {
            problems.push(format!(
                "--node-ip {ip}: Node {name} has the InternalIP {published}, and other nodes' tunnels end there: give the kubelet the same --node-ip"
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn node(texts: &[&str]) -> NodeView {
        NodeView {
            name: "n1".into(),
            internal_ips: ips(texts),
            ..NodeView::default()
        }
    }

    #[test]
    fn a_configured_address_replaces_those_of_its_family_and_no_other() {
        for (configured, expected) in [
            (vec![], vec!["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
            (vec!["192.0.2.2"], vec!["2001:db8::1", "192.0.2.2"]),
            (
                vec!["2001:db8::9"],
                vec!["192.0.2.1", "192.0.2.2", "2001:db8::9"],
            ),
            (
                vec!["192.0.2.9", "2001:db8::9"],
                vec!["192.0.2.9", "2001:db8::9"],
            ),
        ] {
            let mut node = node(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
            put(&mut node, &ips(&configured));
            assert_eq!(node.internal_ips, ips(&expected), "{configured:?}");
        }
    }

    #[test]
    fn a_configured_address_that_no_device_has_is_a_problem() {
        let configured = ips(&["192.0.2.9"]);
        let own = ips(&["192.0.2.1"]);
        let problems = problems("n1", &configured, &own, &own, false);
        assert!(
            problems.len() == 1 && problems[0].contains("192.0.2.9"),
            "{problems:?}"
        );
    }

    #[test]
    fn an_overlay_needs_the_address_that_the_node_object_has() {
        let configured = ips(&["192.0.2.2"]);
        let object = ips(&["2001:db8::1", "192.0.2.1", "192.0.2.2"]);
        let of = |packs| problems("n1", &configured, &object, &object, packs);
        assert_eq!(of(false), [""; 0]);
        let packed = of(true);
        assert!(
            packed.len() == 1 && packed[0].contains("192.0.2.1") && packed[0].contains("kubelet"),
            "{packed:?}"
        );
        let same = problems("n1", &ips(&["192.0.2.1"]), &object, &object, true);
        assert_eq!(same, [""; 0]);
    }
}
