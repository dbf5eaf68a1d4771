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
    tell_agent(&client, &key, log);
    detach(&key, &Store::new(&config.state_dir), log)
}

/// Tells the agent that an attachment goes; false if there is no agent to tell.
pub fn tell_agent(client: &Client, key: &Key, log: &mut Log) -> bool {
    match client.release(&key.container_id, &key.ifname) {
        Ok(()) => true,
        Err(ClientError::Api(error)) if error.reason == Reason::NotFound => true,
        Err(error) => {
            log.warn(format_args!(
                "the agent was not told of DEL, it will see for itself: {error}"
            ));
            !error.is_unavailable()
        }
    }
}

/// Removes the pair, then the record: a process that is killed between the two leaves what names
/// the rest.
pub fn detach(key: &Key, store: &Store, log: &mut Log) -> Result<()> {
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
