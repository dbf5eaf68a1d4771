//! The table: who asks, whom, by what, under which policies, and what must come of it.

/// How pods' packets travel between nodes. The network knows no pods in either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Vxlan,
    Native,
}

/// What policies there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// None.
    Off,
    /// Servers and the client pod are isolated, and these very clients and servers are let through.
    /// The stranger is named by none.
    On,
    /// Servers and the client pod are isolated, and nothing is let through.
    Deny,
}

/// Who asks. Pods and processes are on the first node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Pod,
    HostPod,
    Process,
    /// A machine behind a router and a narrow link.
    Outside,
    /// The forbidden twin of the pod: beside it, not isolated, and in no policy's rules.
    Stranger,
}

/// A node, as clients on the first see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    Own,
    Other,
}

impl At {
    pub const ALL: [Self; 2] = [Self::Own, Self::Other];

    /// The node's index.
    pub fn node(self) -> usize {
        match self {
            Self::Own => 0,
            Self::Other => 1,
        }
    }
}

/// Whom is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    Pod(At),
    /// A process of the node, at the node's address.
    Node(At),
    HostPod(At),
    /// A Service whose one backend is the pod on this node.
    ClusterIp(At),
    NodePort {
        through: At,
        backend: At,
    },
    HostPort(At),
    /// A server outside, behind a router and a narrow link.
    World,
}

/// By what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Tcp,
    Udp,
    Icmp,
    /// A datagram in several fragments, there and back.
    LargeUdp,
    /// Some 100 kB there and back: more than the path's MTU at once, and segments of every size.
    BulkTcp,
}

/// What must come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The very server that is meant answers, from the address that was asked.
    Answer,
    /// The same, although one might expect otherwise; the reason.
    Still(&'static str),
    /// Silence, and nothing has arrived; policy has dropped it.
    Denied,
    /// No answer, and the reason.
    Nothing(&'static str),
    /// There is no such question; the reason, and what is asked instead.
    Meaningless(&'static str),
}

pub const WHO: [Who; 4] = [Who::Pod, Who::HostPod, Who::Process, Who::Outside];
pub const WHAT: [What; 5] = [
    What::Tcp,
    What::Udp,
    What::Icmp,
    What::LargeUdp,
    What::BulkTcp,
];

/// Every target.
pub fn whom() -> Vec<Whom> {
    let at = |make: fn(At) -> Whom| At::ALL.map(make);
    let mut all = Vec::new();
    for targets in [
        at(Whom::Pod),
        at(Whom::Node),
        at(Whom::HostPod),
        at(Whom::ClusterIp),
    ] {
        all.extend(targets);
    }
    for through in At::ALL {
        all.extend(At::ALL.map(|backend| Whom::NodePort { through, backend }));
    }
    all.extend(at(Whom::HostPort));
    all.push(Whom::World);
    all
}

/// Who asks under these policies.
pub fn who(policy: Policy) -> Vec<Who> {
    let mut all = WHO.to_vec();
    if policy == Policy::On {
        all.push(Who::Stranger);
    }
    all
}

impl Whom {
    /// The node of the pod that must answer in the end.
    pub fn pod(self) -> Option<At> {
        match self {
            Self::Pod(at) | Self::ClusterIp(at) | Self::HostPort(at) => Some(at),
            Self::NodePort { backend, .. } => Some(backend),
            Self::Node(_) | Self::HostPod(_) | Self::World => None,
        }
    }
}

/// What must come of a question.
pub fn want(mode: Mode, policy: Policy, who: Who, whom: Whom, what: What) -> Want {
    let known = by_nature(who, whom, what);
    match (known, policy) {
        (Want::Answer, Policy::On) if who == Who::Stranger => stranger(mode, whom),
        (Want::Answer, Policy::Deny) => denied(who, whom),
        _ => known,
    }
}

/// What comes of it without policies.
fn by_nature(who: Who, whom: Whom, what: What) -> Want {
    match (who, whom, what) {
        (_, Whom::NodePort { .. } | Whom::HostPort(_), What::Icmp) => {
            Want::Meaningless("ICMP has no ports: the node itself is asked in its own row")
        }
        (Who::Outside, Whom::Pod(_), _) => {
            Want::Nothing("the network has no routes to pods: unanswered")
        }
        (Who::Outside, Whom::ClusterIp(_), _) => {
            Want::Nothing("a ClusterIP is not routed outside: unanswered")
        }
        (_, Whom::ClusterIp(_), What::Icmp) => {
            Want::Nothing("nobody has a ClusterIP: ICMP to it is refused")
        }
        _ => Want::Answer,
    }
}

/// The stranger where only the named clients are let in.
fn stranger(mode: Mode, whom: Whom) -> Want {
    match whom {
        // This node translates its own ports alone, so the packet goes to the other node as it is.
        Whom::HostPort(At::Other)
        | Whom::NodePort {
            through: At::Other, ..
        } if mode == Mode::Vxlan => Want::Still(
            "over the overlay a pod comes to another node's address as its node, which is let in",
        ),
        Whom::NodePort {
            through: At::Other,
            backend: At::Own,
        } => Want::Still("the backend sees the node that the client came through, which is let in"),
        _ if whom.pod().is_some() => Want::Denied,
        _ => Want::Still("a stranger is not isolated itself, and hosts are subject to no policy"),
    }
}

/// Everybody where nothing is let through.
fn denied(who: Who, whom: Whom) -> Want {
    const OWN: &str = "a node always reaches its own pods";
    const HOSTS: &str = "neither end is a pod: hosts are subject to no policy";
    match (who, whom) {
        (Who::Pod | Who::Stranger, _) => Want::Denied,
        (Who::Outside, _) if whom.pod().is_some() => Want::Denied,
        (
            Who::HostPod | Who::Process,
            Whom::NodePort {
                through: At::Other, ..
            },
        ) => Want::Denied,
        (Who::HostPod | Who::Process, _) => match whom.pod() {
            Some(At::Own) => Want::Still(OWN),
            Some(At::Other) => Want::Denied,
            None => Want::Still(HOSTS),
        },
        (Who::Outside, _) => Want::Still(HOSTS),
    }
}
