//! `weir install`: what the init container does.

use anyhow::Context as _;
use serde_json::json;

use super::args::InstallArgs;
use super::output::{Done, json};
use crate::install::{
    binaries::{self, Outcome},
    bpffs,
};

pub(super) fn run(args: &InstallArgs) -> anyhow::Result<Done> {
    let plugin = match &args.plugin {
        Some(path) => path.clone(),
        None => binaries::beside_this_program().context("cannot find this program's own file")?,
    };
    let mut done = Vec::new();
    if let Some(dir) = &args.bpffs {
        done.push((dir.clone(), bpffs::ensure(dir)?));
    }
    let plugin = binaries::install_plugin(&plugin, &args.bin_dir)?;
    done.push((args.bin_dir.join(binaries::PLUGIN), plugin));
    let loopback = binaries::install_loopback(&args.bin_dir)?;
    done.push((args.bin_dir.join(binaries::LOOPBACK), loopback));
    if args.output.is_json() {
        let items = done
            .iter()
            .map(|(path, outcome)| json!({"path": path, "outcome": word(*outcome)}));
        return Ok(Done::ok(json(
            &json!({"items": items.collect::<Vec<_>>()}),
        )?));
    }
    let lines = done
        .iter()
        .map(|(path, outcome)| format!("{:<10} {}\n", word(*outcome), path.display()));
    Ok(Done::ok(lines.collect()))
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Installed => "installed",
        Outcome::Unchanged => "unchanged",
        Outcome::Foreign => "foreign",
    }
}
