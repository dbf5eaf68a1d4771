//! What load balancers are told of Services (`healthCheckNodePort`) and of the node: decided from
//! plain data.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;

/// One Service with `externalTrafficPolicy: Local` and a health check port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `spec.healthCheckNodePort`, host order.
    pub port: u16,
    /// How many of its ready endpoints are on this node.
    pub local: usize,
}

/// An answer: the same whatever path is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200, or 503 where a load balancer shall send nothing.
    pub status: u16,
    /// As `X-Load-Balancing-Endpoint-Weight`.
    pub weight: usize,
    /// JSON.
    pub body: String,
}

impl HealthCheck {
    /// As kube-proxy answers.
    pub fn answer(&self) -> Answer {
        let body = serde_json::json!({
            "service": {"namespace": self.namespace, "name": self.name},
            "localEndpoints": self.local,
            "serviceProxyHealthy": true,
        });
        Answer {
            status: if self.local > 0 { 200 } else { 503 },
            weight: self.local,
            body: body.to_string(),
        }
    }
}

/// Whether load balancers may send a node new connections: not once it is being deleted, as
/// kube-proxy has it.
pub fn is_eligible(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let leaving = taints
        .into_iter()
        .flatten()
        .any(|taint| taint.key == "ToBeDeletedByClusterAutoscaler");
    !leaving && node.metadata.deletion_timestamp.is_none()
}

/// The answer of `--healthz-address` at that time (RFC 3339). kube-proxy's says as well when it last
/// wrote; what is ready is up to date.
pub fn node_answer(ready: bool, eligible: bool, now: &str) -> (u16, String) {
    let status = if ready && eligible { 200 } else { 503 };
    let mut body = serde_json::json!({
        "healthy": ready, "nodeEligible": eligible, "currentTime": now,
    });
    if ready {
        body["lastUpdated"] = now.into();
    }
    (status, body.to_string())
}

/// The checks by port. Where two Services claim one port the first by name has it, and the others
/// are problems.
pub fn by_port(checks: &[HealthCheck]) -> (BTreeMap<u16, &HealthCheck>, Vec<String>) {
    let mut sorted: Vec<&HealthCheck> = checks.iter().collect();
    sorted.sort_by_key(|check| (&check.namespace, &check.name));
    let (mut ports, mut problems) = (BTreeMap::new(), Vec::new());
    for check in sorted {
        let owner = *ports.entry(check.port).or_insert(check);
        if owner != check {
            problems.push(format!(
                "Service {}/{}: spec.healthCheckNodePort {}: Service {}/{} has it: give one of them another",
                check.namespace, check.name, check.port, owner.namespace, owner.name
            ));
        }
    }
    (ports, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-26T06:00:00Z";

    fn check(name: &str, port: u16, local: usize) -> HealthCheck {
        HealthCheck {
            namespace: "shop".into(),
            name: name.into(),
            port,
            local,
        }
    }

    #[test]
    fn a_node_with_local_endpoints_is_healthy_and_says_how_many() {
        let answer = check("web", 31000, 2).answer();
        assert_eq!((answer.status, answer.weight), (200, 2));
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let expected = serde_json::json!({
            "service": {"namespace": "shop", "name": "web"},
            "localEndpoints": 2, "serviceProxyHealthy": true,
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn a_node_without_local_endpoints_is_unavailable() {
        let answer = check("web", 31000, 0).answer();
        assert_eq!((answer.status, answer.weight), (503, 0));
        assert!(answer.body.contains("\"localEndpoints\":0"));
    }

    #[test]
    fn a_node_that_is_ready_and_stays_is_healthy() {
        assert_eq!(node_answer(true, true, NOW).0, 200);
        assert_eq!(node_answer(false, true, NOW).0, 503);
        let (status, body) = node_answer(true, false, NOW);
        assert_eq!(status, 503);
        assert!(body.contains("\"nodeEligible\":false"), "{body}");
    }

    #[test]
    fn a_node_that_is_being_deleted_is_not_eligible() {
        let node = |value| serde_json::from_value::<Node>(value).unwrap();
        let taint = |key| serde_json::json!({"key": key, "effect": "NoSchedule"});
        let plain = serde_json::json!({"spec": {"taints": [taint("other")]}});
        assert!(is_eligible(&node(plain)));
        let autoscaled =
            serde_json::json!({"spec": {"taints": [taint("ToBeDeletedByClusterAutoscaler")]}});
        assert!(!is_eligible(&node(autoscaled)));
        let deleted =
            serde_json::json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        assert!(!is_eligible(&node(deleted)));
    }

    #[test]
    fn of_two_services_with_one_port_the_first_by_name_has_it_and_the_other_is_named() {
        let checks = [
            check("b", 31000, 1),
            check("a", 31000, 0),
            check("c", 31001, 0),
        ];
        let (ports, problems) = by_port(&checks);
        assert_eq!(ports[&31000].name, "a");
        assert_eq!(ports.len(), 2);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("shop/b") && problems[0].contains("shop/a"));
    }
}
