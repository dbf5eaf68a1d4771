//! The `weir` command: what it knows, it asks of the agent's socket, of manifests, or, with the
//! agent down, of the pinned maps. `docs/cli.md` is the same for people.

mod args;
mod backends;
mod cause;
mod cleanup;
mod color;
mod completion;
mod diff;
mod document;
mod endpoint_list;
mod ends;
mod install;
mod kernel;
mod layout;
mod live;
mod maker;
mod matrix;
mod output;
mod policy_list;
mod policy_test;
mod policy_trace;
mod policy_verify;
mod probes;
mod question;
mod reach;
mod report;
mod service_list;
mod status;
mod steps;
mod table;
mod terminal;
mod words;
mod world;

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

pub use args::command;
pub use output::Done;

use args::{Cli, Command, EndpointCommand, PolicyCommand, ServiceCommand};
use color::Colors;

/// Runs a command line (the program's name first) and returns what it prints.
pub fn run<I, T>(arguments: I, terminal: bool) -> Done
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return Done::usage(&error),
    };
    let colors = Colors::new(terminal);
    let result = match &cli.command {
        Command::Status(args) => status::run(args, colors),
        Command::Endpoint(EndpointCommand::List(args)) => endpoint_list::run(args, colors),
        Command::Service(ServiceCommand::List(args)) => service_list::run(args, colors),
        Command::Policy(PolicyCommand::List(args)) => policy_list::run(args, colors),
        Command::Policy(PolicyCommand::Trace(args)) => policy_trace::run(args, colors),
        Command::Policy(PolicyCommand::Diff(args)) => diff::run(args, colors),
        Command::Policy(PolicyCommand::Matrix(args)) => matrix::run(args, colors, terminal),
        Command::Policy(PolicyCommand::Verify(args)) => policy_verify::run(args, colors),
        Command::Policy(PolicyCommand::Test(args)) => policy_test::run(args, colors),
        Command::Cleanup(args) => cleanup::run(args, colors),
        Command::Install(args) => install::run(args),
        Command::Version(args) => Ok(output::version(args)),
        Command::Completion(args) => Ok(completion::run(args)),
    };
    result.unwrap_or_else(|error| Done::failed(&error))
}

/// The `weir` program.
pub fn main() -> ExitCode {
    let done = run(std::env::args_os(), std::io::stdout().is_terminal());
    // Who reads may have gone (`weir … | head`): that is no failure of ours.
    let _ = std::io::stderr().write_all(done.stderr.as_bytes());
    let mut stdout = std::io::stdout();
    let _ = stdout
        .write_all(done.stdout.as_bytes())
        .and_then(|()| stdout.flush());
    ExitCode::from(done.code)
}
