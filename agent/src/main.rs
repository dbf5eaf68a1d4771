//! `weir-agent`, Weir's daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir_agent::run::main()
}
