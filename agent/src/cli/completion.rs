//! `weir completion`.

use super::args::{CompletionArgs, command};
use super::output::Done;

pub(super) fn run(args: &CompletionArgs) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "weir", &mut script);
    Done::ok(String::from_utf8_lossy(&script).into_owned())
}
