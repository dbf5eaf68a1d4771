//! Asks the questions of the table, many at a time, and shows what came of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{IpAddr, TcpStream};
use std::sync::mpsc;

use weir_lab::spawn::run_in;
use weir_lab::wire::{Answer, Command, ECHO};
use weir_lab::{Node, Outcome, Ping, Probe, Seen};

use super::table::{self, Policy, WHAT, Want, What, Who, Whom};
use super::world::{Outside, World, udp_or_tcp};
use crate::services_world::FAMILIES;

/// Questions under way at once.
const AT_ONCE: usize = 64;
/// Milliseconds that an answer may take on a busy machine, and that silence is listened to.
const PATIENCE: u64 = 5000;
const SILENCE: u64 = 900;
/// Failures that are asked once more, alone.
const AGAIN: usize = 12;
/// Bytes of a datagram in fragments, and of a long stream.
const LARGE: u32 = 4000;
const BULK: u32 = 300_000;

/// One question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    who: Who,
    whom: Whom,
    what: What,
    v4: bool,
}

/// What the lab, the policies and those outside are while questions are asked.
pub struct Round<'a> {
    pub world: &'a World,
    pub policy: Policy,
    pub outside: &'a Outside,
}

/// What came of the questions: lines to read, and the failures.
pub struct Report {
    pub text: String,
    pub failures: Vec<String>,
    /// How many were answered, and how many not, as they must.
    pub right: [usize; 2],
}

impl Round<'_> {
    fn cells(&self) -> Vec<Cell> {
        let mut all = Vec::new();
        for who in table::who(self.policy) {
            for whom in table::whom() {
                for what in WHAT {
                    all.extend(FAMILIES.map(|v4| Cell {
                        who,
                        whom,
                        what,
                        v4,
                    }));
                }
            }
        }
        all
    }

    fn want(&self, cell: Cell) -> Want {
        table::want(self.world.mode, self.policy, cell.who, cell.whom, cell.what)
    }

    fn command(&self, cell: Cell) -> Command {
        let (address, port, _) = self.world.target(cell.whom, self.outside, cell.v4);
        let timeout_ms = match self.want(cell) {
            Want::Answer | Want::Still(_) => PATIENCE,
            _ => SILENCE,
        };
        if cell.what == What::Icmp {
            return Command::Ping(Ping {
                target: address,
                timeout_ms,
            });
        }
        let udp = matches!(cell.what, What::Udp | What::LargeUdp);
        let bytes = match cell.what {
            What::LargeUdp => LARGE,
            What::BulkTcp => BULK,
            _ => 0,
        };
        let probe = Probe::new(address, port, udp_or_tcp(udp));
        Command::Probe(probe.bytes(bytes).timeout_ms(timeout_ms))
    }

    /// Asks all, and says what is wrong with the answers.
    pub fn run(&self) -> Report {
        let cells = self.cells();
        let asked = cells
            .iter()
            .filter(|cell| !matches!(self.want(**cell), Want::Meaningless(_)));
        let before = self.arrived();
        let outcomes = self.ask(asked.copied());
        let mut arrived = self.arrived();
        arrived.retain(|seen| !before.contains(seen));
        let mut report = Report {
            text: String::new(),
            failures: Vec::new(),
            right: [0; 2],
        };
        let mut marks = BTreeMap::new();
        let mut reasons = BTreeMap::<&str, BTreeSet<String>>::new();
        for cell in cells {
            let want = self.want(cell);
            if let Want::Still(why) | Want::Nothing(why) | Want::Meaningless(why) = want {
                let name = format!("{:?} to {:?}", cell.who, cell.whom);
                reasons.entry(why).or_default().insert(name);
            }
            let Some(outcome) = outcomes.get(&cell) else {
                marks.insert(cell, "·");
                continue;
            };
            match self.wrong(cell, outcome, &arrived) {
                Some(wrong) => {
                    marks.insert(cell, "FAIL");
                    let again = report.failures.len() < AGAIN;
                    report.failures.push(self.failure(cell, &wrong, again));
                }
                None => {
                    let silent = matches!(want, Want::Denied | Want::Nothing(_));
                    report.right[usize::from(silent)] += 1;
                    let mark = match want {
                        Want::Answer => "ok",
                        Want::Still(_) => "ok*",
                        Want::Denied => "shut",
                        Want::Nothing(_) | Want::Meaningless(_) => "none",
                    };
                    marks.insert(cell, mark);
                }
            }
        }
        report.text = self.shown(&marks, &reasons);
        report
    }

    fn ask(&self, cells: impl Iterator<Item = Cell>) -> BTreeMap<Cell, Outcome> {
        let (sender, answers) = mpsc::channel();
        let mut outcomes = BTreeMap::new();
        let mut under_way = 0;
        let mut take = |under_way: &mut usize| {
            let (cell, answer) = answers.recv().unwrap();
            *under_way -= 1;
            if let Answer::Probe(outcome) = answer {
                outcomes.insert(cell, outcome);
            }
        };
        for cell in cells {
            if under_way == AT_ONCE {
                take(&mut under_way);
            }
            under_way += 1;
            let sender = sender.clone();
            let done = Box::new(move |answer| {
                let _ = sender.send((cell, answer));
            });
            let client = self.world.client(cell.who, self.outside);
            client.send(self.command(cell), done).unwrap();
        }
        while under_way > 0 {
            take(&mut under_way);
        }
        outcomes
    }

    /// The flows that have arrived in server pods.
    fn arrived(&self) -> BTreeSet<Seen> {
        let servers = self.world.servers.iter();
        servers.flat_map(|pod| pod.seen().unwrap()).collect()
    }

    /// What is wrong with an outcome, if anything is.
    fn wrong(&self, cell: Cell, outcome: &Outcome, arrived: &BTreeSet<Seen>) -> Option<String> {
        let (address, _, server) = self.world.target(cell.whom, self.outside, cell.v4);
        let server = if cell.what == What::Icmp {
            ECHO.to_owned()
        } else {
            server
        };
        let right = match (self.want(cell), outcome) {
            (Want::Answer | Want::Still(_), Outcome::Answer { from, peer, .. }) => {
                *from == server && peer.ip() == address
            }
            (Want::Denied, Outcome::Timeout { local }) => {
                let udp = matches!(cell.what, What::Udp | What::LargeUdp);
                let flow = (udp_or_tcp(udp), *local);
                let leaked = arrived.iter().find(|seen| (seen.proto, seen.from) == flow);
                if let Some(leak) = leaked.filter(|_| cell.what != What::Icmp) {
                    return Some(format!("no answer, but it has arrived: {leak:?}"));
                }
                true
            }
            (
                Want::Nothing(_),
                Outcome::Timeout { .. } | Outcome::Unreachable | Outcome::Refused,
            ) => true,
            _ => false,
        };
        (!right).then(|| format!("{outcome:?}, wanted {:?} of {server}", self.want(cell)))
    }

    /// Everything that is known of a failure. The question is asked once more, alone: these drops it
    /// has moved.
    fn failure(&self, cell: Cell, wrong: &str, again: bool) -> String {
        let (address, port, _) = self.world.target(cell.whom, self.outside, cell.v4);
        let source = self.world.source(cell.who, self.outside, cell.v4);
        let before = self.drops();
        let again = if again {
            self.ask([cell].into_iter()).remove(&cell)
        } else {
            None
        };
        let after = self.drops();
        let moved: Vec<String> = after
            .iter()
            .filter_map(|(key, count)| {
                let more = count - before.get(key).copied().unwrap_or(0.0);
                (more > 0.0).then(|| format!("{key} +{more}"))
            })
            .collect();
        let Cell {
            who,
            whom,
            what,
            v4,
        } = cell;
        let family = if v4 { "IPv4" } else { "IPv6" };
        format!(
            "{:?}, policies {:?}: {who:?} ({source}) to {whom:?} ({address} port {port}), {what:?} {family}: \
             {wrong}; once more, alone: {again:?}; drops: {moved:?}",
            self.world.mode, self.policy
        )
    }

    /// Each node's counters of dropped packets, by node and labels.
    fn drops(&self) -> BTreeMap<String, f64> {
        self.world
            .lab
            .nodes
            .iter()
            .flat_map(|node| {
                let page = metrics(node);
                let lines = page.lines().filter_map(|line| {
                    let line = line.strip_prefix("weir_packets_total{action=\"dropped\",")?;
                    let (labels, count) = line.rsplit_once(' ')?;
                    Some((format!("{} {labels}", node.name), count.parse().ok()?))
                });
                lines.collect::<Vec<_>>()
            })
            .collect()
    }

    fn shown(
        &self,
        marks: &BTreeMap<Cell, &str>,
        reasons: &BTreeMap<&str, BTreeSet<String>>,
    ) -> String {
        let mut text = format!(
            "{:?}, policies {:?}\n{:44}",
            self.world.mode, self.policy, ""
        );
        let columns: Vec<(What, bool)> = WHAT
            .into_iter()
            .flat_map(|what| FAMILIES.map(|v4| (what, v4)))
            .collect();
        for (what, v4) in &columns {
            let head = format!("{what:?}{}", if *v4 { 4 } else { 6 });
            let _ = write!(text, " {head:9}");
        }
        for who in table::who(self.policy) {
            for whom in table::whom() {
                let whom_text = format!("{whom:?}").replace("NodePort { through: ", "NodePort(");
                let whom_text = whom_text.replace(" backend: ", " to ").replace(" }", ")");
                let name = format!("{who:?} → {whom_text}");
                let _ = write!(text, "\n{name:44}");
                for &(what, v4) in &columns {
                    let cell = Cell {
                        who,
                        whom,
                        what,
                        v4,
                    };
                    let _ = write!(text, " {:9}", marks[&cell]);
                }
            }
        }
        for (why, names) in reasons {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let _ = write!(text, "\n- {why}: {}", names.join("; "));
        }
        text
    }
}

/// A page of the agent's metrics.
fn metrics(node: &Node) -> String {
    let page = run_in(&node.place(), || {
        let mut stream = TcpStream::connect((IpAddr::from([127, 0, 0, 1]), 9965))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    });
    page.unwrap_or_default()
}
