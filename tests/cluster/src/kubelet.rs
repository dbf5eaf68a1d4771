//! kubelet's configuration and command line.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    pki::Pki,
    plan::{DOMAIN, Plan, commas},
};

/// Where kubelet looks for pods that no API server knows, as on a kubeadm node.
pub const STATIC_PODS: &str = "/etc/kubernetes/manifests";

/// The configuration of a node's kubelet (JSON is YAML). Paths are kubelet's defaults, as each node
/// has its own `/var/lib` and `/var/log`.
#[must_use]
pub fn config(pki: &Pki, plan: &Plan, name: &str, cgroup_root: &Path) -> Value {
    let file = |name: &str| pki.file(name).display().to_string();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": plan.any(),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": file("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": file(&format!("kubelet-{name}.crt")),
        "tlsPrivateKeyFile": file(&format!("kubelet-{name}.key")),
        "clusterDNS": plan.dns()[..1],
        "clusterDomain": DOMAIN,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "resolvConf": "/etc/resolv.conf",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": Path::new("/").join(cgroup_root),
        // A machine with version 1 is one that tests run on, deprecated or not.
        "failCgroupV1": false,
        "failSwapOn": false,
        "maxPods": 250,
        // The machine's disk and memory are not the cluster's alone: nothing is evicted for them,
        // and no image is removed that cannot be pulled again.
        "evictionHard": {
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageMinimumGCAge": "24h",
        "shutdownGracePeriod": "0s",
        "staticPodPath": STATIC_PODS,
    })
}

/// kubelet's arguments. Each node is a zone of its own up to three: n1 in z1, n4 in z1 again.
#[must_use]
pub fn args(config: &Path, kubeconfig: &Path, plan: &Plan, number: u8) -> Vec<String> {
    let zone = (number - 1) % 3 + 1;
    vec![
        format!("--config={}", config.display()),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--hostname-override=n{number}"),
        format!("--node-ip={}", commas(&plan.node(number))),
        format!(
            "--node-labels=topology.kubernetes.io/zone=z{zone},topology.kubernetes.io/region=r1"
        ),
        "--v=2".into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cni, Containerd, NodeCidrs, Options};

    #[test]
    fn every_node_has_its_addresses_name_and_zone() {
        let plan = Plan::new(&Options {
            nodes: 4,
            cni: Cni::Weir,
            dual_stack: true,
            ipv6: false,
            containerd: Containerd::Two,
            node_cidrs: NodeCidrs::Controller,
        });
        let all = args(Path::new("/c"), Path::new("/k"), &plan, 4).join(" ");
        for part in [
            "--hostname-override=n4",
            "--node-ip=172.31.0.14,fd31::14",
            "topology.kubernetes.io/zone=z1,",
        ] {
            assert!(all.contains(part), "{part} is not in {all}");
        }
    }
}
