//! `weir endpoint list`.

use anyhow::Context as _;
use weir_api::client::Client;
use weir_api::endpoint::{Direction, Endpoint};

use super::args::ListArgs;
use super::color::Colors;
use super::output::{Done, json};
use super::table::Table;

pub(super) fn run(args: &ListArgs, colors: Colors) -> anyhow::Result<Done> {
    let mut endpoints = Client::new(&args.socket.socket)
        .endpoints()
        .context("cannot list endpoints")?;
    endpoints.retain(|endpoint| match &endpoint.attachment.pod {
        Some(pod) => args.namespace.includes(&pod.namespace),
        None => args.namespace.namespace.is_none(),
    });
    endpoints.sort_by_key(|endpoint| {
        let attachment = &endpoint.attachment;
        let pod = attachment.pod.as_ref();
        let pod = pod.map(|p| (p.namespace.clone(), p.name.clone()));
        (
            pod,
            attachment.container_id.clone(),
            attachment.ifname.clone(),
        )
    });
    if args.output.is_json() {
        return Ok(Done::ok(json(&endpoints)?));
    }
    Ok(Done::ok(text(&endpoints, colors)))
}

fn text(endpoints: &[Endpoint], colors: Colors) -> String {
    let mut table = Table::new(&[
        "NAMESPACE",
        "POD",
        "ADDRESSES",
        "INTERFACE",
        "INGRESS",
        "EGRESS",
        "ATTACHED",
        "CONTAINER",
    ]);
    for endpoint in endpoints {
        let attachment = &endpoint.attachment;
        let (namespace, pod) = match &attachment.pod {
            Some(pod) => (pod.namespace.clone(), pod.name.clone()),
            None => (String::new(), "(no Kubernetes pod)".to_owned()),
        };
        let addresses = attachment.addresses.iter().map(ToString::to_string);
        let addresses: Vec<String> = addresses.collect();
        let attached = if endpoint.attached { "yes" } else { "no" };
        table.row([
            namespace,
            pod,
            addresses.join(","),
            attachment.host_ifname.clone(),
            policies(&endpoint.ingress),
            policies(&endpoint.egress),
            colors.by(endpoint.attached, attached),
            attachment.container_id.chars().take(13).collect(),
        ]);
    }
    if table.is_empty() {
        return "no endpoints\n".to_owned();
    }
    table.render()
}

/// Who isolates the pod, or `open`.
fn policies(direction: &Direction) -> String {
    if direction.isolated_by.is_empty() {
        "open".to_owned()
    } else {
        direction.isolated_by.join(",")
    }
}
