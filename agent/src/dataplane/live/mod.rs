//! What the loaded programs do with a packet, found out without leaving a trace: a second load of
//! the object with `DRY_RUN` set runs a crafted packet over the pinned maps (docs/datapath.md).
//!
//! Everything here blocks, and acts in the calling thread's network namespace, which must be the
//! node's.

mod dry_run;
mod shared;

use std::{net::IpAddr, path::Path};

use weir_abi::{
    Addr, Proto,
    endpoint::Endpoint,
    map,
    node::{NodeAddr, NodeCidr},
    policy::{LpmKey, RuleVerdict},
    service::BackendId,
};
use weir_api::{
    error::{ApiError, Reason},
    live::{LiveAnswer, LiveBackend, LiveRequest, LiveVerdict},
};
use weir_net::Netlink;

pub use dry_run::{DryRun, Hook, Place, Ran};
pub use shared::Shared;

use super::{
    Error, PinnedView, counters, load, object,
    pins::{self, Pins},
    service_arrays::BackendArray,
    table::{Table, Trie, Writes},
};
use crate::packet::{self, Flow, Macs};

/// The first source port that is tried: above those that Linux gives by itself.
const SOURCE_PORT: u16 = 61_000;
/// How many are tried until one is no tracked flow's.
const PORT_TRIES: u16 = 16;
/// The loopback device's index in every namespace.
const LOOPBACK: u32 = 1;

/// The programs and the maps that name what they say.
pub struct Live {
    dry_run: DryRun,
    view: PinnedView,
    nodes: Table<Addr, NodeAddr>,
    cidrs: Trie<NodeCidr>,
    backends: BackendArray,
    pins: Pins,
}

impl Live {
    /// Loads an object over the pinned maps.
    ///
    /// # Errors
    /// A map is not pinned, or is of another shape; the object does not parse.
    pub fn load(object: &[u8], pins: &Pins) -> Result<Self, Error> {
        let writes = Writes::default();
        Ok(Self {
            dry_run: DryRun::load(object, pins)?,
            view: PinnedView::of(pins)?,
            nodes: Table::open(pins, map::NODE_ADDRS, &writes)?,
            cidrs: Trie::open(pins, map::NODE_CIDRS, &writes)?,
            backends: BackendArray::open(pins, &writes)?,
            pins: pins.clone(),
        })
    }

    /// Loads this binary's object, if the programs in force below `bpffs` came from the same.
    ///
    /// # Errors
    /// They did not, or as [`Live::load`].
    pub fn open(bpffs: &Path) -> Result<Self, Error> {
        let pins = Pins::new(bpffs);
        let object = object::bytes(None)?;
        if !load::is_in_force(&object, &pins)? {
            return Err(Error::pin(
                pins.progs(),
                "these programs did not come from this release's object: use the `weir` of the agent's release, or name the agent's --ebpf-object by WEIR_EBPF_OBJECT",
            ));
        }
        Self::load(&object, &pins)
    }

    /// Runs the first packet of a flow through the program that would see it on this node.
    ///
    /// # Errors
    /// Neither end is an endpoint of this node; such a packet cannot be made; the kernel's.
    pub fn ask(&mut self, request: &LiveRequest) -> Result<LiveAnswer, ApiError> {
        let (place, macs) = self.place(request)?;
        let mut flow = Flow {
            source: request.source,
            destination: request.destination,
            protocol: Proto(request.protocol),
            source_port: request.source_port.unwrap_or(SOURCE_PORT),
            port: request.port,
        };
        let mut ran = self.run(place, &flow, macs)?;
        if request.source_port.is_none() {
            for _ in 1..PORT_TRIES {
                if !ran.report.tracked() {
                    break;
                }
                flow.source_port += 1;
                ran = self.run(place, &flow, macs)?;
            }
        }
        Ok(self.answer(place, flow.source_port, &ran)?)
    }

    fn run(&mut self, place: Place, flow: &Flow, macs: Macs) -> Result<Ran, ApiError> {
        let frame = packet::first(flow, macs).map_err(|message| ApiError {
            reason: Reason::BadRequest,
            message,
        })?;
        Ok(self.dry_run.run(place, &frame)?)
    }

    /// Which program sees the packet, and the frame's addresses there.
    fn place(&self, request: &LiveRequest) -> Result<(Place, Macs), ApiError> {
        let LiveRequest {
            source,
            destination,
            ..
        } = *request;
        if let Some(pod) = self.view.endpoint(source)? {
            let Endpoint { ifindex, .. } = pod;
            let macs = Macs {
                destination: pod.host_mac,
                source: pod.pod_mac,
            };
            let place = Place {
                hook: Hook::FromPod,
                ifindex,
                ingress_ifindex: ifindex,
            };
            return Ok((place, macs));
        }
        let Some(pod) = self.view.endpoint(destination)? else {
            return Err(ApiError {
                reason: Reason::NotFound,
                message: format!(
                    "neither {source} nor {destination} is the address of an endpoint of this node: ask the node of one"
                ),
            });
        };
        if self.nodes.get(&source.into())?.is_some() {
            let macs = Macs {
                destination: pod.pod_mac,
                source: pod.host_mac,
            };
            let place = Place {
                hook: Hook::ToPod,
                ifindex: pod.ifindex,
                ingress_ifindex: 0,
            };
            return Ok((place, macs));
        }
        self.uplink(source)
    }

    /// The uplink by which a source's packets come.
    fn uplink(&self, source: IpAddr) -> Result<(Place, Macs), ApiError> {
        let node = self.cidrs.get(&LpmKey::host(source.into()))?;
        let hook = match node {
            Some(cidr) if !cidr.tunnel.is_none() => Hook::FromOverlay,
            _ => Hook::FromUplink,
        };
        let towards = node.map(|cidr| cidr.ifindex).filter(|index| *index != 0);
        let ifindex = match towards {
            Some(index) => index,
            // Without tcx there are no links, and to the program any device is as good.
            None => self.attached(hook)?.unwrap_or(LOOPBACK),
        };
        let found = Netlink::open().and_then(|netlink| netlink.link_by_index(ifindex));
        let link = found.map_err(internal)?.unwrap_or_default();
        let macs = Macs {
            // A frame to another address is not for this machine.
            destination: link.mac.unwrap_or_default().0,
            ..Macs::default()
        };
        let place = Place {
            hook,
            ifindex,
            ingress_ifindex: ifindex,
        };
        Ok((place, macs))
    }

    /// The first uplink, or the overlay's or WireGuard's device, that carries a program.
    fn attached(&self, hook: Hook) -> Result<Option<u32>, Error> {
        let roles: &[&str] = match hook {
            Hook::FromOverlay => &["ov-", "wg-"],
            _ => &["up-"],
        };
        let names = pins::names(&self.pins.links())?;
        Ok(names.iter().find_map(|name| {
            let index = roles.iter().find_map(|role| name.strip_prefix(role))?;
            let index = index.strip_suffix("-in")?;
            index.parse().ok()
        }))
    }

    fn answer(&self, place: Place, source_port: u16, ran: &Ran) -> Result<LiveAnswer, Error> {
        let report = &ran.report;
        let (action, reason) = counters::labels(report.counter);
        let verdict = |verdict: Option<RuleVerdict>| verdict.map(|v| self.verdict(v)).transpose();
        let backend = match report.backend {
            BackendId(0) => None,
            id => self.backends.get(id),
        };
        Ok(LiveAnswer {
            program: place.hook.program().to_owned(),
            action: action.to_owned(),
            reason: reason.to_owned(),
            egress: verdict(report.egress())?,
            ingress: verdict(report.ingress())?,
            tracked: report.tracked(),
            source_port,
            backend: backend.map(|backend| LiveBackend {
                address: backend.addr.to_ip(),
                port: backend.port.get(),
            }),
        })
    }

    fn verdict(&self, verdict: RuleVerdict) -> Result<LiveVerdict, Error> {
        Ok(LiveVerdict {
            allowed: verdict.allowed(),
            rule_id: verdict.rule().0,
            rule: self.view.rule(verdict.rule())?,
        })
    }
}

fn internal(error: impl ToString) -> ApiError {
    ApiError {
        reason: Reason::Internal,
        message: error.to_string(),
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        internal(error)
    }
}
