//! The control plane's command lines: etcd, kube-apiserver, kube-controller-manager, kube-scheduler,
//! all on the first node.

use std::path::Path;

use crate::{
    args::{NodeCidrs, Options},
    pki::Pki,
    plan::{API_PORT, DOMAIN, Plan, commas},
};

/// Where etcd answers, on the first node's loopback.
const ETCD: &str = "http://127.0.0.1:2379";

/// Where etcd keeps its data: in the node's memory, as nothing of it outlives the cluster.
const ETCD_DATA: &str = "/run/weir-cluster/etcd";

/// A program and its arguments.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The program's name.
    pub program: &'static str,
    /// Its arguments.
    pub args: Vec<String>,
}

fn invocation(program: &'static str, args: &[(&str, String)]) -> Invocation {
    let args = args
        .iter()
        .map(|(flag, value)| format!("--{flag}={value}"))
        .collect();
    Invocation { program, args }
}

/// etcd.
#[must_use]
pub fn etcd() -> Invocation {
    let peer = "http://127.0.0.1:2380".to_owned();
    invocation(
        "etcd",
        &[
            ("name", "n1".into()),
            ("data-dir", ETCD_DATA.into()),
            ("listen-client-urls", ETCD.into()),
            ("advertise-client-urls", ETCD.into()),
            ("listen-peer-urls", peer.clone()),
            ("initial-advertise-peer-urls", peer.clone()),
            ("initial-cluster", format!("n1={peer}")),
            // 2 GiB, the default, is little for 20,000 pods that change.
            ("quota-backend-bytes", (4u64 << 30).to_string()),
            ("auto-compaction-retention", "5m".into()),
        ],
    )
}

/// kube-apiserver.
#[must_use]
pub fn api_server(pki: &Pki, plan: &Plan) -> Invocation {
    let file = |name: &str| pki.file(name).display().to_string();
    invocation(
        "kube-apiserver",
        &[
            ("etcd-servers", ETCD.into()),
            ("bind-address", plan.any().to_string()),
            ("advertise-address", plan.api().ip().to_string()),
            ("secure-port", API_PORT.to_string()),
            ("allow-privileged", "true".into()),
            ("authorization-mode", "Node,RBAC".into()),
            ("enable-admission-plugins", "NodeRestriction".into()),
            ("service-cluster-ip-range", commas(&plan.service_cidrs())),
            ("client-ca-file", file("ca.crt")),
            ("tls-cert-file", file("apiserver.crt")),
            ("tls-private-key-file", file("apiserver.key")),
            ("kubelet-certificate-authority", file("ca.crt")),
            (
                "kubelet-client-certificate",
                file("apiserver-kubelet-client.crt"),
            ),
            ("kubelet-client-key", file("apiserver-kubelet-client.key")),
            // Names of nodes are in no DNS.
            ("kubelet-preferred-address-types", "InternalIP".into()),
            (
                "service-account-issuer",
                format!("https://kubernetes.default.svc.{DOMAIN}"),
            ),
            ("service-account-key-file", file("sa.pub")),
            ("service-account-signing-key-file", file("sa.key")),
            ("requestheader-client-ca-file", file("front-proxy-ca.crt")),
            ("requestheader-allowed-names", "front-proxy-client".into()),
            ("requestheader-username-headers", "X-Remote-User".into()),
            ("requestheader-group-headers", "X-Remote-Group".into()),
            (
                "requestheader-extra-headers-prefix",
                "X-Remote-Extra-".into(),
            ),
            ("proxy-client-cert-file", file("front-proxy-client.crt")),
            ("proxy-client-key-file", file("front-proxy-client.key")),
            ("v", "1".into()),
        ],
    )
}

/// kube-controller-manager. Without `--allocate-node-cidrs` where Weir gives them.
#[must_use]
pub fn controller_manager(pki: &Pki, plan: &Plan, options: &Options, config: &Path) -> Invocation {
    let file = |name: &str| pki.file(name).display().to_string();
    let config = config.display().to_string();
    let mut args = vec![
        ("kubeconfig", config.clone()),
        ("authentication-kubeconfig", config.clone()),
        ("authorization-kubeconfig", config),
        ("leader-elect", "false".into()),
        ("use-service-account-credentials", "true".into()),
        ("root-ca-file", file("ca.crt")),
        ("client-ca-file", file("ca.crt")),
        ("requestheader-client-ca-file", file("front-proxy-ca.crt")),
        ("cluster-signing-cert-file", file("ca.crt")),
        ("cluster-signing-key-file", file("ca.key")),
        ("service-account-private-key-file", file("sa.key")),
        ("service-cluster-ip-range", commas(&plan.service_cidrs())),
        ("bind-address", "127.0.0.1".into()),
        ("v", "1".into()),
    ];
    if options.node_cidrs == NodeCidrs::Controller {
        args.push(("allocate-node-cidrs", "true".into()));
        args.push(("cluster-cidr", commas(&plan.pod_cidrs())));
    } else {
        args.push(("allocate-node-cidrs", "false".into()));
    }
    invocation("kube-controller-manager", &args)
}

/// kube-scheduler.
#[must_use]
pub fn scheduler(config: &Path) -> Invocation {
    let config = config.display().to_string();
    invocation(
        "kube-scheduler",
        &[
            ("kubeconfig", config.clone()),
            ("authentication-kubeconfig", config.clone()),
            ("authorization-kubeconfig", config),
            ("leader-elect", "false".into()),
            ("bind-address", "127.0.0.1".into()),
            ("v", "1".into()),
        ],
    )
}
