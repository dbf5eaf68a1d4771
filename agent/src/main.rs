//! `weir-agent`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::SUCCESS
}
