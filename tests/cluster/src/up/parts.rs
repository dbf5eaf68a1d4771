//! The parts of `up` that start something.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use super::{Up, write};
use crate::{
    api,
    containerd::{self, Files},
    control_plane,
    control_plane::Invocation,
    fabric::Fabric,
    kubelet,
    node::{Hold, HoldNode},
    pki::Pki,
    plan::{DOMAIN, Plan, commas},
    process::{self, Output, Process},
    state::{Node, State},
};

/// The process that holds the fabric's namespace, and its cgroup.
const FABRIC: &str = "fabric";

impl Up {
    /// Cgroups, namespaces and the wire; certificates meanwhile.
    pub(super) fn make_nodes(&self) -> Result<Pki> {
        let options = self.state().options.clone();
        let base = State::cgroup(&self.state().name);
        self.mounts.create(&base)?;
        let fabric_cgroup = self.mounts.create_leaf(&base.join(FABRIC))?;
        let names: Vec<String> = (1..=options.nodes).map(|n| format!("n{n}")).collect();
        // All at the same time: each says when it is ready.
        let mut holders = vec![self.start_holder(FABRIC, &fabric_cgroup, &Hold::Fabric)?];
        for name in &names {
            let cgroup = base.join(name);
            self.mounts.create(&cgroup)?;
            let host = self.mounts.create_leaf(&cgroup.join("host"))?;
            let dir = self.node_dir(name);
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            let hold = HoldNode {
                name: name.clone(),
                dir,
                keep: self.keep()?,
                cgroup: self.mounts.v2.join(&cgroup),
                hosts: hosts(&self.plan, &names),
                resolv: resolv(&self.plan),
            };
            holders.push(self.start_holder(&format!("holder-{name}"), &host, &Hold::Node(hold))?);
        }
        let pki = Pki::create(&self.dir.join("pki"), &self.plan, options.nodes)?;
        for (process, child) in &mut holders {
            process::first_line(child, &process.name, &self.logs)?;
        }
        let fabric = Fabric::make(holders[0].0.pid, &self.plan)?;
        for (number, (name, (holder, _))) in (1..).zip(names.iter().zip(&holders[1..])) {
            fabric.connect(number, holder.pid, &self.plan)?;
            let node = Node {
                name: name.clone(),
                addresses: self.plan.node(number),
                holder: holder.clone(),
                cgroup: self.mounts.v2.join(base.join(name)),
            };
            self.record(|state| state.nodes.push(node))?;
        }
        let wire = holders[0].0.clone();
        self.record(|state| state.processes.push(wire))?;
        let server = format!("https://{}", self.plan.api());
        pki.kubeconfig(&api::node_kubeconfig(&self.dir), "admin", &server)?;
        Ok(pki)
    }

    /// What nodes must see wherever it is on the machine, also behind links.
    fn keep(&self) -> Result<Vec<PathBuf>> {
        let mut keep = vec![self.dir.clone(), self.bin.clone(), self.seeds.clone()];
        let programs = fs::read_dir(&self.bin)
            .with_context(|| format!("cannot list {}", self.bin.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()));
        let own = std::env::current_exe().context("cannot find this program")?;
        for file in programs.chain(self.images.iter().cloned()).chain([own]) {
            // A link that leads nowhere is reported by who needs it.
            let real = fs::canonicalize(&file).unwrap_or(file);
            keep.extend(real.parent().map(Into::into));
        }
        keep.sort();
        keep.dedup();
        Ok(keep)
    }

    fn start_holder(
        &self,
        name: &str,
        cgroup: &std::path::Path,
        hold: &Hold,
    ) -> Result<(Process, std::process::Child)> {
        let own = std::env::current_exe().context("cannot find this program")?;
        let mut command = process::command_in_cgroup(cgroup, &own)?;
        command.arg("hold").arg(serde_json::to_string(hold)?);
        process::launch(name, &self.logs, command, Output::Pipe)
    }

    pub(super) fn start_control_plane(&self, pki: &Pki) -> Result<()> {
        let first = self.state().node("n1")?.clone();
        self.launch(&first, "etcd", &control_plane::etcd())?;
        let api = control_plane::api_server(pki, &self.plan);
        self.launch(&first, "kube-apiserver", &api)
    }

    /// Once the API server answers: they end where it does not within seconds.
    pub(super) fn start_controllers(&self, pki: &Pki) -> Result<()> {
        let (first, options) = {
            let state = self.state();
            (state.node("n1")?.clone(), state.options.clone())
        };
        let server = format!("https://{}", self.plan.api());
        for user in ["controller-manager", "scheduler"] {
            pki.kubeconfig(&kubeconfig(pki, user), user, &server)?;
        }
        let config = kubeconfig(pki, "controller-manager");
        let manager = control_plane::controller_manager(pki, &self.plan, &options, &config);
        self.launch(&first, "kube-controller-manager", &manager)?;
        let scheduler = control_plane::scheduler(&kubeconfig(pki, "scheduler"));
        self.launch(&first, "kube-scheduler", &scheduler)
    }

    pub(super) fn start_containerd(&self, node: &Node) -> Result<()> {
        let config = self.node_dir(&node.name).join("containerd.toml");
        write(
            &config,
            &containerd::config(self.snapshotter, &Files::of_node()),
        )?;
        let program = Invocation {
            program: "containerd",
            args: vec!["--config".into(), config.display().to_string()],
        };
        self.launch(node, &format!("containerd-{}", node.name), &program)
    }

    pub(super) fn start_kubelet(&self, pki: &Pki, node: &Node, number: u8) -> Result<()> {
        let user = format!("kubelet-{}", node.name);
        let server = format!("https://{}", self.plan.api());
        pki.kubeconfig(&kubeconfig(pki, &user), &user, &server)?;
        let cgroup = State::cgroup(&self.state().name).join(&node.name);
        let config = self.node_dir(&node.name).join("kubelet.json");
        let content = kubelet::config(pki, &self.plan, &node.name, &cgroup);
        write(&config, &format!("{content:#}\n"))?;
        let program = Invocation {
            program: "kubelet",
            args: kubelet::args(&config, &kubeconfig(pki, &user), &self.plan, number),
        };
        self.launch(node, &user, &program)
    }

    /// The process that holds the fabric's namespace.
    pub(super) fn fabric(&self) -> Result<u32> {
        let state = self.state();
        let mut all = state.processes.iter();
        let holder = all.find(|process| process.name == FABRIC);
        Ok(holder.context("the fabric's holder is not known")?.pid)
    }

    /// Starts the forwarder; its port on the machine's loopback.
    pub(super) fn start_forwarder(&self) -> Result<u16> {
        let first = self.state().node("n1")?.holder.pid;
        let line = self.start_helper("forwarder", |command| {
            let netns = format!("/proc/{first}/ns/net");
            let to = self.plan.api().to_string();
            command.args(["forward", &netns, &to]);
        })?;
        line.parse()
            .with_context(|| format!("the forwarder's port: {line:?}"))
    }

    /// Starts what stands for the world outside.
    pub(super) fn start_world(&self) -> Result<()> {
        let netns = format!("/proc/{}/ns/net", self.fabric()?);
        self.start_helper("world", |command| {
            command.args(["world", &netns]);
        })?;
        Ok(())
    }

    /// Starts this program for something else; its first line.
    fn start_helper(&self, name: &str, arguments: impl FnOnce(&mut Command)) -> Result<String> {
        let base = State::cgroup(&self.state().name);
        let cgroup = self.mounts.v2.join(base).join(FABRIC);
        let own = std::env::current_exe().context("cannot find this program")?;
        let mut command = process::command_in_cgroup(&cgroup, &own)?;
        arguments(&mut command);
        let (started, mut child) = process::launch(name, &self.logs, command, Output::Pipe)?;
        let line = process::first_line(&mut child, name, &self.logs)?;
        self.record(|state| state.processes.push(started))?;
        Ok(line)
    }
}

/// Where a component's kubeconfig is.
fn kubeconfig(pki: &Pki, user: &str) -> PathBuf {
    pki.file(&format!("{user}.kubeconfig"))
}

/// Nodes know each other by name.
fn hosts(plan: &Plan, names: &[String]) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n".to_owned();
    for (number, name) in (1..).zip(names) {
        for address in plan.node(number) {
            text.push_str(&format!("{address} {name}\n"));
        }
    }
    text
}

/// The fabric answers no questions and says so at once: nothing outside the cluster has a name.
fn resolv(plan: &Plan) -> String {
    format!(
        "nameserver {}\n# the nodes' domain is {DOMAIN}\n",
        commas(&plan.fabric()[..1])
    )
}
