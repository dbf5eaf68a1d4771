//! `weir status`.

use anyhow::Context as _;
use weir_api::client::Client;
use weir_api::status::Status;

use super::args::StatusArgs;
use super::color::Colors;
use super::output::{Done, json};
use super::table::Table;

/// Exit status of an agent that is up and not ready, or degraded.
const UNWELL: u8 = 1;

pub(super) fn run(args: &StatusArgs, colors: Colors) -> anyhow::Result<Done> {
    let status = Client::new(&args.socket.socket)
        .status()
        .context("cannot get the agent's status")?;
    let mut done = if args.output.is_json() {
        Done::ok(json(&status)?)
    } else {
        Done::ok(text(&status, colors))
    };
    if !status.ready || !status.degraded.is_empty() {
        done.at_least(UNWELL);
    }
    Ok(done)
}

fn text(status: &Status, colors: Colors) -> String {
    let Status {
        version,
        node,
        synced,
        ready,
        degraded,
        notes,
        features,
        pod_cidrs,
        counts,
        activity,
    } = status;
    let yes = |b: bool| colors.by(b, if b { "yes" } else { "no" });
    let mut text = format!(
        "node      {node}\nversion   {version}\nready     {}\nsynced    {}\npod CIDRs {}\n\
         objects   {} endpoints here, {} pods, {} services, {} policies{}\n\
         changed   {} map entries, {} programs, {} links, {} routes since the agent started\n",
        yes(*ready),
        yes(*synced),
        if pod_cidrs.is_empty() {
            "none".to_owned()
        } else {
            pod_cidrs.join(", ")
        },
        counts.endpoints,
        counts.pods,
        counts.services,
        counts.policies,
        match counts.cluster_policies {
            0 => String::new(),
            n => format!(", {n} cluster policies"),
        },
        activity.map_writes,
        activity.programs_replaced,
        activity.links_changed,
        activity.routes_changed,
    );
    for problem in degraded {
        text.push_str(&colors.bad(&format!("degraded  {problem}")));
        text.push('\n');
    }
    for note in notes {
        text.push_str(&colors.warn(&format!("note      {note}")));
        text.push('\n');
    }
    if !features.is_empty() {
        let mut table = Table::new(&["FEATURE", "STATE", "DETAIL"]);
        let mut features: Vec<_> = features.iter().collect();
        features.sort_by_key(|feature| &feature.name);
        for feature in features {
            let state = match feature.state.as_str() {
                "used" => colors.good("used"),
                "missing" => colors.bad("missing"),
                other => colors.warn(other),
            };
            table.row([feature.name.clone(), state, feature.detail.clone()]);
        }
        text.push('\n');
        text.push_str(&table.render());
    }
    text
}
