//! Commands of the API, answered from what the engine knows.

use std::time::Instant;

use weir_api::{
    endpoint::{AdoptRequest, Endpoint},
    error::{ApiError, Reason},
    status::{Activity, Counts, Feature, Status},
};

use super::{
    Command, Engine, Reply,
    adopt::Pending,
    endpoints::{self, Key},
};
use crate::{compile, state::Kind};

impl Engine {
    /// Answers, or remembers to.
    pub(super) fn command(&mut self, command: Command) {
        // A failed send means that whoever asked is gone.
        match command {
            Command::Adopt(request, reply) => self.adopt(*request, reply),
            Command::Remove(key, reply) => {
                let result = if self.local.leave(&key) {
                    self.dirty.endpoints = true;
                    Ok(())
                } else {
                    Err(not_found(&key))
                };
                let _ = reply.send(result);
            }
            Command::Endpoints(reply) => drop(reply.send(self.endpoint_list())),
            Command::Status(reply) => drop(reply.send(self.status())),
            Command::Objects(reply) => drop(reply.send(self.store.to_list())),
            Command::Policies(reply) => drop(reply.send(self.policies())),
            Command::Services(reply) => drop(reply.send(self.services.list())),
            Command::Verdict(request, reply) => {
                let answer = match self.view.verdict(&request) {
                    Ok(Some(verdict)) => Ok(verdict),
                    Ok(None) => Err(ApiError {
                        reason: Reason::NotFound,
                        message: format!(
                            "{}: no endpoint of node {} has this address",
                            request.endpoint, self.config.node_name
                        ),
                    }),
                    Err(e) => Err(ApiError {
                        reason: Reason::Internal,
                        message: e.to_string(),
                    }),
                };
                let _ = reply.send(answer);
            }
            Command::Snapshot(reply) => drop(reply.send(self.snapshot())),
            Command::Health(reply) => drop(reply.send(self.node_health())),
            Command::Metrics(reply) => drop(reply.send(self.metrics())),
            Command::TakenIn(reply) => drop(reply.send(())),
        }
    }

    fn adopt(&mut self, request: AdoptRequest, reply: Reply<Result<Endpoint, ApiError>>) {
        if self.check_request(&request).is_err() && self.node.read().is_ok() {
            // Whoever has its address may be gone, and the message still on its way.
            self.drop_without_device();
        }
        if let Err(error) = self.check_request(&request) {
            let _ = reply.send(Err(error));
            return;
        }
        let key = endpoints::key(&request);
        let same = self
            .local
            .records
            .get(&key)
            .map(|r| r.attachment == request);
        if same == Some(false) {
            // Made anew by the plugin: what was there is replaced.
            self.local.leave(&key);
        }
        tracing::debug!(container = key.0, interface = key.1, "adoption asked for");
        let deadline = Instant::now() + self.config.adopt_timeout;
        self.pending.push(Pending {
            request,
            reply,
            deadline,
            asked: false,
            failure: None,
        });
        // Its device is younger than the last reading of the network.
        self.dirty.network = true;
        self.dirty.endpoints = true;
    }

    /// Refuses what cannot become right by waiting.
    fn check_request(&self, request: &AdoptRequest) -> Result<(), ApiError> {
        let bad = |message| {
            Err(ApiError {
                reason: Reason::BadRequest,
                message,
            })
        };
        if let Err(message) = compile::endpoint::entry(request, 0, 0) {
            return bad(message);
        }
        let key = endpoints::key(request);
        for address in &request.addresses {
            if let Some(owner) = self.local.other_owner(&key, *address) {
                let AdoptRequest {
                    container_id,
                    ifname,
                    ..
                } = &owner.attachment;
                return bad(format!(
                    "addresses: {address} is in use by endpoint {container_id}/{ifname}: delete that one first"
                ));
            }
        }
        Ok(())
    }

    /// One endpoint as the API shows it.
    pub(super) fn endpoint(&self, key: &Key) -> Option<Endpoint> {
        let record = self.local.records.get(key)?;
        let [ingress, egress] = self.policy.directions(record.slot);
        Some(Endpoint {
            attachment: record.attachment.clone(),
            slot: record.slot,
            ingress,
            egress,
            attached: self.local.is_in_place(key),
        })
    }

    pub(super) fn endpoint_list(&self) -> Vec<Endpoint> {
        let mut list: Vec<Endpoint> = self
            .local
            .records
            .iter()
            .filter(|(key, _)| !self.local.is_leaving(key))
            .filter_map(|(key, _)| self.endpoint(key))
            .collect();
        list.sort_by_cached_key(|endpoint| {
            let pod = endpoint.attachment.pod.as_ref();
            let pod = pod.map(|p| (p.namespace.clone(), p.name.clone()));
            (
                pod,
                endpoint.attachment.container_id.clone(),
                endpoint.attachment.ifname.clone(),
            )
        });
        list
    }

    /// Whether the node is ready, and whether load balancers may send it new connections.
    fn node_health(&self) -> (bool, bool) {
        let name = Some(&self.config.node_name);
        let own = self.store.nodes();
        let own = own.into_iter().find(|n| n.metadata.name.as_ref() == name);
        let eligible = own.is_some_and(compile::health::is_eligible);
        // Whether pods can be added is not what load balancers ask.
        (self.in_force && self.uplinks_attached(), eligible)
    }

    /// Whether an ADD can succeed: everything is in force, and the plugin knows the node.
    pub(super) fn can_add(&self) -> bool {
        self.in_force && self.node.has_file() && self.uplinks_attached()
    }

    /// Whether every uplink has its programs, in their place.
    fn uplinks_attached(&self) -> bool {
        let hooks = self.node.hooks(&self.attacher);
        hooks.iter().all(|hook| self.attacher.check(hook).is_ok())
    }

    /// How the agent is.
    pub(super) fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            node: self.config.node_name.clone(),
            synced: self.synced,
            ready: self.can_add(),
            degraded: self
                .problems
                .values()
                .flatten()
                .cloned()
                .chain(self.verify.problems())
                .chain(self.health.problems())
                .chain(self.cluster.problems())
                .collect(),
            notes: self.node.notes.clone(),
            features: self.features(),
            pod_cidrs: self
                .node
                .desired
                .file
                .iter()
                .flat_map(|file| file.pod_cidrs.iter().map(ToString::to_string))
                .collect(),
            counts: Counts {
                endpoints: self.local.records.iter().count(),
                services: self.store.count(Kind::Service),
                policies: self.store.count(Kind::NetworkPolicy),
                cluster_policies: self.store.count(Kind::ClusterNetworkPolicy),
                pods: self.store.count(Kind::Pod),
            },
            activity: Activity {
                map_writes: self.writes.get(),
                programs_replaced: self.kernel.loaded.replaced,
                links_changed: self.attacher.changed() + self.services.links_changed(),
                routes_changed: self.node.routes_changed,
            },
        }
    }
}

impl Engine {
    /// The kernel's, and what is known of the devices, by name.
    fn features(&self) -> Vec<Feature> {
        let mut features = self.kernel.features.list().to_vec();
        features.push(self.node.xdp_feature());
        features.extend(self.node.tunnel_feature());
        features.sort_by(|a, b| a.name.cmp(&b.name));
        features
    }
}

fn not_found(key: &Key) -> ApiError {
    ApiError {
        reason: Reason::NotFound,
        message: format!("no endpoint of container {} interface {}", key.0, key.1),
    }
}
