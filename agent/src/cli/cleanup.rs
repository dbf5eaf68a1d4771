//! `weir cleanup`.

use anyhow::Context as _;
use serde_json::json;
use weir_net::Netlink;

use super::args::CleanupArgs;
use super::color::Colors;
use super::output::{Done, ERROR, json};
use super::table::Table;
use crate::install::cleanup::{Places, Survey, Thing};

/// Exit status where nothing may be removed.
const REFUSED: u8 = 1;

/// What became of a thing.
struct Fate {
    thing: Thing,
    /// `present`, `removed` or `failed`.
    state: &'static str,
    message: Option<String>,
}

pub(super) fn run(args: &CleanupArgs, colors: Colors) -> anyhow::Result<Done> {
    let netlink = Netlink::open().context("opening netlink")?;
    let survey = Survey::take(&places(args), &netlink)?;
    let refusal = refusal(&survey, args.force);
    let remove = args.yes && refusal.is_none();
    let fates = survey.things.iter().map(|thing| {
        let (state, message) = match remove.then(|| thing.remove(&netlink)) {
            None => ("present", None),
            Some(Ok(())) => ("removed", None),
            Some(Err(message)) => ("failed", Some(message)),
        };
        Fate {
            thing: thing.clone(),
            state,
            message,
        }
    });
    let fates: Vec<Fate> = fates.collect();
    let mut done = match args.output.is_json() {
        true => Done::ok(document(&fates, refusal.as_deref())?),
        false => Done::ok(text(&fates, remove, refusal.is_some(), colors)),
    };
    for fate in &fates {
        if let Some(message) = &fate.message {
            done.complain(message);
            done.at_least(ERROR);
        }
    }
    if let Some(refusal) = refusal {
        done.complain(&refusal);
        done.at_least(REFUSED);
    }
    Ok(done)
}

fn places(args: &CleanupArgs) -> Places {
    Places {
        bpffs: args.bpffs.clone(),
        state_dir: args.state_dir.clone(),
        socket: args.socket.socket.clone(),
        conflist: args.cni_conf_dir.join(&args.cni_conf_name),
        bin_dir: args.bin_dir.clone(),
    }
}

/// Why nothing may be removed.
fn refusal(survey: &Survey, force: bool) -> Option<String> {
    if let Some(why) = &survey.running {
        return Some(format!("an agent may be running on this node: {why}"));
    }
    if survey.attached.is_empty() || force {
        return None;
    }
    Some(format!(
        "{} attached ({}): drain the node first, or cut them off with --force",
        match survey.attached.len() {
            1 => "1 pod is".to_owned(),
            n => format!("{n} pods are"),
        },
        survey.attached.join(", ")
    ))
}

fn text(fates: &[Fate], removed: bool, refused: bool, colors: Colors) -> String {
    if fates.is_empty() {
        return "nothing of Weir is on this node\n".into();
    }
    let mut table = Table::new(&["KIND", "STATE", "NAME"]);
    for fate in fates {
        let state = match fate.state {
            "removed" => colors.good("removed"),
            "failed" => colors.bad("failed"),
            other => other.to_owned(),
        };
        table.row([fate.thing.kind().to_owned(), state, fate.thing.name()]);
    }
    let mut text = table.render();
    if !removed && !refused {
        text.push_str("\nnothing was removed: --yes removes all of it\n");
    }
    text
}

fn document(fates: &[Fate], refusal: Option<&str>) -> anyhow::Result<String> {
    let items = fates.iter().map(|fate| {
        json!({
            "kind": fate.thing.kind(), "name": fate.thing.name(),
            "state": fate.state, "message": fate.message,
        })
    });
    let items: Vec<_> = items.collect();
    json(&json!({"refused": refusal, "items": items}))
}
