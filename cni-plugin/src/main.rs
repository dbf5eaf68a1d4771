//! Weir's CNI plugin: the CNI specification 1.1.0 (and its versions from 0.3.0) for runtimes, with
//! address allocation of its own. It makes the pod's interface and asks the agent to adopt it; ADD
//! returns only once the pod's policy is in force. Under the name `loopback` it is that plugin.
//!
//! Stdout belongs to results and errors, in the specification's JSON. `docs/cni.md` is for users.
#![forbid(unsafe_code)]

mod command;
mod config;
mod env;
mod error;
mod ipam;
mod log;
mod loopback;
mod result;
mod signal;
mod version;
mod wire;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::{
    config::Config,
    env::{Call, Command},
    error::Result,
    log::Log,
    version::Version,
};

fn main() -> ExitCode {
    let call = match Call::from_env() {
        Ok(Some(call)) => call,
        Ok(None) => {
            about();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            return fail(
                &error,
                Version::LATEST.as_str(),
                &mut Log::stderr("-".into()),
            );
        }
    };
    let subject = match call.command {
        Command::Gc | Command::Status | Command::Version => call.command.as_str().to_owned(),
        command => format!("{} {}/{}", command.as_str(), call.container_id, call.ifname),
    };
    let mut log = Log::stderr(subject);
    let stdin = match config::read_stdin() {
        Ok(stdin) => stdin,
        Err(error) => return fail(&error, Version::LATEST.as_str(), &mut log),
    };
    let done = if loopback::is_meant(std::env::args_os().next().as_deref()) {
        loopback::run(&call, &stdin, print)
    } else {
        run(&call, &stdin, &mut log)
    };
    if let Err(error) = done {
        let version = config::version_of(&stdin).filter(|v| Version::parse(v).is_ok());
        let version = version.as_deref().unwrap_or(Version::LATEST.as_str());
        return fail(&error, version, &mut log);
    }
    ExitCode::SUCCESS
}

fn run(call: &Call, stdin: &[u8], log: &mut Log) -> Result<()> {
    if call.command == Command::Version {
        return print(&command::version(stdin)).map_err(|error| {
            error::CniError::new(error::Code::Io, format!("cannot write the result: {error}"))
        });
    }
    let config = Config::parse(stdin)?;
    log.configure(config.log_level, config.log_file.as_deref());
    match call.command {
        Command::Add => command::add(call, &config, log, print),
        Command::Del => command::del(call, &config, log),
        Command::Check => {
            config.version.require(Version::V040, "CHECK")?;
            command::check(call, &config)
        }
        Command::Gc => {
            config.version.require(Version::V110, "GC")?;
            command::gc(&config, log)
        }
        Command::Status => {
            config.version.require(Version::V110, "STATUS")?;
            command::status(&config)
        }
        Command::Version => Ok(()),
    }
}

/// Writes a document to stdout, whole or with an error.
fn print(document: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{document}")?;
    stdout.flush()
}

/// Writes the error document to stdout, as libcni looks for it there.
fn fail(error: &error::CniError, version: &str, log: &mut Log) -> ExitCode {
    log.error(error);
    // Where stdout is gone too, the exit code must do.
    let _ = print(&error.document(version));
    ExitCode::FAILURE
}

/// For a person who ran the binary by hand.
fn about() {
    let (version, list) = (env!("CARGO_PKG_VERSION"), Version::list().join(", "));
    let text = format!(
        "weir-cni {version}: a CNI plugin, to be run by a container runtime\n\
         CNI protocol versions supported: {list}\n"
    );
    let _ = io::stderr().write_all(text.as_bytes());
}
