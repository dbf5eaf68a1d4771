//! ADD.

use std::{io, time::Duration};

use weir_api::{
    ADOPT_WAIT,
    client::{Client, ClientError},
    endpoint::AdoptRequest,
};
use weir_net::{NetNs, Netlink};

use crate::{
    config::Config,
    env::Call,
    error::{CniError, Code, Result},
    ipam::{Key, Record, Request, Store, boot_id},
    log::Log,
    result,
    signal::Interrupt,
    wire::{self, Plan},
};

/// Longest wait for the agent while undoing.
const RELEASE: Duration = Duration::from_secs(2);

/// Attaches a pod, and gives `print` the result once its policy is in force. Whatever fails, what
/// was done before is undone.
pub fn add(
    call: &Call,
    config: &Config,
    log: &mut Log,
    print: impl FnOnce(&str) -> io::Result<()>,
) -> Result<()> {
    if config.prev_result.is_some() {
        let msg = "prevResult: weir-cni makes the pod's interface and must be the first plugin of its list";
        return Err(CniError::new(Code::InvalidConfig, msg));
    }
    let wanted = config.wanted(&call.args.ips)?;
    let node = config.node()?;
    let netns = open_netns(call)?;
    let pod = Netlink::open_in(&netns)?;
    let host_ifname = wire::host_ifname(&call.container_id, &call.ifname);
    let key = Key {
        network: config.name.clone(),
        container_id: call.container_id.clone(),
        ifname: call.ifname.clone(),
    };
    let store = Store::new(&config.state_dir);
    if pod.find_link(&call.ifname)?.is_some() {
        return Err(taken(call, &store, &key)?);
    }

    // The agent answers within its own `--adopt-timeout` if it lives.
    let client = Client::new(&config.socket).timeout(ADOPT_WAIT);
    let interrupt = Interrupt::watch(client.canceller())?;
    let request = Request {
        key,
        pools: &node.pools,
        wanted: &wanted,
        host_ifname: host_ifname.clone(),
        boot_id: boot_id()?,
        pod: call
            .args
            .pod
            .as_ref()
            .map(|pod| format!("{}/{}", pod.namespace, pod.name)),
    };
    let record = allocate(&store, &request)?;
    let mut undo = Undo {
        config,
        store: &store,
        record: &record,
        link: false,
        agent: false,
    };
    let plan = Plan {
        host_ifname: &host_ifname,
        ifname: &call.ifname,
        host_mac: wire::mac(&call.container_id, &call.ifname, "host"),
        pod_mac: wire::mac(&call.container_id, &call.ifname, "pod"),
        mtu: node.mtu,
        addresses: &record.addresses,
    };
    log.debug(format_args!("allocated {:?}", record.addresses));
    let attachment = Attachment {
        call,
        config,
        plan: &plan,
        netns: &netns,
        pod: &pod,
    };
    let made = attachment
        .make(&client, &interrupt, &mut undo, log)
        .and_then(|()| {
            let result = result::of_add(config.version, &plan, &call.netns, &config.dns);
            print(&result)
                .map_err(|e| CniError::new(Code::Io, format!("cannot write the result: {e}")))
        });
    match made {
        Ok(()) => {
            log.info(format_args!(
                "attached {:?} by {host_ifname}",
                record.addresses
            ));
            Ok(())
        }
        Err(error) => Err(undo.run(log, error)),
    }
}

/// Reserves addresses. A write that fails may have changed the store all the same, as syncing the
/// directory comes after the rename: then the record is taken back.
fn allocate(store: &Store, request: &Request<'_>) -> Result<Record> {
    let mut made = None;
    let allocated = store.change(|state| {
        let record = state.allocate(request)?;
        made = Some(record.clone());
        Ok(record)
    });
    if let (Err(_), Some(record)) = (&allocated, made) {
        // If this fails too, DEL and GC still find the record.
        let _ = store.release(&record);
    }
    allocated
}

/// Opens the pod's namespace, which must not be the node's.
pub fn open_netns(call: &Call) -> Result<NetNs> {
    let invalid =
        |error: weir_net::Error| CniError::new(Code::InvalidNetns, format!("CNI_NETNS: {error}"));
    let netns = NetNs::open(&call.netns).map_err(invalid)?;
    if !call.netns_override && netns == NetNs::current()? {
        let msg = format!(
            "CNI_NETNS {} is the namespace weir-cni itself runs in",
            call.netns
        );
        return Err(CniError::new(Code::InvalidNetns, msg));
    }
    Ok(netns)
}

/// The error for an interface that is there already: this attachment's own, or somebody else's.
fn taken(call: &Call, store: &Store, key: &Key) -> Result<CniError> {
    if store.read()?.find(key).is_some() {
        let msg = format!(
            "{}/{} is attached to network {} already; DEL it first",
            call.container_id, call.ifname, key.network
        );
        return Ok(CniError::new(Code::AlreadyAttached, msg));
    }
    let msg = format!(
        "CNI_IFNAME {} exists already in {}",
        call.ifname, call.netns
    );
    Ok(CniError::new(Code::InvalidEnvironment, msg))
}

/// What the steps after the allocation need.
struct Attachment<'a> {
    call: &'a Call,
    config: &'a Config,
    plan: &'a Plan<'a>,
    netns: &'a NetNs,
    pod: &'a Netlink,
}

impl Attachment<'_> {
    fn make(
        &self,
        client: &Client,
        interrupt: &Interrupt,
        undo: &mut Undo<'_>,
        log: &mut Log,
    ) -> Result<()> {
        interrupt.check()?;
        let host = Netlink::open()?;
        wire::make_pair(&host, self.netns, self.plan, &mut undo.link)?;
        interrupt.check()?;
        wire::configure_pod(self.pod, self.netns, self.plan)?;
        let index = wire::prepare_host(&host, self.plan)?;
        interrupt.check()?;
        log.debug(format_args!(
            "made {}, asking {}",
            self.plan.host_ifname,
            self.config.socket.display()
        ));
        let cookie = self.netns.cookie()?;
        let adopted = client.adopt(&self.request(index, cookie));
        // Only a refusal says for certain that nothing is adopted.
        undo.agent = !matches!(
            adopted,
            Err(ClientError::Api(_) | ClientError::NoSocket { .. } | ClientError::Refused { .. })
        );
        adopted?;
        wire::raise_host(&host, index, self.pod, self.netns, self.plan)?;
        interrupt.check()
    }

    fn request(&self, host_ifindex: u32, netns_cookie: u64) -> AdoptRequest {
        AdoptRequest {
            container_id: self.call.container_id.clone(),
            ifname: self.call.ifname.clone(),
            network: self.config.name.clone(),
            netns: Some(self.call.netns.clone()),
            netns_cookie: Some(netns_cookie),
            host_ifname: self.plan.host_ifname.to_owned(),
            host_ifindex,
            host_mac: self.plan.host_mac.to_string(),
            pod_mac: self.plan.pod_mac.to_string(),
            mtu: self.plan.mtu,
            addresses: self.plan.addresses.to_vec(),
            pod: self.call.args.pod.clone(),
        }
    }
}

/// What there is to undo, besides the record.
struct Undo<'a> {
    config: &'a Config,
    store: &'a Store,
    record: &'a Record,
    link: bool,
    agent: bool,
}

impl Undo<'_> {
    /// Undoes in DEL's order, see [`super::del::detach`]. The record stays if the link does, for DEL and GC to find it by.
    fn run(self, log: &mut Log, mut error: CniError) -> CniError {
        log.warn(format_args!("undoing: {error}"));
        let mut failed = Vec::new();
        let Key {
            container_id,
            ifname,
            ..
        } = &self.record.key;
        if self.link {
            let deleted =
                Netlink::open().and_then(|host| host.delete_link(&self.record.host_ifname));
            failed.extend(deleted.err().map(|error| error.to_string()));
        }
        if self.agent {
            let client = Client::new(&self.config.socket).timeout(RELEASE);
            // It will see for itself that the link is gone.
            if let Err(error) = client.release(container_id, ifname) {
                log.warn(format_args!("the agent was not told: {error}"));
            }
        }
        if failed.is_empty() {
            failed.extend(
                self.store
                    .release(self.record)
                    .err()
                    .map(|error| error.to_string()),
            );
        }
        for failure in failed {
            log.error(format_args!("undoing: {failure}"));
            let separator = if error.details.is_empty() { "" } else { "; " };
            error.details += &format!("{separator}undoing failed, DEL is needed: {failure}");
        }
        error
    }
}
