//! `weir service list`.

use anyhow::Context as _;
use weir_api::client::Client;
use weir_api::service::{FrontendInfo, ServiceInfo};

use super::args::ListArgs;
use super::color::Colors;
use super::output::{Done, json};
use super::table::Table;

pub(super) fn run(args: &ListArgs, colors: Colors) -> anyhow::Result<Done> {
    let mut services: Vec<ServiceInfo> = Client::new(&args.socket.socket)
        .get("/v1/services")
        .context("cannot list services")?;
    services.retain(|service| args.namespace.includes(&service.namespace));
    services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    if args.output.is_json() {
        return Ok(Done::ok(json(&services)?));
    }
    Ok(Done::ok(text(&services, colors)))
}

/// A row for each frontend.
fn text(services: &[ServiceInfo], colors: Colors) -> String {
    let mut table = Table::new(&[
        "NAMESPACE",
        "NAME",
        "TYPE",
        "FRONTEND",
        "KIND",
        "FOR",
        "RULES",
        "STATE",
        "BACKENDS",
    ]);
    let mut problems = String::new();
    for service in services {
        let ServiceInfo {
            namespace,
            name,
            kind,
            frontends,
            problems: own,
        } = service;
        for problem in own {
            problems.push_str(&colors.bad(&format!("{namespace}/{name}: {problem}")));
            problems.push('\n');
        }
        if frontends.is_empty() {
            let none = String::new;
            table.row([
                namespace.clone(),
                name.clone(),
                kind.clone(),
                none(),
                none(),
                none(),
                none(),
                none(),
                none(),
            ]);
        }
        for frontend in frontends {
            let backends: Vec<String> = frontend
                .backends
                .iter()
                .map(|backend| {
                    let to = socket_address(&backend.address, backend.port);
                    match backend.state.as_str() {
                        "active" => to,
                        state => format!("{to} ({state})"),
                    }
                })
                .collect();
            let is_served = frontend.backends.iter().any(|b| b.state == "active");
            let is_silent = frontend.from == "outside" && !frontend.backends.is_empty();
            let state = match (frontend.programmed, is_served) {
                (false, _) => colors.bad("not programmed"),
                (true, true) => colors.good("served"),
                (true, false) if is_silent => colors.warn("drops: no endpoint here"),
                (true, false) => colors.warn("refuses: no endpoints"),
            };
            let address = socket_address(&frontend.address, frontend.port);
            table.row([
                namespace.clone(),
                name.clone(),
                kind.clone(),
                format!("{address}/{}", frontend.protocol),
                frontend.kind.clone(),
                frontend.from.clone(),
                rules(frontend),
                state,
                backends.join(","),
            ]);
        }
    }
    if table.is_empty() {
        return "no services\n".to_owned();
    }
    table.render() + &problems
}

/// What holds for a frontend beside its backends.
fn rules(frontend: &FrontendInfo) -> String {
    let mut rules = Vec::new();
    if frontend.policy == "Local" {
        rules.push("local".to_owned());
    }
    if frontend.affinity_seconds > 0 {
        rules.push(format!("affinity {}s", frontend.affinity_seconds));
    }
    match frontend.source_ranges.as_deref() {
        None => {}
        Some([]) => rules.push("from nobody".to_owned()),
        Some(ranges) => rules.push(format!("from {}", ranges.join(","))),
    }
    rules.join("; ")
}

fn socket_address(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use weir_api::service::BackendInfo;

    use super::*;

    fn frontend(state: &str) -> FrontendInfo {
        FrontendInfo {
            address: "0.0.0.0".into(),
            port: 30080,
            protocol: "TCP".into(),
            kind: "NodePort".into(),
            from: "outside".into(),
            policy: "Local".into(),
            affinity_seconds: 60,
            source_ranges: Some(vec!["10.0.0.0/8".into()]),
            programmed: true,
            backends: vec![BackendInfo {
                address: "10.1.0.1".into(),
                port: 8080,
                state: state.into(),
                ..BackendInfo::default()
            }],
            ..FrontendInfo::default()
        }
    }

    #[test]
    fn a_frontend_is_shown_with_its_kind_for_whom_it_is_and_its_rules() {
        for (state, shown) in [("active", "served"), ("unused", "drops: no endpoint here")] {
            let service = ServiceInfo {
                name: "a".into(),
                frontends: vec![frontend(state)],
                ..ServiceInfo::default()
            };
            let text = text(&[service], Colors::new(false));
            for part in ["0.0.0.0:30080/TCP", "NodePort", "outside", shown] {
                assert!(text.contains(part), "{part}: {text}");
            }
            assert!(
                text.contains("local; affinity 60s; from 10.0.0.0/8"),
                "{text}"
            );
        }
    }

    #[test]
    fn source_ranges_without_a_prefix_let_nobody_in() {
        let closed = FrontendInfo {
            source_ranges: Some(vec![]),
            ..FrontendInfo::default()
        };
        assert_eq!(rules(&closed), "from nobody");
        assert_eq!(rules(&FrontendInfo::default()), "");
    }
}
