//! Prometheus' text format (version 0.0.4), by hand.

pub mod server;

use std::fmt::Write as _;

use crate::dataplane::{COUNTER_NAMES, Counters};

/// Builds a page.
#[derive(Debug, Default)]
pub struct Text {
    page: String,
    last: String,
}

impl Text {
    /// Adds a gauge's sample; samples of one name come one after the other.
    pub fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.sample("gauge", name, help, labels, value);
    }

    /// Adds a counter's sample.
    pub fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.sample("counter", name, help, labels, value);
    }

    fn sample(&mut self, kind: &str, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        if self.last != name {
            name.clone_into(&mut self.last);
            // Writing to a string cannot fail.
            let _ = writeln!(self.page, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        let labels: Vec<String> = labels
            .iter()
            .map(|(k, v)| format!("{k}=\"{}\"", escape(v)))
            .collect();
        let labels = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", labels.join(","))
        };
        let _ = writeln!(self.page, "{name}{labels} {value}");
    }

    /// The page.
    pub fn finish(self) -> String {
        self.page
    }
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// What became of packets, by the programs' own counters.
pub fn packets(text: &mut Text, counters: &Counters) {
    let help = "Packets by what became of them.";
    for (counter, action, reason) in COUNTER_NAMES {
        if let Ok(value) = counters.get(*counter) {
            let labels = [("action", *action), ("reason", *reason)];
            text.counter("weir_packets_total", help, &labels, value as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_introduced_once_and_labels_are_escaped() {
        let mut text = Text::default();
        text.gauge("a", "Help.", &[("x", "1\"2\\3")], 1.0);
        text.gauge("a", "Help.", &[], 2.5);
        text.counter("b_total", "More.", &[("x", "1"), ("y", "2")], 3.0);
        assert_eq!(
            text.finish(),
            "# HELP a Help.\n# TYPE a gauge\na{x=\"1\\\"2\\\\3\"} 1\na 2.5\n\
             # HELP b_total More.\n# TYPE b_total counter\nb_total{x=\"1\",y=\"2\"} 3\n"
        );
    }
}
