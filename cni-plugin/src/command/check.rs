//! CHECK: is the attachment as ADD left it? Reads only.

use std::{net::IpAddr, time::Duration};

use weir_api::client::{Client, ClientError};
use weir_net::{
    IpNetwork, NetNs, Netlink,
    netlink::{Link, Mac},
};

use crate::{
    config::Config,
    env::Call,
    error::{CniError, Code, Result},
    ipam::{Key, Store},
    result::{Interface, Previous, default_route},
    wire::{self, gateway},
};

/// Longest wait for the agent.
const AGENT: Duration = Duration::from_secs(5);

/// Fails with code 104 and a list of all that is wrong. Plugins later in the list may have added
/// to the namespace, or changed the interface and said so in `prevResult`.
pub fn check(call: &Call, config: &Config) -> Result<()> {
    let previous = config.prev_result.as_ref().ok_or_else(|| {
        CniError::new(
            Code::InvalidConfig,
            "CHECK needs prevResult, the result of ADD",
        )
    })?;
    let previous = Previous::parse(previous)?;
    let netns = NetNs::open(&call.netns)
        .map_err(|error| CniError::new(Code::InvalidNetns, format!("CNI_NETNS: {error}")))?;
    let mut check = Check {
        call,
        problems: Vec::new(),
    };
    check.record(config)?;
    let pod = Netlink::open_in(&netns)?;
    let host = Netlink::open()?;
    let host_name = wire::host_ifname(&call.container_id, &call.ifname);
    let host_link = host.find_link(&host_name)?;
    let link = check.interface(&pod, &previous)?;
    let addresses = check.expected_addresses(&previous);
    if let Some(link) = &link {
        check.pod_side(
            &pod,
            link,
            host_link.as_ref().and_then(|l| l.mac),
            &addresses,
            &previous,
        )?;
    }
    match &host_link {
        None => check.problem(format!("host interface {host_name} is missing")),
        Some(own) => check.host_side(&host, own, link.and_then(|l| l.mac), &addresses)?,
    }
    check.agent(config)?;
    let Some(first) = check.problems.first() else {
        return Ok(());
    };
    let msg = format!("{}/{}: {first}", call.container_id, call.ifname);
    Err(CniError::new(Code::CheckFailed, msg).details(check.problems.join("; ")))
}

struct Check<'a> {
    call: &'a Call,
    problems: Vec<String>,
}

impl Check<'_> {
    fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    fn require(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.problem(problem());
        }
    }

    /// The address store's record.
    fn record(&mut self, config: &Config) -> Result<()> {
        let key = Key {
            network: config.name.clone(),
            container_id: self.call.container_id.clone(),
            ifname: self.call.ifname.clone(),
        };
        let state = Store::new(&config.state_dir).read()?;
        self.require(state.find(&key).is_some(), || {
            "its addresses are not reserved: the address store has no record of it".into()
        });
        Ok(())
    }

    /// The pod's interface as `prevResult` names it.
    fn interface(&mut self, pod: &Netlink, previous: &Previous) -> Result<Option<Link>> {
        let ifname = &self.call.ifname;
        let Some(expected) = previous
            .interfaces
            .iter()
            .find(|i| is_container_side(i, ifname))
        else {
            self.problem(format!(
                "prevResult has no interface {ifname} with a sandbox"
            ));
            return Ok(None);
        };
        let Some(link) = pod.find_link(ifname)? else {
            self.problem(format!("interface {ifname} is missing"));
            return Ok(None);
        };
        let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
        self.require(
            expected.mac.is_empty() || expected.mac.eq_ignore_ascii_case(&mac),
            || format!("interface {ifname} has MAC {mac}, not {}", expected.mac),
        );
        self.require(link.up, || format!("interface {ifname} is down"));
        Ok(Some(link))
    }

    /// The addresses of `prevResult` that belong to the interface.
    fn expected_addresses(&mut self, previous: &Previous) -> Vec<IpNetwork> {
        let ours = |index: &Option<usize>| match index {
            None => true,
            Some(index) => previous
                .interfaces
                .get(*index)
                .is_some_and(|interface| is_container_side(interface, &self.call.ifname)),
        };
        let addresses: Vec<IpNetwork> = previous
            .ips
            .iter()
            .filter(|(_, index)| ours(index))
            .map(|(address, _)| *address)
            .collect();
        self.require(!addresses.is_empty(), || {
            "prevResult has no address of the interface".into()
        });
        addresses
    }

    fn pod_side(
        &mut self,
        pod: &Netlink,
        link: &Link,
        host_mac: Option<Mac>,
        addresses: &[IpNetwork],
        previous: &Previous,
    ) -> Result<()> {
        let present = pod.addresses(link.index)?;
        let neighbours = pod.neighbours(link.index)?;
        let routes = pod.routes()?;
        for address in addresses {
            let found = present.iter().find(|a| a.network == *address);
            self.require(found.is_some(), || format!("address {address} is missing"));
            self.require(!found.is_some_and(|a| a.tentative), || {
                format!("address {address} is tentative")
            });
            let hop = gateway(address.ip());
            let known = neighbours
                .iter()
                .any(|n| n.address == hop && n.permanent && n.mac == host_mac);
            self.require(known, || {
                format!("the permanent neighbour entry of gateway {hop} is missing")
            });
            // A later plugin may have moved the default route into a table of its own.
            let expected = (default_route(address.ip()), Some(hop));
            if previous.routes.contains(&expected) {
                let present = routes
                    .iter()
                    .any(|r| (r.destination, r.gateway) == expected);
                self.require(present, || {
                    format!("route {} via {hop} is missing", expected.0)
                });
            }
        }
        Ok(())
    }

    fn host_side(
        &mut self,
        host: &Netlink,
        link: &Link,
        pod_mac: Option<Mac>,
        addresses: &[IpNetwork],
    ) -> Result<()> {
        let name = &link.name;
        self.require(link.up, || format!("host interface {name} is down"));
        let neighbours = host.neighbours(link.index)?;
        let routes = host.routes()?;
        for address in addresses {
            let ip: IpAddr = address.ip();
            let routed = routes
                .iter()
                .any(|r| r.destination == IpNetwork::from(ip) && r.index == Some(link.index));
            self.require(routed, || {
                format!("the host's route to {ip} by {name} is missing")
            });
            let known = neighbours
                .iter()
                .any(|n| n.address == ip && n.permanent && (pod_mac.is_none() || n.mac == pod_mac));
            self.require(known, || {
                format!("the host's permanent neighbour entry of {ip} is missing")
            });
        }
        Ok(())
    }

    /// The agent's word that programs are attached and policy is in force.
    fn agent(&mut self, config: &Config) -> Result<()> {
        let client = Client::new(&config.socket).timeout(AGENT);
        match client.endpoint(&self.call.container_id, &self.call.ifname) {
            Ok(endpoint) if endpoint.attached => {}
            Ok(_) => self.problem("the agent says its programs are not attached".into()),
            Err(ClientError::Api(error)) => self.problem(format!("the agent says: {error}")),
            // What is known to be wrong is worth more than that the agent cannot be asked.
            Err(error) if self.problems.is_empty() => return Err(error.into()),
            Err(error) => self.problem(error.to_string()),
        }
        Ok(())
    }
}

fn is_container_side(interface: &Interface, ifname: &str) -> bool {
    interface.name == ifname && !interface.sandbox.is_empty()
}
