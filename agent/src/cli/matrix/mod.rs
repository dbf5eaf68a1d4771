//! `weir policy matrix`: who reaches whom, on which ports.

mod document;
mod dot;
mod model;
mod svg;
mod table;

use super::args::{MatrixArgs, MatrixFormat};
use super::color::Colors;
use super::output::{Done, json};
use super::reach::{Census, Compiled, Tables, units};
use super::terminal;
use super::world::World;
use model::{Exactness, Matrix};

pub(super) fn run(args: &MatrixArgs, colors: Colors, is_terminal: bool) -> anyhow::Result<Done> {
    let world = World::load(&args.manifests, &args.socket.socket)?;
    let census = Census::of(&[&world]);
    let mut compiled = Compiled::new(&world, 0, &census);
    let units = units(&census, &[&world], std::slice::from_ref(&compiled));
    let wanted = args.namespace.namespace.as_deref();
    if let Some(namespace) = wanted
        && !units
            .iter()
            .any(|u| u.is_pods() && u.namespace == namespace)
    {
        anyhow::bail!("namespace {namespace} has no pods with a network of their own");
    }
    let mut tables = Tables::new();
    let matrix = Matrix::of(&census, &units, &mut compiled, &mut tables, wanted);
    let exactness = if args.ports || args.verbose {
        Exactness::Exact
    } else {
        Exactness::Declared
    };
    let text = match args.output {
        MatrixFormat::Table => {
            let width = terminal::width(is_terminal);
            table::render(&matrix, exactness, width, colors)
        }
        MatrixFormat::Json => json(&document::json(&matrix))?,
        MatrixFormat::Csv => document::csv(&matrix, exactness),
        MatrixFormat::Dot => dot::render(&matrix, exactness),
        MatrixFormat::Svg => svg::render(&matrix, exactness),
    };
    let mut done = Done::ok(text);
    world.complain(&args.manifests, true, &mut done);
    if let Some(note) = census.made_up_note() {
        done.complain(&note);
    }
    Ok(done)
}
