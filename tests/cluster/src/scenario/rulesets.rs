//! Weir leaves netfilter alone: the rulesets of its nodes are those of a node without any CNI.

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

use crate::api::Cluster;
use crate::args::{Cni, Dirs, Which};
use crate::kit::world::READY;
use crate::kit::{World, eventually};

/// What prints rulesets.
const PROGRAMS: [&[&str]; 3] = [
    &["nft", "list", "ruleset"],
    &["iptables-save"],
    &["ip6tables-save"],
];

/// Starts a cluster of one node with `--cni none` beside this one, and compares.
///
/// # Errors
/// A ruleset differs: how; or the other cluster does not start.
pub async fn as_without_cni(cluster: &Cluster) -> Result<String> {
    ensure!(
        cluster.state().options.cni == Cni::Weir,
        "this cluster has no Weir: cargo xtask cluster up"
    );
    let beside = format!("{}-none", cluster.state().name);
    let options = &cluster.state().options;
    let mut up = vec!["up", "--name", &beside, "--cni", "none", "--nodes", "1"];
    if options.dual_stack {
        up.push("--dual-stack");
    }
    if options.ipv6 {
        up.push("--ipv6");
    }
    let started = itself(&up).await;
    let compared = match started {
        Ok(()) => compare(cluster, &beside).await,
        Err(error) => Err(error),
    };
    itself(&["down", "--name", &beside]).await?;
    compared
}

async fn itself(args: &[&str]) -> Result<()> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let out = Command::new(program).args(args).output().await?;
    if !out.status.success() {
        bail!(
            "weir-cluster {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(())
}

async fn compare(cluster: &Cluster, beside: &str) -> Result<String> {
    let which = Which {
        name: beside.to_owned(),
    };
    let beside = Cluster::open(&Dirs::of(&which)?.state)?;
    World::with(cluster, "rules", |ours| async move {
        World::with(&beside, "rules", |theirs| async move {
            // A kubelet makes its own chains some time after its node is registered.
            eventually("rulesets that are equal", READY, || same(&ours, &theirs)).await
        })
        .await
    })
    .await
}

async fn same(ours: &World, theirs: &World) -> Result<String> {
    let plain = theirs.nodes();
    let plain = plain.first().context("the other cluster has no node")?;
    let mut wanted = Vec::new();
    for program in PROGRAMS {
        wanted.push(comparable(&theirs.on_node(plain, program).await?));
    }
    let nodes = ours.nodes();
    for node in &nodes {
        for (program, wanted) in PROGRAMS.iter().zip(&wanted) {
            let found = comparable(&ours.on_node(node, program).await?);
            ensure!(
                found == *wanted,
                "`{}` on {node} differs from that of a node without CNI:\n{}\n--- instead of\n{}",
                program.join(" "),
                found.join("\n"),
                wanted.join("\n")
            );
        }
    }
    let lines: usize = wanted.iter().map(Vec::len).sum();
    let count = nodes.len();
    Ok(format!(
        "{count} nodes, {lines} lines each, all kubelet's own"
    ))
}

/// Without what counts packets or tells the time, which differ between two moments of one node; and
/// tables and chains by name, as their order is that in which kubelet came to make them. The order of
/// a chain's rules stays.
fn comparable(text: &str) -> Vec<String> {
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut blocks: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let line = uncounted(line.trim());
        if let Some(table) = line.strip_prefix('*') {
            // iptables-save: a table, to COMMIT.
            blocks = vec![table.to_owned()];
        } else if line == "COMMIT" {
            blocks.clear();
        } else if line.ends_with('{') {
            blocks.push(line.clone());
            lines.push((blocks.join(" "), line));
        } else if line == "}" {
            blocks.pop();
        } else if !line.is_empty() {
            lines.push((format!("{} {}", blocks.join(" "), chain_of(&line)), line));
        }
    }
    lines.sort_by(|one, two| one.0.cmp(&two.0));
    lines
        .into_iter()
        .map(|(place, line)| format!("{place}: {line}"))
        .collect()
}

/// The chain of a line of iptables-save: `:INPUT ACCEPT`, `-A INPUT …`; nothing for nft's, which are in
/// blocks.
fn chain_of(line: &str) -> &str {
    let name = line.strip_prefix(':').or_else(|| line.strip_prefix("-A "));
    name.and_then(|name| name.split(' ').next())
        .unwrap_or_default()
}

fn uncounted(line: &str) -> String {
    let mut words = Vec::new();
    let mut rest = line.split(' ');
    while let Some(word) = rest.next() {
        // `counter packets 5 bytes 300` of nft.
        if word == "packets" || word == "bytes" {
            rest.next();
        } else if !(word.starts_with('[') && word.ends_with(']') && word.contains(':')) {
            words.push(word);
        }
    }
    words.join(" ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_times_are_no_difference_but_rules_are() {
        let one = "# Generated by iptables-save on Mon\n*filter\n:INPUT ACCEPT [5:300]\n-A INPUT -j DROP\nCOMMIT\n";
        let two = one.replace("Mon", "Tue").replace("[5:300]", "[9:900]");
        assert_eq!(comparable(one), comparable(&two));
        assert_ne!(comparable(one), comparable(&one.replace("DROP", "ACCEPT")));
        let nft = "\t\tcounter packets 5 bytes 300 drop";
        assert_eq!(
            comparable(nft),
            comparable("\t\tcounter packets 6 bytes 360 drop")
        );
    }

    #[test]
    fn the_order_of_tables_and_chains_is_no_difference_but_that_of_rules_is() {
        let save = |first: &str, second: &str| format!("*nat\n{first}\n{second}\nCOMMIT\n");
        let nat = save(":A ACCEPT [0:0]", ":B - [0:0]");
        assert_eq!(
            comparable(&nat),
            comparable(&save(":B - [0:0]", ":A ACCEPT [0:0]"))
        );
        let rules = save("-A A -j B", "-A A -j C");
        assert_ne!(
            comparable(&rules),
            comparable(&save("-A A -j C", "-A A -j B"))
        );
        assert_ne!(
            comparable(&rules),
            comparable(&rules.replace("*nat", "*filter"))
        );

        let table = |name: &str, rules: &str| {
            format!("table ip {name} {{\n\tchain c {{\n{rules}\t}}\n}}\n")
        };
        let (nat, filter) = (table("nat", ""), table("filter", "\t\ta\n\t\tb\n"));
        let both = comparable(&format!("{nat}{filter}"));
        assert_eq!(both, comparable(&format!("{filter}{nat}")));
        let turned = table("filter", "\t\tb\n\t\ta\n");
        assert_ne!(both, comparable(&format!("{nat}{turned}")));
        assert_ne!(both, comparable(&filter), "a table is missing");
    }
}
