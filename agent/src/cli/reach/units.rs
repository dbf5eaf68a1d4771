//! Parties that no policy tells apart, grouped as people see them: a workload's pods, nodes, blocks.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::census::{Census, Kind, Party};
use super::compiled::{Compiled, View};
use super::title;
use crate::cli::world::World;

/// Most names in a label of nodes or blocks.
const MOST_NAMES: usize = 3;

/// Parties with equal views in every world: of one workload, or nodes, or blocks outside.
#[derive(Clone, Debug)]
pub(in super::super) struct Unit {
    /// `shop/web (3 pods)`.
    pub label: String,
    /// Its namespace; empty for nodes and addresses outside.
    pub namespace: String,
    /// In the census.
    pub members: Vec<usize>,
    /// By world.
    pub views: Vec<View>,
    /// Members by node: of pods where they run, of nodes each itself.
    nodes: BTreeMap<String, usize>,
    kind: Kind,
}

impl Unit {
    pub fn is_pods(&self) -> bool {
        matches!(self.kind, Kind::Pod(_))
    }

    /// How many pairs of members policies judge: a pod always reaches itself, a node its own pods,
    /// and flows between ends that are no pods are not theirs.
    pub fn pairs_to(&self, other: &Self) -> usize {
        let all = self.members.len() * other.members.len();
        match (self.kind, other.kind) {
            (Kind::Pod(_), Kind::Pod(_)) if self.members == other.members => {
                all - self.members.len()
            }
            (Kind::Node, Kind::Pod(_)) => {
                let own = self.nodes.keys().map(|n| other.nodes.get(n).unwrap_or(&0));
                all - own.sum::<usize>()
            }
            (Kind::Pod(_), _) | (Kind::Outside, Kind::Pod(_)) => all,
            (Kind::Node | Kind::Outside, Kind::Node | Kind::Outside) => 0,
        }
    }
}

/// What makes pods one workload: namespace, title, labels.
type Workload = (String, Option<String>, Vec<BTreeMap<String, String>>);

/// The units of some compiled worlds; pods by their names, then nodes, then who is outside.
pub(in super::super) fn units(
    census: &Census,
    worlds: &[&World],
    compiled: &[Compiled],
) -> Vec<Unit> {
    let views = |party: usize| -> Vec<View> { compiled.iter().map(|c| c.views[party]).collect() };
    let mut by_workload: BTreeMap<Workload, BTreeMap<Vec<View>, Vec<usize>>> = BTreeMap::new();
    let mut others: BTreeMap<(bool, Vec<View>), Vec<usize>> = BTreeMap::new();
    let made_by = made_by(worlds);
    for (number, party) in census.parties.iter().enumerate() {
        match party.kind {
            Kind::Pod(_) => {
                let workload = workload(party, &made_by);
                let parts = by_workload.entry(workload).or_default();
                parts.entry(views(number)).or_default().push(number);
            }
            kind => {
                let key = (kind == Kind::Outside, views(number));
                others.entry(key).or_default().push(number);
            }
        }
    }
    let mut units = pods(census, by_workload);
    let mut others: Vec<_> = others.into_iter().map(|((_, v), m)| (m, v)).collect();
    others.sort();
    let others = others.into_iter();
    units.extend(others.map(|(members, views)| other(census, members, views)));
    units
}

/// The workload that each pod is of, where the objects say it.
fn made_by(worlds: &[&World]) -> HashMap<(String, String), String> {
    let workloads = worlds.iter().flat_map(|world| world.workloads.values());
    let pods = workloads.flatten().flat_map(|workload| {
        let key = |pod: &String| (workload.namespace.clone(), pod.clone());
        workload
            .pods
            .iter()
            .map(move |pod| (key(pod), workload.name.clone()))
    });
    pods.collect()
}

fn workload(party: &Party, made_by: &HashMap<(String, String), String>) -> Workload {
    let pods = || party.faces.iter().filter_map(|face| face.pod);
    let key = (party.namespace.clone(), party.name.clone());
    let owner = made_by.get(&key).cloned();
    let owner = owner.or_else(|| pods().find_map(title::owner));
    (key.0, owner, pods().map(title::labels).collect())
}

fn pods(
    census: &Census,
    workloads: BTreeMap<Workload, BTreeMap<Vec<View>, Vec<usize>>>,
) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut taken: HashSet<String> = HashSet::new();
    let name = |member: &usize| census.parties[*member].name.as_str();
    for ((namespace, owner, _), parts) in workloads {
        let all: Vec<&str> = parts.values().flatten().map(name).collect();
        let mut title = format!(
            "{namespace}/{}",
            owner.unwrap_or_else(|| title::common(&all))
        );
        if !taken.insert(title.clone()) {
            // Pods of one owner with other labels than their siblings.
            title = format!("{title} [{}]", all.first().copied().unwrap_or_default());
            taken.insert(title.clone());
        }
        let (total, whole) = (all.len(), parts.len() == 1);
        for (views, members) in parts {
            let listed = || {
                let shown = members.iter().take(MOST_NAMES).map(name);
                let more = members.len().saturating_sub(MOST_NAMES);
                let more = (more > 0).then(|| format!("{more} more"));
                let names = shown.map(str::to_owned).chain(more);
                names.collect::<Vec<_>>().join(", ")
            };
            let label = match (whole, total) {
                (true, 1) => title.clone(),
                (true, total) => format!("{title} ({total} pods)"),
                (false, total) => {
                    format!("{title} ({} of {total} pods: {})", members.len(), listed())
                }
            };
            let mut nodes = BTreeMap::new();
            for face in members
                .iter()
                .filter_map(|m| census.parties[*m].faces.last())
            {
                if let Some(node) = &face.node {
                    *nodes.entry(node.clone()).or_insert(0) += 1;
                }
            }
            units.push(Unit {
                label,
                namespace: namespace.clone(),
                kind: Kind::Pod(0),
                members,
                views,
                nodes,
            });
        }
    }
    units.sort_by(|a, b| (&a.namespace, &a.label).cmp(&(&b.namespace, &b.label)));
    units
}

fn other(census: &Census, members: Vec<usize>, views: Vec<View>) -> Unit {
    let parties = || members.iter().map(|member| &census.parties[*member]);
    let shown: Vec<String> = parties().take(MOST_NAMES).map(Party::label).collect();
    let more = match members.len().saturating_sub(MOST_NAMES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let kind = parties().next().map_or(Kind::Outside, |party| party.kind);
    let is_node = kind == Kind::Node;
    Unit {
        label: shown.join(", ") + &more,
        namespace: String::new(),
        nodes: parties()
            .filter(|_| is_node)
            .map(|p| (p.name.clone(), 1))
            .collect(),
        kind,
        members,
        views,
    }
}
