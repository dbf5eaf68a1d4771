//! What a cluster adds to Services by itself: EndpointSlices and cluster addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The label that ties a slice to its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Of slices that this crate made.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// The EndpointSlices of a Service, as the EndpointSlice controller would write them from the pods'
/// `status.podIPs`: one per family and set of target ports, sorted by name. None for a Service
/// without selector. A pod whose conditions are not given counts as ready.
pub fn endpoint_slices(service: &Service, pods: &[Pod]) -> Vec<EndpointSlice> {
    let spec = service.spec.clone().unwrap_or_default();
    let selector = spec.selector.unwrap_or_default();
    if selector.is_empty() || spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let publish = spec.publish_not_ready_addresses.unwrap_or(false);
    let ports = spec.ports.unwrap_or_default();
    // Pods may resolve a named targetPort to different numbers.
    let mut slices: BTreeMap<(bool, Vec<Option<u16>>), Vec<Endpoint>> = BTreeMap::new();
    for pod in pods {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let selected = namespace(&pod.metadata) == namespace(&service.metadata)
            && selector.iter().all(|(k, v)| labels.get(k) == Some(v));
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        if !selected || matches!(phase, Some("Succeeded" | "Failed")) {
            continue;
        }
        let numbers: Vec<_> = ports.iter().map(|port| target_port(pod, port)).collect();
        if !ports.is_empty() && numbers.iter().all(Option::is_none) {
            continue;
        }
        for addr in pod_addresses(pod) {
            let endpoint = endpoint(pod, addr, publish);
            let key = (addr.is_ipv6(), numbers.clone());
            slices.entry(key).or_default().push(endpoint);
        }
    }
    let mut made = Vec::new();
    for (number, ((is_v6, numbers), mut endpoints)) in slices.into_iter().enumerate() {
        endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        made.push(slice(service, number, is_v6, &ports, &numbers, endpoints));
    }
    made
}

fn namespace(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or("default")
}

fn pod_addresses(pod: &Pod) -> Vec<IpAddr> {
    let status = pod.status.clone().unwrap_or_default();
    let listed = status.pod_ips.into_iter().flatten().map(|ip| ip.ip);
    let all: BTreeSet<IpAddr> = listed
        .chain(status.pod_ip)
        .filter_map(|text| text.parse().ok())
        .collect();
    all.into_iter().collect()
}

/// The number of a Service's target port on a pod; [`None`] if the pod has no port of that name.
fn target_port(pod: &Pod, port: &ServicePort) -> Option<u16> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => u16::try_from(port.port).ok(),
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let keeps_running = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
            let sidecars = spec.init_containers.iter().flatten().filter(keeps_running);
            let wanted = port.protocol.as_deref().unwrap_or("TCP");
            let found = spec
                .containers
                .iter()
                .chain(sidecars)
                .flat_map(|c| c.ports.iter().flatten())
                .find(|p| {
                    p.name.as_ref() == Some(name)
                        && p.protocol.as_deref().unwrap_or("TCP") == wanted
                })?;
            u16::try_from(found.container_port).ok()
        }
    }
}

fn endpoint(pod: &Pod, addr: IpAddr, publish: bool) -> Endpoint {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.clone());
    let conditions = conditions.unwrap_or_default();
    let serving = conditions.is_empty()
        || conditions
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True");
    let terminating = pod.metadata.deletion_timestamp.is_some();
    Endpoint {
        addresses: vec![addr.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(publish || (serving && !terminating)),
            serving: Some(publish || serving),
            terminating: Some(terminating),
        }),
        node_name: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(namespace(&pod.metadata).to_owned()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

fn slice(
    service: &Service,
    number: usize,
    is_v6: bool,
    ports: &[ServicePort],
    numbers: &[Option<u16>],
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let name = service.metadata.name.clone().unwrap_or_default();
    let labels = [
        (SERVICE_NAME, name.as_str()),
        (MANAGED_BY, "weir-manifests"),
    ];
    let listed = ports.iter().zip(numbers).filter_map(|(port, number)| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(i32::from((*number)?)),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        })
    });
    EndpointSlice {
        address_type: if is_v6 { "IPv6" } else { "IPv4" }.to_owned(),
        endpoints: Some(endpoints),
        metadata: ObjectMeta {
            name: Some(format!("{name}-{number}")),
            namespace: Some(namespace(&service.metadata).to_owned()),
            labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            owner_references: service.metadata.uid.clone().map(|uid| {
                vec![OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Service".to_owned(),
                    name,
                    uid,
                    controller: Some(true),
                    ..OwnerReference::default()
                }]
            }),
            ..ObjectMeta::default()
        },
        ports: Some(listed.collect()),
    }
}

/// Gives Services the cluster addresses that an API server would.
#[derive(Clone, Debug)]
pub struct ClusterIps {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl ClusterIps {
    /// Addresses are handed out from these networks' first on (host bits 16 at most); a family
    /// left out is not served.
    pub fn new(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Self {
        Self { v4, v6 }
    }

    /// Fills in `clusterIP`, `clusterIPs`, `ipFamilies` of every Service that needs them, in the
    /// order of (namespace, name): one family, or both if `ipFamilyPolicy` asks for it, IPv4
    /// first unless `ipFamilies` says otherwise. What is given stays. Returns the Services that
    /// got none, as their families are not served or the network is full.
    pub fn assign(&self, services: &mut [Service]) -> Vec<String> {
        let mut used: BTreeSet<IpAddr> = BTreeSet::new();
        for service in services.iter() {
            used.extend(given(service));
        }
        services.sort_by_key(|s| (namespace(&s.metadata).to_owned(), s.metadata.name.clone()));
        let mut without = Vec::new();
        for service in services {
            if !needs_address(service) {
                continue;
            }
            let families = self.families(service);
            let addresses: Option<Vec<IpAddr>> = families
                .iter()
                .map(|is_v6| self.next(*is_v6, &mut used))
                .collect();
            let addresses = addresses.unwrap_or_default();
            let Some(first) = addresses.first() else {
                let name = service.metadata.name.clone().unwrap_or_default();
                without.push(format!("{}/{name}", namespace(&service.metadata)));
                continue;
            };
            let spec = service.spec.get_or_insert_default();
            spec.cluster_ip = Some(first.to_string());
            spec.cluster_ips = Some(addresses.iter().map(ToString::to_string).collect());
            let name = |a: &IpAddr| if a.is_ipv6() { "IPv6" } else { "IPv4" }.to_owned();
            spec.ip_families = Some(addresses.iter().map(name).collect());
        }
        without
    }

    /// The families (true: IPv6) a Service gets.
    fn families(&self, service: &Service) -> Vec<bool> {
        let spec = service.spec.clone().unwrap_or_default();
        let served = |is_v6: &bool| {
            if *is_v6 {
                self.v6.is_some()
            } else {
                self.v4.is_some()
            }
        };
        let mut families: Vec<bool> = spec
            .ip_families
            .iter()
            .flatten()
            .map(|f| f == "IPv6")
            .filter(served)
            .collect();
        let both = matches!(
            spec.ip_family_policy.as_deref(),
            Some("PreferDualStack" | "RequireDualStack")
        );
        for is_v6 in [false, true] {
            let wanted = both || (families.is_empty() && spec.ip_families.is_none());
            if wanted && served(&is_v6) && !families.contains(&is_v6) {
                families.push(is_v6);
            }
        }
        families
    }

    fn next(&self, is_v6: bool, used: &mut BTreeSet<IpAddr>) -> Option<IpAddr> {
        for host in 1..=u16::MAX {
            let addr: IpAddr = if is_v6 {
                let base = u128::from(self.v6?);
                Ipv6Addr::from(base.checked_add(host.into())?).into()
            } else {
                let base = u32::from(self.v4?);
                Ipv4Addr::from(base.checked_add(host.into())?).into()
            };
            if used.insert(addr) {
                return Some(addr);
            }
        }
        None
    }
}

fn given(service: &Service) -> Vec<IpAddr> {
    let spec = service.spec.clone().unwrap_or_default();
    let listed = spec
        .cluster_ips
        .into_iter()
        .flatten()
        .chain(spec.cluster_ip);
    listed.filter_map(|text| text.parse().ok()).collect()
}

fn needs_address(service: &Service) -> bool {
    let spec = service.spec.clone().unwrap_or_default();
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let external = spec.type_.as_deref() == Some("ExternalName");
    !headless && !external && given(service).is_empty()
}
