//! Every configuration key, once.

/// A configuration key.
pub(super) struct Key {
    /// The flag is `--NAME`, the key in the file `NAME`, the variable `WEIR_NAME` (upper case,
    /// underscores).
    pub name: &'static str,
    /// Shown in `--help`.
    pub value_name: &'static str,
    /// Shown in `--help`.
    pub help: &'static str,
    /// In force where no layer says otherwise.
    pub default: Option<&'static str>,
}

impl Key {
    /// The environment variable.
    pub fn env(&self) -> String {
        format!("WEIR_{}", self.name.replace('-', "_").to_uppercase())
    }
}

const fn key(
    name: &'static str,
    value_name: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Key {
    Key {
        name,
        value_name,
        help,
        default,
    }
}

/// All of them, in the order of `--help`.
pub(super) const KEYS: &[Key] = &[
    key(
        "source",
        "kube|dir:PATH",
        None,
        "Where Kubernetes objects come from: the API server, or manifests (required)",
    ),
    key(
        "kubeconfig",
        "PATH",
        None,
        "How to reach the API server [default: the pod's service account]",
    ),
    key(
        "api-server",
        "URL",
        None,
        "Address of the API server [default: the kubeconfig's, or KUBERNETES_SERVICE_HOST]",
    ),
    key(
        "node-name",
        "NAME",
        None,
        "Name of this node's Node object (required)",
    ),
    key(
        "cluster-cidr",
        "CIDRS",
        None,
        "Where Nodes without pod CIDRs get theirs from, by comma, one per family [default: kube-controller-manager gives them]",
    ),
    key(
        "node-cidr-mask-size",
        "BITS",
        Some("24"),
        "Prefix length of a Node's part of an IPv4 cluster-cidr",
    ),
    key(
        "node-cidr-mask-size-ipv6",
        "BITS",
        Some("64"),
        "Prefix length of a Node's part of an IPv6 cluster-cidr",
    ),
    key(
        "namespace",
        "NAME",
        None,
        "Namespace of Weir's Lease and ConfigMap [default: the pod's, else weir-system]",
    ),
    key(
        "socket",
        "PATH",
        Some(weir_api::DEFAULT_SOCKET),
        "Unix socket of the API",
    ),
    key(
        "state-dir",
        "DIR",
        Some(weir_api::DEFAULT_STATE_DIR),
        "Where state is kept",
    ),
    key(
        "bpffs",
        "DIR",
        Some(weir_api::DEFAULT_BPFFS),
        "Folder in a BPF file system for pins",
    ),
    key(
        "cgroup",
        "DIR",
        None,
        "cgroup2 directory whose sockets get the Service hooks [default: root of the cgroup2 mount]",
    ),
    key(
        "uplinks",
        "NAMES",
        None,
        "Devices towards other nodes, by comma; NAME* is all that begin so [default: those with a default route or a node address]",
    ),
    key(
        "node-ip",
        "ADDRESSES",
        None,
        "The node's own addresses, by comma, one per family [default: the Node's InternalIPs]",
    ),
    key(
        "mode",
        "vxlan|geneve|native|auto",
        Some("vxlan"),
        "How packets get to pods on other nodes: packed, as they are by routes, or auto: packed across subnets only",
    ),
    key(
        "overlay-port",
        "PORT",
        None,
        "UDP port that packs go to, the same on all nodes [default: 8472 for vxlan, 6081 for geneve]",
    ),
    key(
        "encryption",
        "none|wireguard",
        Some("none"),
        "Whether packets between pods on different nodes are encrypted; wireguard takes the place of the mode",
    ),
    key(
        "encryption-port",
        "PORT",
        Some("51820"),
        "UDP port of WireGuard, the same on all nodes",
    ),
    key(
        "mtu",
        "BYTES",
        None,
        "IP MTU of pods [default: the smallest of the uplinks, less 50 or 70 with an overlay, 60 or 80 with encryption]",
    ),
    key(
        "adopt-timeout",
        "TIME",
        Some("10s"),
        "How long an ADD may wait for its Pod",
    ),
    key(
        "metrics-address",
        "ADDRESS",
        Some("127.0.0.1:9965"),
        "Where /metrics, /healthz and /readyz are served, or none",
    ),
    key(
        "healthz-address",
        "ADDRESS",
        Some("none"),
        "Where load balancers ask for the node's health (kube-proxy's is 0.0.0.0:10256), or none",
    ),
    key(
        "proxy-mode-address",
        "ADDRESS",
        Some("none"),
        "Where /proxyMode is answered as kube-proxy does (its is 127.0.0.1:10249), or none",
    ),
    key(
        "nodeport-addresses",
        "CIDRS|primary",
        None,
        "Node addresses that serve NodePorts, CIDRs by comma, or the Node's InternalIPs [default: all but loopback and IPv6 link-local]",
    ),
    key(
        "skip-services",
        "NS/NAME",
        None,
        "Services to leave alone, by comma [default: none]",
    ),
    key(
        "socket-lb",
        "all|host-only",
        Some("all"),
        "Whose connections to Services are translated at the socket",
    ),
    key(
        "nat-ports",
        "FIRST-LAST",
        Some("61000-65535"),
        "Source ports of the node's own translations",
    ),
    key(
        "masquerade",
        "true|false",
        Some("true"),
        "Whether pods reach those outside the cluster from the node's address",
    ),
    key(
        "non-masquerade-cidrs",
        "CIDRS",
        None,
        "Outside the cluster, but reached from pods' own addresses, by comma [default: none]",
    ),
    key(
        "node-port-mode",
        "snat|dsr",
        Some("snat"),
        "How TCP from outside gets to a backend on another node, and back",
    ),
    key(
        "xdp",
        "auto|native|off",
        Some("auto"),
        "Uplinks whose driver carries known NodePort flows on by itself: hardware, all that can, none",
    ),
    key(
        "policy-established",
        "apply|keep",
        Some("apply"),
        "What a change of policy means to flows that are already there: judged again, or kept",
    ),
    key(
        "verify-interval",
        "TIME",
        Some("5m"),
        "How long after the kernel's policy was compared with the objects to do so again; 0: never",
    ),
    key(
        "max-peers",
        "N",
        None,
        "Most entries of map PEERS: addresses of pods [default: 1048576]",
    ),
    key(
        "max-cidrs",
        "N",
        None,
        "Most entries of map CIDRS: prefixes in policies [default: 1048576]",
    ),
    key(
        "max-decisions",
        "N",
        None,
        "Most entries of map DECISIONS: groups × classes [default: 4194304]",
    ),
    key(
        "max-intervals",
        "N",
        None,
        "Most elements of map INTERVALS: port ranges [default: 4194304]",
    ),
    key(
        "max-rules",
        "N",
        None,
        "Most entries of map RULES: names of rules [default: 1048576]",
    ),
    key(
        "max-ids",
        "N",
        None,
        "Most entries of map IDS: numbers in use [default: 4194304]",
    ),
    key(
        "max-services",
        "N",
        None,
        "Most entries of map SERVICES: frontends [default: 1048576]",
    ),
    key(
        "max-service-slots",
        "N",
        None,
        "Most entries of map SLOTS: backends of sets [default: 4194304]",
    ),
    key(
        "max-backends",
        "N",
        None,
        "Most entries of map BACKENDS: backends [default: 1048576]",
    ),
    key(
        "cni-conf-dir",
        "DIR",
        None,
        "Where to write the CNI configuration once pods can be added [default: it is not written]",
    ),
    key(
        "cni-conf-name",
        "NAME",
        Some("05-weir.conflist"),
        "The CNI configuration's file name; runtimes take the first in order",
    ),
    key(
        "cni-log-file",
        "PATH|none",
        Some("none"),
        "File on the node that the plugin appends its log to",
    ),
    key(
        "ebpf-object",
        "FILE",
        None,
        "Load these eBPF programs instead of those that are built in",
    ),
    key("log-format", "FORMAT", Some("text"), "text or json"),
    key(
        "log-level",
        "FILTER",
        Some("info"),
        "error, warn, info, debug, trace, or a filter",
    ),
];
