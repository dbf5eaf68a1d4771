//! What `/metrics` shows.

use weir_api::status::{Activity, Counts, Status};

use super::Engine;
use crate::metrics::{self, Text};

impl Engine {
    /// The page.
    pub(super) fn metrics(&self) -> String {
        let mut text = Text::default();
        state(&mut text, &self.status());
        let waiting = self.pending.len() as f64;
        text.gauge(
            "weir_adoptions_waiting",
            "ADDs that wait for their Pod.",
            &[],
            waiting,
        );
        self.work(&mut text);
        self.tables_to(&mut text);
        self.verified(&mut text);
        for (protocol, n) in self.services.closed().counts() {
            let help = "Sockets closed because the backend of a Service that they were connected to is gone.";
            let labels = [("protocol", protocol)];
            text.counter("weir_sockets_closed_total", help, &labels, n as f64);
        }
        self.duties(&mut text);
        metrics::packets(&mut text, &self.counters);
        text.finish()
    }

    /// What is done for the whole cluster.
    fn duties(&self, text: &mut Text) {
        let told = self.cluster.told();
        let help = "Whether this agent holds the Lease of the duties for the whole cluster.";
        let holds = f64::from(u8::from(told.is_holder));
        text.gauge("weir_lease_holder", help, &[], holds);
        let help = "How often this agent has become the holder of the Lease.";
        text.counter("weir_lease_terms_total", help, &[], told.terms as f64);
        let help = "Nodes whose pod CIDRs are recorded, as the holder knows it.";
        let recorded = told.recorded as f64;
        text.gauge("weir_node_cidrs_allocated", help, &[], recorded);
        let help = "Writes to the Kubernetes API, by what was written.";
        for (object, n) in told.writes {
            let name = "weir_api_writes_total";
            text.counter(name, help, &[("object", object)], n as f64);
        }
    }

    /// The tables that grow.
    fn tables_to(&self, text: &mut Text) {
        let tables = self.tables();
        for (map, entries, ..) in &tables {
            let help = "Entries of tables that grow.";
            text.gauge("weir_map_entries", help, &[("map", map)], *entries as f64);
        }
        for (map, _, size, _) in &tables {
            let help = "Entries that a table can hold now.";
            text.gauge("weir_map_size", help, &[("map", map)], f64::from(*size));
        }
        for (map, .., limit) in &tables {
            let help = "Entries up to which a table grows.";
            text.gauge("weir_map_limit", help, &[("map", map)], f64::from(*limit));
        }
        for (map, full) in self.full() {
            let help = "Whether a table is at its limit and should hold more.";
            let full = f64::from(u8::from(full));
            text.gauge("weir_map_full", help, &[("map", map)], full);
        }
        let help = "How often tables have grown since the agent started.";
        let times = self.growth.times as f64;
        text.counter("weir_map_growths_total", help, &[], times);
        let help = "Time spent in growing tables.";
        let seconds = self.growth.seconds;
        text.counter("weir_map_growth_seconds_total", help, &[], seconds);
    }

    /// What the background comparison of kernel and objects has found.
    fn verified(&self, text: &mut Text) {
        let checked = self.verify.checked() as f64;
        let help = "Flows whose verdict in the kernel was compared with the objects.";
        text.counter("weir_policy_verify_checked_total", help, &[], checked);
        let found = self.verify.disagreements() as f64;
        let help =
            "Pairs of an endpoint and an address on which the kernel and the objects disagree.";
        text.gauge("weir_policy_verify_disagreements", help, &[], found);
        let last = self.verify.last_pass() as f64;
        let name = "weir_policy_verify_last_pass_timestamp_seconds";
        text.gauge(
            name,
            "When everything was last compared; 0: never.",
            &[],
            last,
        );
    }

    /// What the loop has done.
    fn work(&self, text: &mut Text) {
        let stats = &self.stats;
        let help = "ADDs by result.";
        for (result, n) in [("adopted", stats.adopted), ("refused", stats.refused)] {
            text.counter(
                "weir_adoptions_total",
                help,
                &[("result", result)],
                n as f64,
            );
        }
        text.counter(
            "weir_applies_total",
            "Rounds of applying.",
            &[],
            stats.applies as f64,
        );
        let help = "Time spent in applying.";
        text.counter("weir_apply_seconds_total", help, &[], stats.apply_seconds);
        let help = "Rounds in which something failed.";
        text.counter(
            "weir_apply_errors_total",
            help,
            &[],
            stats.apply_errors as f64,
        );
    }
}

/// What the status says.
fn state(text: &mut Text, status: &Status) {
    let agent = [
        ("version", status.version.as_str()),
        ("node", status.node.as_str()),
    ];
    text.gauge(
        "weir_agent_info",
        "The agent's version and node.",
        &agent,
        1.0,
    );
    let flag = |b: bool| if b { 1.0 } else { 0.0 };
    let help = "Whether the source has synced.";
    text.gauge("weir_source_synced", help, &[], flag(status.synced));
    text.gauge(
        "weir_ready",
        "Whether ADD can be served.",
        &[],
        flag(status.ready),
    );
    let problems = status.degraded.len() as f64;
    text.gauge("weir_problems", "Things that are wrong now.", &[], problems);
    let Counts {
        endpoints,
        services,
        policies,
        cluster_policies,
        pods,
    } = status.counts;
    let help = "Objects and endpoints the agent knows of.";
    for (kind, n) in [
        ("endpoint", endpoints),
        ("service", services),
        ("policy", policies),
        ("cluster_policy", cluster_policies),
        ("pod", pods),
    ] {
        text.gauge("weir_objects", help, &[("kind", kind)], n as f64);
    }
    let Activity {
        map_writes,
        programs_replaced,
        links_changed,
        routes_changed,
    } = status.activity;
    let help = "Changes of the kernel's state since the agent started.";
    for (kind, n) in [
        ("map", map_writes),
        ("program", programs_replaced as u64),
        ("link", links_changed),
        ("route", routes_changed),
    ] {
        text.counter(
            "weir_kernel_changes_total",
            help,
            &[("kind", kind)],
            n as f64,
        );
    }
}
