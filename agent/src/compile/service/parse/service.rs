//! What counts of a Service.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use weir_abi::Addr;
use weir_abi::service::RangeKey;

use super::super::ServiceOptions;
use super::{HEADLESS, PROXY_NAME, Port, Problem, Report, ServiceName, address, port_number};

/// `spec.loadBalancerSourceRanges` of old.
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// Seconds of affinity where the Service does not say, and the most that it may say.
const AFFINITY: (i32, i32) = (10_800, 86_400);

/// What counts of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct ParsedService {
    pub kind: ServiceType,
    /// Seconds since 1970; of two Services with one address the older one has it.
    pub created: i64,
    pub cluster_ips: Box<[Addr]>,
    pub external_ips: Box<[Addr]>,
    /// `status.loadBalancer.ingress`, those that are served here.
    pub ingress_ips: Box<[Addr]>,
    pub ports: Box<[ServicePort]>,
    pub internal: TrafficPolicy,
    pub external: TrafficPolicy,
    /// 0 none.
    pub affinity_secs: u32,
    /// Prefixes, with [`RangeKey::ranges`] 0, sorted, whose clients alone may use `ingress_ips`.
    /// An empty list lets nobody.
    pub ranges: Option<Box<[RangeKey]>>,
    /// `spec.healthCheckNodePort`, where it has a meaning.
    pub health_port: Option<u16>,
    pub problems: Vec<Problem>,
}

/// `spec.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum ServiceType {
    ClusterIp,
    NodePort,
    LoadBalancer,
}

impl ServiceType {
    /// As in the object.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// `internalTrafficPolicy` or `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum TrafficPolicy {
    Cluster,
    Local,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct ServicePort {
    pub port: Port,
    /// Place in `spec.ports`.
    pub at: usize,
    pub node_port: Option<u16>,
}

impl ParsedService {
    /// Whether it has frontends of this family: those of its ClusterIPs.
    pub fn has_family(&self, v4: bool) -> bool {
        self.cluster_ips.iter().any(|addr| addr.is_v4() == v4)
    }
}

/// `None`: the Service has no frontend that Weir programs (headless, ExternalName, another proxy's,
/// to be left alone).
pub(in super::super) fn service(
    service: &Service,
    options: &ServiceOptions,
) -> Option<ParsedService> {
    let meta = &service.metadata;
    let labels = meta.labels.as_ref();
    let annotations = meta.annotations.as_ref();
    let spec = service.spec.as_ref()?;
    let name = ServiceName::of(meta);
    if labels.is_some_and(|l| l.contains_key(PROXY_NAME) || l.contains_key(HEADLESS))
        || annotations.is_some_and(|a| a.contains_key(PROXY_NAME))
        || options.skip_services.contains(&name)
    {
        return None;
    }
    let kind = match spec.type_.as_deref() {
        Some("ExternalName") => return None,
        Some("NodePort") => ServiceType::NodePort,
        Some("LoadBalancer") => ServiceType::LoadBalancer,
        _ => ServiceType::ClusterIp,
    };
    let mut report = Report::new("Service", &name);
    let cluster_ips = cluster_ips(&mut report, spec)?;
    let external = policy(
        &mut report,
        "externalTrafficPolicy",
        &spec.external_traffic_policy,
    );
    let health_port = spec
        .health_check_node_port
        .filter(|port| *port != 0)
        .filter(|_| kind == ServiceType::LoadBalancer && external == TrafficPolicy::Local)
        .and_then(|port| report.check("spec.healthCheckNodePort", port_number(port)));
    let families = |addr: &Addr| cluster_ips.iter().any(|ip| ip.is_v4() == addr.is_v4());
    let external_ips = spec.external_ips.as_deref().unwrap_or_default();
    let external_ips = external_ips.iter().map(String::as_str).enumerate();
    let external_ips = external_ips.map(|(i, ip)| (format!("spec.externalIPs[{i}]"), ip));
    let external_ips = addresses(&mut report, external_ips, families);
    let ingress_ips = match kind {
        ServiceType::LoadBalancer => addresses(&mut report, ingress(service), families),
        _ => Box::default(),
    };
    let annotation = annotations.and_then(|a| a.get(SOURCE_RANGES));
    Some(ParsedService {
        kind,
        created: meta
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.0.as_second()),
        external_ips,
        ingress_ips,
        ports: ports(&mut report, spec, kind),
        internal: policy(
            &mut report,
            "internalTrafficPolicy",
            &spec.internal_traffic_policy,
        ),
        external,
        affinity_secs: affinity(&mut report, spec),
        ranges: match kind {
            ServiceType::LoadBalancer => ranges(&mut report, spec, annotation),
            _ => None,
        },
        health_port,
        problems: report.problems,
        cluster_ips,
    })
}

/// `None` for a headless Service.
fn cluster_ips(report: &mut Report, spec: &ServiceSpec) -> Option<Box<[Addr]>> {
    let texts: Vec<(String, &str)> = match &spec.cluster_ips {
        Some(ips) if !ips.is_empty() => ips
            .iter()
            .enumerate()
            .map(|(i, ip)| (format!("spec.clusterIPs[{i}]"), ip.as_str()))
            .collect(),
        _ => spec
            .cluster_ip
            .iter()
            .map(|ip| ("spec.clusterIP".to_owned(), ip.as_str()))
            .collect(),
    };
    if texts.iter().any(|(_, text)| *text == "None") {
        return None;
    }
    Some(addresses(report, texts, |_| true))
}

/// The addresses that have an IP, and that no load balancer's own node stands for.
fn ingress(service: &Service) -> impl Iterator<Item = (String, &str)> {
    let status = service
        .status
        .as_ref()
        .and_then(|s| s.load_balancer.as_ref());
    let list = status
        .and_then(|s| s.ingress.as_deref())
        .unwrap_or_default();
    list.iter().enumerate().filter_map(|(i, ingress)| {
        let is_vip = matches!(ingress.ip_mode.as_deref(), None | Some("" | "VIP"));
        let ip = ingress.ip.as_deref().filter(|_| is_vip)?;
        Some((format!("status.loadBalancer.ingress[{i}].ip"), ip))
    })
}

fn addresses<'a>(
    report: &mut Report,
    texts: impl IntoIterator<Item = (String, &'a str)>,
    has_family: impl Fn(&Addr) -> bool,
) -> Box<[Addr]> {
    let mut addresses = Vec::new();
    for (field, text) in texts {
        if text.is_empty() {
            continue;
        }
        match report.check(&field, address(text)) {
            Some(addr) if addresses.contains(&addr) => report.add(field, "is there twice"),
            Some(addr) if !has_family(&addr) => {
                report.add(field, format!("{text}: no ClusterIP is of its family"));
            }
            Some(addr) => addresses.push(addr),
            None => {}
        }
    }
    addresses.into()
}

fn ports(report: &mut Report, spec: &ServiceSpec, kind: ServiceType) -> Box<[ServicePort]> {
    let mut ports: Vec<ServicePort> = Vec::new();
    for (at, from) in spec.ports.iter().flatten().enumerate() {
        let field = format!("spec.ports[{at}]");
        let parts = (from.name.as_deref(), from.port, from.protocol.as_deref());
        let Some(port) = Port::parse(report, &field, parts) else {
            continue;
        };
        let twin = |p: &&ServicePort| p.port.number == port.number && p.port.proto == port.proto;
        if let Some(twin) = ports.iter().find(twin) {
            let name = &twin.port.name;
            report.add(
                field,
                format!("port and protocol are those of {name:?} already"),
            );
            continue;
        }
        if ports.iter().any(|p| p.port.name == port.name) {
            report.add(
                format!("{field}.name"),
                format!("{:?} is there twice", port.name),
            );
            continue;
        }
        let number = from
            .node_port
            .filter(|n| *n != 0 && kind != ServiceType::ClusterIp);
        let node_port =
            number.and_then(|n| report.check(format!("{field}.nodePort"), port_number(n)));
        ports.push(ServicePort {
            port,
            at,
            node_port,
        });
    }
    ports.into()
}

fn policy(report: &mut Report, field: &str, text: &Option<String>) -> TrafficPolicy {
    match text.as_deref() {
        None | Some("" | "Cluster") => TrafficPolicy::Cluster,
        Some("Local") => TrafficPolicy::Local,
        Some(other) => {
            report.add(
                format!("spec.{field}"),
                format!("{other:?} is not Cluster or Local; taken as Cluster"),
            );
            TrafficPolicy::Cluster
        }
    }
}

fn affinity(report: &mut Report, spec: &ServiceSpec) -> u32 {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return 0,
        Some("ClientIP") => {}
        Some(other) => {
            report.add(
                "spec.sessionAffinity",
                format!("{other:?} is not None or ClientIP; taken as None"),
            );
            return 0;
        }
    }
    let (default, most) = AFFINITY;
    let config = spec.session_affinity_config.as_ref();
    let seconds = config
        .and_then(|c| c.client_ip.as_ref())
        .and_then(|c| c.timeout_seconds);
    let seconds = seconds.unwrap_or(default);
    if (1..=most).contains(&seconds) {
        return seconds.unsigned_abs();
    }
    report.add(
        "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
        format!("{seconds} is not in 1-{most}; taken as {default}"),
    );
    default.unsigned_abs()
}

/// The list of the spec; without one, that of the annotation.
fn ranges(
    report: &mut Report,
    spec: &ServiceSpec,
    annotation: Option<&String>,
) -> Option<Box<[RangeKey]>> {
    let listed = spec
        .load_balancer_source_ranges
        .as_deref()
        .unwrap_or_default();
    let (field, texts): (&str, Vec<&str>) = if listed.is_empty() {
        let annotation = annotation?.trim();
        if annotation.is_empty() {
            return None;
        }
        ("metadata.annotations", annotation.split(',').collect())
    } else {
        let texts = listed.iter().map(String::as_str);
        ("spec.loadBalancerSourceRanges", texts.collect())
    };
    let mut ranges = Vec::new();
    for text in texts {
        ranges.extend(report.check(field, range(text.trim())));
    }
    ranges.sort_unstable();
    ranges.dedup();
    Some(ranges.into())
}

/// A prefix, its address cut to its length.
fn range(text: &str) -> Result<RangeKey, String> {
    let bad = || format!("{text:?} is not a prefix like 10.0.0.0/8");
    let (ip, len) = text.split_once('/').ok_or_else(bad)?;
    let ip: IpAddr = ip.parse().map_err(|_| bad())?;
    let len: u8 = len.parse().map_err(|_| bad())?;
    let ip: IpAddr = match ip {
        IpAddr::V4(v4) if len <= 32 => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            std::net::Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) if len <= 128 => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            std::net::Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
        _ => return Err(bad()),
    };
    Ok(RangeKey::prefix(0, ip.into(), len.into()))
}
