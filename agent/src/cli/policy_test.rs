//! `weir policy test`: do the policies do what a list of probes says?

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use weir_manifests::Value;
use weir_oracle::Decision;

use super::args::TestArgs;
use super::color::Colors;
use super::output::{Done, ERROR, json};
use super::probes::{self, Probe};
use super::question::{Asker, Outcome};
use super::table::Table;
use super::world::World;

/// Exit status if a probe does not hold.
const DOES_NOT_HOLD: u8 = 1;
/// Keys that Weir adds to a probe; the probe's own of these names give way.
const OWN_KEYS: [&str; 4] = ["verdict", "error", "egress", "ingress"];

/// A probe with its result.
struct Tested {
    probe: Probe,
    outcome: Result<Outcome, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Agrees,
    Disagrees,
    Unchecked,
    Error,
}

impl Tested {
    fn allowed(&self) -> Option<bool> {
        let outcome = self.outcome.as_ref().ok()?;
        Some(outcome.judged.answer.verdict.allowed())
    }

    fn standing(&self) -> Standing {
        match (self.allowed(), self.probe.allow) {
            (None, _) => Standing::Error,
            (Some(_), None) => Standing::Unchecked,
            (Some(verdict), Some(wanted)) if verdict == wanted => Standing::Agrees,
            (Some(_), Some(_)) => Standing::Disagrees,
        }
    }
}

impl Serialize for Tested {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in &self.probe.keys {
            if !OWN_KEYS.contains(&key.as_str()) {
                map.serialize_entry(key, value)?;
            }
        }
        match &self.outcome {
            Ok(outcome) => {
                let answer = &outcome.judged.answer;
                map.serialize_entry("verdict", &answer.verdict)?;
                map.serialize_entry("egress", &answer.egress.decision)?;
                map.serialize_entry("ingress", &answer.ingress.decision)?;
            }
            Err(error) => {
                map.serialize_entry("verdict", "error")?;
                map.serialize_entry("error", error)?;
            }
        }
        map.end()
    }
}

#[derive(serde::Serialize)]
struct Summary {
    total: usize,
    agree: usize,
    disagree: usize,
    unchecked: usize,
    errors: usize,
    warnings: Vec<String>,
}

#[derive(serde::Serialize)]
struct Document<'a> {
    probes: &'a [Tested],
    summary: &'a Summary,
}

pub(super) fn run(args: &TestArgs, colors: Colors) -> anyhow::Result<Done> {
    let world = World::load(&args.manifests, &args.socket.socket)?;
    let probes = probes::load(&args.probes)?;
    let asker = Asker::new(&world, &args.namespace);
    let tested: Vec<Tested> = probes
        .into_iter()
        .map(|probe| {
            let outcome = match &probe.question {
                Ok(question) => asker.ask(question),
                Err(wrong) => Err(wrong.clone()),
            };
            Tested { probe, outcome }
        })
        .collect();

    let count = |standing| tested.iter().filter(|t| t.standing() == standing).count();
    let mut warnings = world.errors.clone();
    warnings.extend(world.warnings.iter().cloned());
    warnings.extend(asker.refusals());
    let summary = Summary {
        total: tested.len(),
        agree: count(Standing::Agrees),
        disagree: count(Standing::Disagrees),
        unchecked: count(Standing::Unchecked),
        errors: count(Standing::Error),
        warnings,
    };

    let mut done = if args.output.is_json() {
        let document = Document {
            probes: &tested,
            summary: &summary,
        };
        Done::ok(json(&document)?)
    } else {
        Done::ok(text(&tested, &summary, colors))
    };
    world.complain(&args.manifests, !args.output.is_json(), &mut done);
    if !args.output.is_json() {
        for refusal in asker.refusals() {
            done.complain(&format!("warning: {refusal}"));
        }
    }
    if summary.disagree > 0 {
        done.at_least(DOES_NOT_HOLD);
    }
    if summary.errors > 0 {
        done.at_least(ERROR);
    }
    Ok(done)
}

fn text(tested: &[Tested], summary: &Summary, colors: Colors) -> String {
    let mut table = Table::new(&["FROM", "TO", "PORT", "EXPECTED", "VERDICT", "RESULT", "WHY"]);
    for one in tested {
        let key = |name: &str| {
            let found = one.probe.keys.iter().find(|(key, _)| key == name);
            match found.map(|(_, value)| value) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Number(number)) => number.to_string(),
                _ => String::new(),
            }
        };
        let word = |allowed| if allowed { "allow" } else { "deny" };
        let verdict = one.allowed().map_or("error", word);
        let (result, why) = match (one.standing(), &one.outcome) {
            (_, Err(error)) => (colors.bad("ERROR"), error.clone()),
            (Standing::Disagrees, Ok(outcome)) => (colors.bad("FAIL"), why(outcome)),
            (Standing::Unchecked, Ok(outcome)) => (colors.warn("unchecked"), why(outcome)),
            (_, Ok(outcome)) => (colors.good("ok"), why(outcome)),
        };
        table.row([
            key("from"),
            key("to"),
            port_of(&key("port"), &key("protocol")),
            one.probe.allow.map(word).unwrap_or_default().to_owned(),
            verdict.to_owned(),
            result,
            why,
        ]);
    }
    let mut text = if table.is_empty() {
        String::new()
    } else {
        table.render() + "\n"
    };
    let Summary {
        total,
        agree,
        disagree,
        unchecked,
        errors,
        warnings: _,
    } = summary;
    let noun = if *total == 1 { "probe" } else { "probes" };
    let line = format!(
        "{total} {noun}: {agree} agree, {disagree} disagree, {unchecked} unchecked, {errors} errors"
    );
    text.push_str(&colors.by(*disagree == 0 && *errors == 0, &line));
    text.push('\n');
    text
}

fn port_of(port: &str, protocol: &str) -> String {
    match (port, protocol) {
        ("", protocol) => protocol.to_owned(),
        (port, "") => port.to_owned(),
        (port, protocol) => format!("{port}/{protocol}"),
    }
}

/// What decided, in a few words.
fn why(outcome: &Outcome) -> String {
    let answer = &outcome.judged.answer;
    let (egress, ingress) = (&answer.egress.decision, &answer.ingress.decision);
    let denied: Vec<String> = [("egress", egress), ("ingress", ingress)]
        .into_iter()
        .filter(|(_, decision)| !decision.verdict.allowed())
        .map(|(direction, decision)| format!("{direction}: {}", cause(decision)))
        .collect();
    if denied.is_empty() {
        format!("egress: {}; ingress: {}", cause(egress), cause(ingress))
    } else {
        denied.join("; ")
    }
}

fn cause(decision: &Decision) -> String {
    if let Some(rule) = &decision.rule {
        let policy = match (&rule.namespace, rule.tier) {
            (Some(namespace), _) => format!("{namespace}/{}", rule.name),
            (None, Some(tier)) => format!("{tier} {}", rule.name),
            (None, None) => rule.name.clone(),
        };
        let does = match rule.action {
            Some(action) => format!(" {action}"),
            None => String::new(),
        };
        return format!("{policy} {}{does}", rule.path);
    }
    let names = decision.isolated_by.iter().map(|policy| {
        let namespace = policy.namespace.as_deref().unwrap_or_default();
        format!("{namespace}/{}", policy.name)
    });
    let names: Vec<String> = names.collect();
    if names.is_empty() {
        decision.reason.to_string()
    } else {
        format!("{} by {}", decision.reason, names.join(", "))
    }
}
