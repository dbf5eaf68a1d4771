//! What the compiled policy says, for those who ask instead of write: every question is answered
//! for all ports at once, as the tables are exact.

use std::net::IpAddr;

use crate::actual::Direction;
use crate::desired::{Desired, Subject};

/// A stretch of one table: from `start` up to the next cell's start, or to the end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CellView<'a> {
    /// The first [`weir_abi::policy::Interval::key`] it holds for.
    pub start: u32,
    /// Whether the flow may pass.
    pub allow: bool,
    /// The rule that decides, as JSON (what `RULES` holds); none where no policy decides, or where
    /// the endpoint's pod is not known.
    pub rule: Option<&'a str>,
}

impl Desired {
    /// How the endpoint in a slot is judged; closed, if the slot is not in use.
    pub fn subject(&self, slot: u32, direction: Direction) -> Subject {
        self.slots
            .get(&slot)
            .map_or(Subject::Closed, |subjects| subjects[direction.index()])
    }

    /// The class of an address: equal ones are equal to every subject.
    pub fn class_of(&self, addr: IpAddr) -> u32 {
        self.class(addr.into())
    }

    /// The verdicts of a subject about the addresses of a class: by ascending start, the first one
    /// at 0.
    pub fn cells(&self, subject: Subject, class: u32) -> Vec<CellView<'_>> {
        let whole = |allow| {
            vec![CellView {
                start: 0,
                allow,
                rule: None,
            }]
        };
        let group = match subject {
            Subject::Closed => return whole(false),
            Subject::Open => return whole(true),
            Subject::Group(group) => group,
        };
        let Some(table) = self.row(group, class) else {
            return whole(false);
        };
        let cells = table.iter().map(|cell| CellView {
            start: cell.start,
            allow: cell.allow,
            rule: cell.rule.as_ref().map(|rule| rule.text.as_str()),
        });
        cells.collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weir_abi::Proto;
    use weir_abi::policy::Interval;

    use super::*;
    use crate::{Event, Index, LocalEndpoint, ObjectName, PodRef};

    fn compiled() -> Desired {
        let mut index = Index::new("n");
        for (name, labels, addr) in [
            ("a", json!({"app": "a"}), "10.0.0.1"),
            ("b", json!({}), "10.0.0.2"),
        ] {
            let pod = json!({"metadata": {"namespace": "x", "name": name, "labels": labels},
                             "status": {"podIPs": [{"ip": addr}]}});
            let _ = index.apply(Event::ApplyPod(serde_json::from_value(pod).unwrap()));
        }
        let policy = json!({
            "metadata": {"namespace": "x", "name": "p"},
            "spec": {"podSelector": {"matchLabels": {"app": "a"}},
                     "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80}]}]},
        });
        let _ = index.apply(Event::ApplyPolicy(serde_json::from_value(policy).unwrap()));
        for (slot, name) in [(0, "a"), (1, "b"), (2, "gone")] {
            let _ = index.apply(Event::ApplyEndpoint(LocalEndpoint {
                slot,
                pod: Some(PodRef {
                    name: ObjectName::new("x", name),
                    uid: None,
                }),
                addresses: vec![format!("10.0.0.{}", slot + 1).parse().unwrap()],
            }));
        }
        index.compile().clone()
    }

    #[test]
    fn subjects_are_told_apart_and_a_slot_that_is_not_in_use_is_closed() {
        let desired = compiled();
        let [ingress, egress] = Direction::ALL;
        assert!(matches!(desired.subject(0, ingress), Subject::Group(_)));
        assert_eq!(desired.subject(0, egress), Subject::Open);
        assert_eq!(desired.subject(1, ingress), Subject::Open);
        assert_eq!(desired.subject(2, ingress), Subject::Closed);
        assert_eq!(desired.subject(9, egress), Subject::Closed);
    }

    #[test]
    fn cells_are_the_whole_table_with_the_rules_names() {
        let desired = compiled();
        let subject = desired.subject(0, Direction::Ingress);
        let pod = desired.class_of("10.0.0.2".parse().unwrap());
        let outside = desired.class_of("192.0.2.1".parse().unwrap());
        assert_ne!(pod, outside);
        let cells = desired.cells(subject, pod);
        let port = Interval::key(Proto::TCP, 80);
        let starts: Vec<_> = cells.iter().map(|c| (c.start, c.allow)).collect();
        assert_eq!(starts, [(0, false), (port, true), (port + 1, false)]);
        assert!(cells[1].rule.unwrap().contains("spec.ingress[0]"));
        assert!(cells[0].rule.unwrap().contains("isolatedBy"));
        assert_eq!(desired.cells(subject, outside).len(), 1);
        for (subject, allow) in [(Subject::Open, true), (Subject::Closed, false)] {
            let cell = CellView {
                start: 0,
                allow,
                rule: None,
            };
            assert_eq!(desired.cells(subject, pod), [cell]);
        }
    }
}
