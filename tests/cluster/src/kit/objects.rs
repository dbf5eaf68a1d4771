//! Objects that the tests make, by few words. JSON in, types out: what the API server would refuse
//! is refused there.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Upstream's test program: an HTTP server that tells its name and who asks; with a shell, curl and
/// nslookup. (The wget of a static busybox crashes where the C library's name services are not there.)
pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";
/// Where the server listens.
pub const PORT: u16 = 8080;

/// The typed form of an object.
///
/// # Panics
/// The JSON is not of that kind, which is a mistake in this program.
#[expect(clippy::expect_used, reason = "the JSON is this program's own text")]
pub fn typed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object of its kind")
}

fn server_spec(node: Option<&str>) -> Value {
    json!({
        "nodeName": node,
        "terminationGracePeriodSeconds": 15,
        "containers": [{
            "name": "server", "image": AGNHOST,
            // Goes on serving while load balancers take it out.
            "args": ["netexec", format!("--http-port={PORT}"), "--udp-port=8081", "--delay-shutdown=8"],
            "ports": [{ "containerPort": PORT }],
            "readinessProbe": { "httpGet": { "path": "/healthz", "port": PORT }, "periodSeconds": 1 },
        }],
    })
}

/// A pod that serves HTTP on [`PORT`]; `app` is its label, `node` where it is to be.
pub fn server(name: &str, app: &str, node: Option<&str>) -> Pod {
    typed(json!({
        "metadata": { "name": name, "labels": { "app": app } },
        "spec": server_spec(node),
    }))
}

/// The same server, `replicas` times.
pub fn deployment(name: &str, replicas: i32) -> Deployment {
    typed(json!({
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": { "metadata": { "labels": { "app": name } }, "spec": server_spec(None) },
        },
    }))
}

/// A pod with a shell that does nothing by itself, or runs `script`.
pub fn client(name: &str, node: Option<&str>, script: Option<&str>) -> Pod {
    let script = script.unwrap_or("trap 'exit 0' TERM; while :; do sleep 1; done");
    typed(json!({
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 2,
            "containers": [{ "name": "client", "image": AGNHOST, "command": ["sh", "-c", script] }],
        },
    }))
}

/// A Service for the pods labelled `app`, port 80 to [`PORT`]; `spec` adds to it.
pub fn service(name: &str, app: &str, spec: &Value) -> Service {
    let mut all = json!({
        "selector": { "app": app },
        "ports": [{ "name": "http", "port": 80, "targetPort": PORT }],
    });
    if let (Some(all), Some(more)) = (all.as_object_mut(), spec.as_object()) {
        all.extend(more.clone());
    }
    typed(json!({ "metadata": { "name": name }, "spec": all }))
}

/// A NetworkPolicy.
pub fn policy(name: &str, spec: &Value) -> NetworkPolicy {
    typed(json!({ "metadata": { "name": name }, "spec": spec }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_keep_what_they_are_given() {
        let pod = server("a", "web", Some("n1"));
        let spec = pod.spec.expect("a spec");
        assert_eq!(spec.node_name.as_deref(), Some("n1"));
        assert_eq!(spec.containers[0].image.as_deref(), Some(AGNHOST));
        assert_eq!(
            client("c", None, None).spec.expect("a spec").node_name,
            None
        );
        let node_port = service("s", "web", &json!({ "type": "NodePort" }));
        let spec = node_port.spec.expect("a spec");
        assert_eq!(spec.type_.as_deref(), Some("NodePort"));
        assert_eq!(spec.ports.expect("ports")[0].port, 80);
        assert_eq!(deployment("d", 3).spec.expect("a spec").replicas, Some(3));
        let deny = policy(
            "p",
            &json!({ "podSelector": {}, "policyTypes": ["Ingress"] }),
        );
        assert_eq!(
            deny.spec.expect("a spec").policy_types,
            Some(vec!["Ingress".to_owned()])
        );
    }
}
