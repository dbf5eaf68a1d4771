//! `weir service list`.

use anyhow::Context as _;
use weir_api::client::Client;
use weir_api::service::ServiceInfo;

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
    let mut table = Table::new(&["NAMESPACE", "NAME", "TYPE", "FRONTEND", "STATE", "BACKENDS"]);
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
            let state = match (frontend.programmed, frontend.backends.is_empty()) {
                (false, _) => colors.bad("not programmed"),
                (true, true) => colors.warn("refuses: no endpoints"),
                (true, false) => colors.good("served"),
            };
            let address = socket_address(&frontend.address, frontend.port);
            table.row([
                namespace.clone(),
                name.clone(),
                kind.clone(),
                format!("{address}/{}", frontend.protocol),
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

fn socket_address(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}
