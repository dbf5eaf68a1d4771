//! `weir policy diff`: which verdicts would change, over all pods and all ports.

mod blocks;
mod change;
mod document;
mod edit;
mod observed;
mod text;

use super::args::DiffArgs;
use super::color::Colors;
use super::output::{Done, json};
use super::reach::{Census, Compiled, Tables, Unit, units};
use super::world::World;
use change::{Changes, Detail, changes};

/// Exit status if something changes.
const CHANGES: u8 = 1;

/// What was compared, and what came of it.
struct Diff<'a> {
    census: &'a Census<'a>,
    units: &'a [Unit],
    tables: &'a Tables,
    changes: &'a Changes,
    /// How many policies there are before and after.
    policies: [usize; 2],
}

pub(super) fn run(args: &DiffArgs, colors: Colors) -> anyhow::Result<Done> {
    let manifests = World::manifests(&args.manifests, &args.socket.socket)?;
    let edited = edit::edited(&manifests, &args.with, &args.without)?;
    let before = World::of_manifests(manifests);
    let after = World::of_manifests(edited);
    let worlds = [&before, &after];
    let census = Census::of(&worlds);
    let compiled = Compiled::new(&before, 0, &census);
    let edited = compiled.edited((&before, &after), 1, &census);
    let mut compiled = [compiled, edited];
    let units = units(&census, &worlds, &compiled);
    let mut tables = Tables::new();
    let detail = if args.verbose || args.output.is_json() {
        Detail::Both
    } else {
        Detail::After
    };
    let changes = changes(&units, &mut compiled, &mut tables, detail);
    let diff = Diff {
        census: &census,
        units: &units,
        tables: &tables,
        changes: &changes,
        policies: worlds
            .map(|world| world.cluster.policies.len() + world.cluster.cluster_policies.len()),
    };
    let mut done = if args.output.is_json() {
        Done::ok(json(&document::document(&diff))?)
    } else {
        Done::ok(text::text(&diff, args.verbose, colors))
    };
    if changes.changed > 0 {
        done.at_least(CHANGES);
    }
    // The edited world's notes are those of both.
    after.complain(&args.manifests, true, &mut done);
    if let Some(note) = census.made_up_note() {
        done.complain(&note);
    }
    Ok(done)
}
