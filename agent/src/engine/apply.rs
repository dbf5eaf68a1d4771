//! One round: everything that is dirty is brought into the kernel, in a safe order.

use std::time::Instant;

use weir_api::{
    endpoint::AdoptRequest,
    error::{ApiError, Reason},
};
use weir_net::sysctl;

use crate::{health, memory, source::ANSWER};

use super::{
    Dirty, Engine, RETRY, SELF_CHECK,
    adopt::{Pending, Readiness, readiness},
    endpoints::{self, Key},
    grow::{Failure, Part},
};

impl Engine {
    /// Performs what is due. What fails is tried again later, and stays as it was.
    pub(super) fn apply(&mut self) {
        let started = Instant::now();
        let retry = self.retry.at.is_some_and(|at| at <= started);
        if retry {
            self.retry.at = None;
            self.dirty = Dirty::ALL;
        }
        if self.network_due.is_some_and(|at| at <= started) {
            self.network_due = None;
            self.dirty.network = true;
        }
        self.expire(started);
        if !self.dirty.any(self.synced) && self.due().is_none_or(|due| due > started) {
            return;
        }
        if let Err(e) = self.take_up() {
            self.set_problems("programs", vec![e.to_string()]);
            // Nothing is written before that: what is due is with the retry.
            self.dirty = Dirty::default();
            self.round_ended(started, false);
            return;
        }
        self.set_problems("programs", Vec::new());
        let mut failed = false;
        let check = self.dirty.check;
        failed |= !self.apply_network();
        self.promote();
        let in_force = self.apply_policy(started) & self.apply_services(started);
        let is_first = !self.in_force;
        self.in_force |= in_force && self.synced;
        failed |= !in_force;
        failed |= !self.apply_endpoints();
        self.answer();
        self.tell_health();
        failed |= !self.apply_conflist(check);
        if self.synced
            && let Some(key) = self.node.key_to_publish()
        {
            self.cluster.set_wireguard_key(key);
        }
        self.cluster
            .set_ready(self.in_force && self.node.desired.file.is_some());
        if is_first && self.in_force {
            self.store.refill();
            self.services.refill();
            memory::give_back();
        }
        self.round_ended(started, !failed);
    }

    /// Has load balancers told what is so now.
    fn tell_health(&self) {
        if self.synced {
            self.health.set(health::Wanted {
                addresses: self.node.health_addresses(),
                checks: self.services.health_checks(),
            });
        }
    }

    /// Counts a round, and says when to try again what failed.
    fn round_ended(&mut self, started: Instant, done: bool) {
        self.stats.applies += 1;
        self.stats.apply_seconds += started.elapsed().as_secs_f64();
        if done {
            self.retry.failures = 0;
            return;
        }
        self.stats.apply_errors += 1;
        let pause = RETRY
            .saturating_mul(1 << self.retry.failures.min(8))
            .min(SELF_CHECK);
        self.retry.failures += 1;
        self.retry.at = Some(Instant::now() + pause);
    }

    /// Gives records to the waiting ADDs whose Pod is known.
    fn promote(&mut self) {
        let (mut promoted, mut missing) = (Vec::new(), Vec::new());
        for (index, pending) in self.pending.iter().enumerate() {
            let key = endpoints::key(&pending.request);
            let ready = readiness(&self.store, self.synced, &pending.request) == Readiness::Ready;
            let AdoptRequest {
                host_ifindex,
                host_ifname,
                ..
            } = &pending.request;
            if !self.node.has_device(*host_ifindex, host_ifname) {
                missing.push(index);
            } else if ready && self.local.records.get(&key).is_none() {
                promoted.push((index, pending.request.clone()));
            }
        }
        for (index, request) in promoted {
            let pod = request
                .pod
                .as_ref()
                .and_then(|p| self.store.pod(&p.namespace, &p.name));
            let uid = pod.and_then(|pod| pod.metadata.uid.clone());
            match self.local.records.adopt(request, uid) {
                Ok(record) => {
                    self.policy.apply_endpoint(&record);
                    self.dirty.policy = true;
                    self.dirty.endpoints = true;
                }
                Err(e) => self.pending[index].failure = Some(e.to_string()),
            }
        }
        for index in missing.into_iter().rev() {
            let Pending { request, reply, .. } = self.pending.remove(index);
            let AdoptRequest {
                host_ifindex,
                host_ifname,
                ..
            } = request;
            let message = format!(
                "hostIfname: no device {host_ifname} with index {host_ifindex} in the agent's network namespace"
            );
            let _ = reply.send(Err(ApiError {
                reason: Reason::BadRequest,
                message,
            }));
        }
    }

    fn apply_network(&mut self) -> bool {
        if std::mem::take(&mut self.dirty.network) {
            self.network_read = Instant::now();
            if let Err(e) = self.node.read() {
                self.set_problems("node", vec![e.to_string()]);
                return false;
            }
            self.dirty.node = true;
            self.dirty.endpoints = true;
            let node = &self.node;
            self.local
                .drop_without_device(|index, name| node.has_device(index, name));
        }
        if !std::mem::take(&mut self.dirty.node) {
            return true;
        }
        let (mut problems, failures) = self.node.sync(&self.store, self.synced, &self.attacher);
        let ok = failures.is_empty();
        problems.extend(failures);
        self.set_problems("node", problems);
        ok
    }

    /// Lets the endpoints go whose device is not in the last reading of the network.
    pub(super) fn drop_without_device(&mut self) {
        let node = &self.node;
        self.local
            .drop_without_device(|index, name| node.has_device(index, name));
    }

    fn apply_policy(&mut self, now: Instant) -> bool {
        let due = self.policy.due().is_some_and(|due| due <= now);
        if !self.synced || !(std::mem::take(&mut self.dirty.policy) || due) {
            return true;
        }
        self.verify.touched();
        let result = self.growing(Part::Policy, |engine| engine.policy.sync(now));
        self.verify.touched();
        let failure = result.err().map(|failure| failure.message);
        for pending in &mut self.pending {
            pending.failure.clone_from(&failure);
        }
        let mut problems = self.policy.problems();
        let ok = failure.is_none();
        problems.extend(failure);
        self.set_problems("policy", problems);
        if !ok {
            // No endpoint comes into the kernel before its policy is there.
            self.dirty.endpoints = false;
            self.dirty.check = false;
        }
        ok
    }

    fn apply_services(&mut self, now: Instant) -> bool {
        let due = self.services.due().is_some_and(|due| due <= now);
        if !self.synced || !(std::mem::take(&mut self.dirty.services) || due) {
            return true;
        }
        // Maps first: a hook without them would refuse what is served.
        let written = self.growing(Part::Services, |engine| Ok(engine.services.sync(now)?));
        if written.is_ok() {
            let local = &self.local;
            self.services.close_sockets(|| local.namespaces());
        }
        let result = written.and_then(|()| {
            self.services
                .attach(&self.kernel.pins)
                .map_err(Failure::from)
        });
        let ok = result.is_ok();
        // There may be many Services, and each round is about a few.
        if let Some(problems) = self.services.problems() {
            self.set_problems("services", problems);
        }
        let local = sysctl::read("ipv4/ip_local_port_range").unwrap_or_default();
        let mut failures = self.nat_ports.problems(&local);
        failures.extend(result.err().map(|failure| failure.message));
        self.set_problems("service maps", failures);
        ok
    }

    fn apply_endpoints(&mut self) -> bool {
        let check = std::mem::take(&mut self.dirty.check);
        if !self.synced || !(std::mem::take(&mut self.dirty.endpoints) || check) {
            return true;
        }
        let mut problems = Vec::new();
        for slot in self.local.remove_leaving(&self.attacher, &mut problems) {
            self.policy.remove_endpoint(slot);
            self.verify.touched();
            self.dirty.policy = true;
        }
        let keys: Vec<Key> = self
            .local
            .records
            .iter()
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            if self.local.is_leaving(&key) || (!check && self.local.is_in_place(&key)) {
                continue;
            }
            if let Err(e) = self.local.put_in(&key, &self.attacher) {
                for pending in self
                    .pending
                    .iter_mut()
                    .filter(|p| endpoints::key(&p.request) == key)
                {
                    pending.failure = Some(e.clone());
                }
                problems.push(format!("endpoint {}/{}: {e}", key.0, key.1));
            }
        }
        // Leftovers are reported; there is nothing to try again.
        let ok = problems.is_empty();
        let network = &self.node.network;
        let has_index = |index| network.link(index).is_some();
        self.local.sweep(&self.attacher, has_index, &mut problems);
        self.set_problems("endpoints", problems);
        ok
    }

    /// Answers the ADDs whose endpoints are in force.
    fn answer(&mut self) {
        let (ready, waiting): (Vec<Pending>, Vec<Pending>) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|p| {
                let key = endpoints::key(&p.request);
                self.local.is_in_place(&key) && p.failure.is_none()
            });
        self.pending = waiting;
        for pending in ready {
            let key = endpoints::key(&pending.request);
            if let Some(endpoint) = self.endpoint(&key) {
                tracing::info!(
                    container = key.0,
                    interface = key.1,
                    slot = endpoint.slot,
                    "adopted"
                );
                self.stats.adopted += 1;
                // Whoever asked may be gone; its undo is on the way then.
                let _ = pending.reply.send(Ok(endpoint));
            }
        }
    }

    /// Has the API asked, once, for the Pods whose time is over: the watch may be late.
    fn ask_for_pods(&mut self, now: Instant) {
        for pending in &mut self.pending {
            let Some(question) = pending.question(&self.store, self.synced, now) else {
                continue;
            };
            if self.questions.try_send(question).is_ok() {
                pending.asked = true;
                pending.deadline = now + ANSWER;
            }
        }
    }

    /// Gives up on ADDs whose time is over or whose caller has gone, and undoes them.
    fn expire(&mut self, now: Instant) {
        self.ask_for_pods(now);
        let (over, waiting): (Vec<Pending>, Vec<Pending>) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|p| p.deadline <= now || p.reply.is_closed());
        self.pending = waiting;
        for pending in over {
            let key = endpoints::key(&pending.request);
            if self.local.records.get(&key).is_some()
                && !self
                    .pending
                    .iter()
                    .any(|p| endpoints::key(&p.request) == key)
            {
                self.local.leave(&key);
                self.dirty.endpoints = true;
            }
            self.stats.refused += 1;
            let error = match readiness(&self.store, self.synced, &pending.request) {
                Readiness::Wait(mut error) => {
                    if pending.asked {
                        error.message += " (the API server was asked for it, too)";
                    }
                    error
                }
                Readiness::Ready => ApiError {
                    reason: Reason::TryAgain,
                    message: pending
                        .failure
                        .unwrap_or_else(|| "its policy could not be put in force in time".into()),
                },
            };
            let _ = pending.reply.send(Err(error));
        }
    }
}
