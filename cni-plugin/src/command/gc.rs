//! GC: detaches what the runtime no longer knows.

use std::{collections::BTreeSet, time::Duration};

use weir_api::client::Client;

use crate::{
    command::del::detach,
    config::Config,
    error::{CniError, Code, Result},
    ipam::{Key, Store},
    log::Log,
};

/// Longest wait for the agent, for each attachment.
const AGENT: Duration = Duration::from_secs(2);

/// Detaches all attachments of this network that are not in the configuration's list; nothing if
/// there is no list. Goes on after a failure and reports all.
pub fn gc(config: &Config, log: &mut Log) -> Result<()> {
    let Some(valid) = &config.valid else {
        log.info("no list of valid attachments: nothing is collected");
        return Ok(());
    };
    let store = Store::new(&config.state_dir);
    let client = Client::new(&config.socket).timeout(AGENT);
    let mut failures = Vec::new();
    let mut stale = BTreeSet::new();
    match store.read() {
        Ok(state) => stale.extend(state.records.into_iter().map(|record| record.key)),
        Err(error) => failures.push(error),
    }
    let endpoints = client.endpoints();
    let mut agent = endpoints.is_ok().then_some(&client);
    for endpoint in endpoints.unwrap_or_default() {
        let attachment = endpoint.attachment;
        stale.insert(Key {
            network: attachment.network,
            container_id: attachment.container_id,
            ifname: attachment.ifname,
        });
    }
    stale.retain(|key| {
        let attachment = (key.container_id.clone(), key.ifname.clone());
        key.network == config.name && !valid.contains(&attachment)
    });
    for key in &stale {
        log.info(format_args!(
            "collecting {}/{}",
            key.container_id, key.ifname
        ));
        failures.extend(detach(key, &store, &mut agent, log).err());
    }
    match failures.split_first() {
        None => Ok(()),
        Some((first, [])) => Err(first.clone()),
        Some((first, _)) => {
            let all = failures
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ");
            let msg = format!(
                "{} of GC's removals failed; the first: {}",
                failures.len(),
                first.msg
            );
            Err(CniError::new(Code::Internal, msg).details(all))
        }
    }
}
