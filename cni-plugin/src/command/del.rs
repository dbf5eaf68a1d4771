//! DEL: needs no namespace, no agent and no `prevResult`, and does what it can.

use std::time::Duration;

use weir_api::{
    client::{Client, ClientError},
    error::Reason,
};
use weir_net::Netlink;

use crate::{
    config::Config,
    env::Call,
    error::Result,
    ipam::{Key, Store},
    log::Log,
    wire,
};

/// Longest wait for the agent, which finds out for itself if it is not told.
const RELEASE: Duration = Duration::from_secs(2);

/// Detaches a pod; success if there is nothing to detach. All steps are tried; the first failure is
/// the error.
pub fn del(call: &Call, config: &Config, log: &mut Log) -> Result<()> {
    let key = Key {
        network: config.name.clone(),
        container_id: call.container_id.clone(),
        ifname: call.ifname.clone(),
    };
    let client = Client::new(&config.socket).timeout(RELEASE);
    let mut agent = Some(&client);
    detach(&key, &Store::new(&config.state_dir), &mut agent, log)
}

/// Tells the agent that an attachment goes. An agent that does not answer is not asked again.
fn tell_agent(agent: &mut Option<&Client>, key: &Key, log: &mut Log) {
    let Some(client) = agent else { return };
    match client.release(&key.container_id, &key.ifname) {
        Ok(()) => {}
        Err(ClientError::Api(error)) if error.reason == Reason::NotFound => {}
        Err(error) => {
            log.warn(format_args!(
                "the agent was not told of DEL, it will see for itself: {error}"
            ));
            if error.is_unavailable() {
                *agent = None;
            }
        }
    }
}

/// Removes the pair, tells the agent, then drops the record. In this order, as a process that is
/// killed in between must leave what names the rest, and as the agent may still be busy with an ADD
/// that was killed: without a link it adopts nothing any more, so that what it is told is the last
/// word.
pub fn detach(key: &Key, store: &Store, agent: &mut Option<&Client>, log: &mut Log) -> Result<()> {
    let record = store.read().map(|state| state.find(key).cloned());
    let mut names = vec![wire::host_ifname(&key.container_id, &key.ifname)];
    if let Ok(Some(record)) = &record
        && !names.contains(&record.host_ifname)
    {
        names.push(record.host_ifname.clone());
    }
    let host = Netlink::open()?;
    let mut result = Ok(());
    for name in &names {
        match host.delete_link(name) {
            Ok(true) => log.debug(format_args!("removed {name}")),
            Ok(false) => {}
            Err(error) => {
                log.error(&error);
                result = result.and(Err(error.into()));
            }
        }
    }
    tell_agent(agent, key, log);
    match record {
        // The record is what GC finds a link by: it stays as long as the link does.
        Ok(Some(record)) if result.is_ok() => {
            store.release(&record)?;
            log.info(format_args!("detached {:?}", record.addresses));
        }
        Ok(_) => {}
        Err(error) => result = result.and(Err(error)),
    }
    result
}
