//! What an eBPF object built with its `log` feature says of each packet it drops, for debugging
//! the programs. The object that is built in has no such log.

use std::{os::fd::AsFd as _, path::Path};

use anyhow::Context as _;
use aya::programs::ProgramInfo;
use aya_log::EbpfLogger;

use super::pins::Pins;

/// The map of aya-log's records.
const MAP: &str = "AYA_LOGS";
/// A program that logs.
const PROGRAM: &str = "from_pod";

/// Whether the object has a log.
pub fn is_in(object: &[u8]) -> bool {
    aya_obj::Object::parse(object).is_ok_and(|object| object.maps.contains_key(MAP))
}

/// Writes the programs' records to the agent's log for as long as it lives.
///
/// # Errors
/// The pinned programs have no log, or it cannot be read any more.
pub async fn follow(pins: Pins) -> anyhow::Result<()> {
    let path = pins.prog(PROGRAM);
    let id = program_id(&path).with_context(|| path.display().to_string())?;
    // The agent's subscriber takes what comes through the `log` crate as well. Set already is fine.
    let _ = tracing_log::LogTracer::init();
    let mut logger = EbpfLogger::init_from_id(id).context("aya-log's map")?;
    let records = crate::fd::readable(logger.as_fd().try_clone_to_owned()?)?;
    loop {
        let mut guard = records.readable().await?;
        logger.flush();
        guard.clear_ready();
    }
}

fn program_id(path: &Path) -> anyhow::Result<u32> {
    Ok(ProgramInfo::from_pin(path)?.id())
}
