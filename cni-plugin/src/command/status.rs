//! STATUS: can ADD be served now? containerd asks every few seconds and sets no time limit.

use std::time::Duration;

use weir_api::client::Client;

use crate::{
    config::Config,
    error::{CniError, Code, Result},
    ipam::{Store, boot_id},
};

/// Longest wait for the agent.
const AGENT: Duration = Duration::from_millis(700);

/// Fails with code 50 if ADD cannot be served, 51 if moreover the datapath of existing pods is not
/// what it should be. A missing agent is 50: what it has programmed goes on without it.
pub fn status(config: &Config) -> Result<()> {
    let unavailable = |error: CniError| CniError {
        code: Code::NotAvailable,
        ..error
    };
    let node = config.node().map_err(unavailable)?;
    let state = Store::new(&config.state_dir).read().map_err(unavailable)?;
    state
        .check_room(&node.pools, &boot_id()?)
        .map_err(unavailable)?;
    let client = Client::new(&config.socket).timeout(AGENT);
    let status = client.status().map_err(|error| unavailable(error.into()))?;
    if status.ready {
        return Ok(());
    }
    let reasons = status.degraded.join("; ");
    if status.synced {
        let msg = "the agent's datapath is not in order: connectivity of pods may be limited";
        return Err(CniError::new(Code::LimitedConnectivity, msg).details(reasons));
    }
    let msg = "the agent is not ready: its source has not been read completely yet";
    Err(CniError::new(Code::NotAvailable, msg).details(reasons))
}
