//! The reference evaluator of Kubernetes network policies: what *should* happen to one flow.
//!
//! It reads raw Kubernetes objects and answers one question at a time, in the plainest way that
//! works, so that it can be believed by reading it. It shares no code with the policy compiler,
//! which is tested against it, and it does no I/O.
//!
//! What it takes `networking.k8s.io/v1` (Kubernetes 1.36) to mean, where the API's text leaves a
//! choice:
//!
//! * **Which rule is named.** Policies in the order of (namespace, name), their rules in the order
//!   of the list: the first that matches.
//! * **policyTypes** left out means Ingress, and Egress as well if `spec.egress` has at least one
//!   rule (the API server's own defaulting).
//! * **Fail closed.** What the API server would refuse allows nothing: a rule with a refused part is
//!   ignored as a whole, its policy still isolates. A policy whose `spec.podSelector` is refused
//!   isolates the pods that the valid part of the selector matches and allows nothing; one whose
//!   `policyTypes` are refused does so in both directions. Every refusal is a [`Message`].
//! * **CIDRs** may have host bits set (they are masked, as the API server did for years). Leading
//!   zeros and IPv4-mapped IPv6 addresses are refused. An `except` must be smaller than its `cidr`.
//! * **Pods** in phase Succeeded or Failed are gone: they match nothing and own no address.
//!   Terminating pods count. Of two live pods with one address the one with the later
//!   `creationTimestamp` owns it (none counts as earliest; of equals the greater (namespace, name)).
//! * **hostNetwork pods** are their node: no policy selects them, no pod selector matches them.
//! * **ipBlock** means the addresses it says, those of pods and nodes too.
//! * **Named ports** are looked up on the destination pod by (name, protocol): containers in order,
//!   then init containers with `restartPolicy: Always`; the first wins. No pod, no match.
//! * **ICMP** (and whatever else has no ports) matches only rules without `ports`.
//! * **Namespaces** always carry the label `kubernetes.io/metadata.name`, whatever the object says.
//! * A pod reaches its own address (`self`), and a node reaches its own pods (`own-node`), whatever
//!   the policies say.
//!
//! ClusterNetworkPolicy (`policy.networking.k8s.io/v1alpha2` of network-policy-api v0.2.0):
//!
//! * **Order.** Admin policies whose subject is the pod, by (priority, name): the first rule that
//!   matches decides; Pass goes on. Then NetworkPolicies, which decide if any isolates the pod. Then
//!   Baseline policies like Admin ones. Else allowed, in the name of the last rule that passed it on.
//! * **Unknown pods** are addresses in a node's pod CIDR that no known Pod and no Node has. Deny rules
//!   by `namespaces` or `pods` match them, and named ports of such egress rules are then every port
//!   (ICMP has none); no other rule does.
//! * **Fail closed.** A rule with a refused part, or with a field that is not known here, matches
//!   nothing if its action is Accept, else it denies everything at its place. A policy whose tier,
//!   priority or subject is refused has all its rules refused. Of a subject's selectors what is valid
//!   counts; if nothing is, or both of its fields are set, its subject is all pods.
//! * **`domainNames`** match nothing yet.
#![forbid(unsafe_code)]

mod cidr;
mod cluster;
mod cluster_matching;
mod cluster_peer;
mod cluster_policy;
mod decision;
mod evaluate;
mod matching;
mod node;
mod party;
mod pod;
mod policy;
mod ports;
mod refusal;
mod resolve;
mod rule_ref;
mod selector;
mod service;
mod tiers;
mod who;

pub use cluster::{Cluster, Evaluator};
pub use decision::{
    Answer, Decision, Match, PolicyKind, PolicyStep, Reason, Report, RuleStep, Verdict,
};
pub use evaluate::evaluate;
pub use party::{End, Family, Party, PartyKind, Protocol, Query, QueryError};
pub use refusal::Message;
pub use rule_ref::{Action, RuleRef, Tier};
pub use service::{Backend, ServicePort};
