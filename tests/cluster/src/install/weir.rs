//! For `--cni weir`: the shipped manifest with the overlay of the test cluster, and CoreDNS, as files
//! that kubectl applies.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    args::{NodeCidrs, Options},
    plan::{Plan, commas},
};

/// The overlay, and CoreDNS.
const OVERLAY: &str = include_str!("../../install/weir/kustomization.yaml");
const COREDNS: &str = include_str!("../../install/coredns.yaml");

/// Where the base has the agent's configuration.
const CONFIG: &str = "config.yaml";

/// What kubectl is to apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// A kustomization: Weir.
    pub weir: PathBuf,
    /// A manifest: CoreDNS.
    pub coredns: PathBuf,
}

/// Writes all of it below `dir`: the base of `manifests` with this cluster's keys, and the overlay.
///
/// # Errors
/// The base lacks what is to be set, or a file cannot be written.
pub fn write(dir: &Path, manifests: &Path, plan: &Plan, options: &Options) -> Result<Files> {
    let from = manifests.join("kustomize/base");
    let (base, weir) = (dir.join("base"), dir.join("weir"));
    for folder in [&base, &weir] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let entries = fs::read_dir(&from).with_context(|| format!("cannot list {}", from.display()))?;
    for entry in entries {
        let name = entry?.file_name();
        let path = from.join(&name);
        let mut text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if name == CONFIG {
            for (key, value) in keys(plan, options) {
                text = set_key(&text, key, &value)
                    .with_context(|| format!("cannot set it in {}", path.display()))?;
            }
        }
        put(&base.join(&name), &text)?;
    }
    put(&weir.join("kustomization.yaml"), OVERLAY)?;
    let files = Files {
        weir,
        coredns: dir.join("coredns.yaml"),
    };
    put(&files.coredns, &coredns(plan)?)?;
    Ok(files)
}

fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The keys that an operator has to set here.
fn keys(plan: &Plan, options: &Options) -> Vec<(&'static str, String)> {
    let mut keys = vec![("api-server", format!("https://{}", plan.api()))];
    if options.node_cidrs == NodeCidrs::Weir {
        keys.push(("cluster-cidr", commas(&plan.pod_cidrs())));
    }
    keys
}

/// Sets a key of the manifest's `config.yaml`, in the line that has it, commented out or not: what an
/// operator does with an editor.
fn set_key(text: &str, key: &str, value: &str) -> Result<String> {
    let mut found = false;
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let content = line.trim_start();
            let bare = content.strip_prefix("# ").unwrap_or(content);
            let ours = bare
                .strip_prefix(key)
                .is_some_and(|rest| rest == ":" || rest.starts_with(": "));
            // A remark that begins with the key's name has words behind it, a value has none.
            if !ours || bare.split_whitespace().count() > 2 {
                return line.to_owned();
            }
            found = true;
            let indent = &line[..line.len() - content.len()];
            format!("{indent}{key}: {}", serde_json::Value::from(value))
        })
        .collect();
    if !found {
        bail!("there is no line `{key}:`, also not one that is commented out");
    }
    Ok(lines.join("\n") + "\n")
}

fn coredns(plan: &Plan) -> Result<String> {
    let all: Vec<String> = plan.dns().iter().map(ToString::to_string).collect();
    // The longer name first: the shorter one is a part of it.
    Ok(COREDNS
        .replace(
            "clusterIPs: DNS_IPS",
            &format!("clusterIPs: {}", serde_json::to_string(&all)?),
        )
        .replace(
            "clusterIP: DNS_IP",
            &format!("clusterIP: {}", serde_json::to_string(&all[0])?),
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "data:\n  config.yaml: |\n    # api-server: is what clients use\n    \
                        # api-server:\n    source: kube\n";

    #[test]
    fn a_key_is_set_in_its_own_line_and_nothing_else_changes() {
        let set = set_key(BASE, "api-server", "https://[fd31::11]:6443").unwrap();
        let line = "    # api-server:\n";
        assert_eq!(
            set,
            BASE.replace(line, "    api-server: \"https://[fd31::11]:6443\"\n")
        );
        let set = set_key(BASE, "source", "dir:/x").unwrap();
        assert!(set.ends_with("    source: \"dir:/x\"\n"), "{set}");
    }

    #[test]
    fn a_key_that_the_manifest_does_not_have_is_an_error() {
        assert!(set_key(BASE, "api", "x").is_err());
    }

    #[test]
    fn coredns_gets_the_services_addresses_of_both_families() {
        let options = Options {
            nodes: 1,
            cni: crate::args::Cni::Weir,
            dual_stack: true,
            ipv6: false,
            containerd: crate::args::Containerd::Two,
            node_cidrs: NodeCidrs::Controller,
        };
        let text = coredns(&Plan::new(&options)).unwrap();
        assert!(
            text.contains(r#"clusterIPs: ["10.96.0.10","fd96::a"]"#),
            "{text}"
        );
        assert!(text.contains(r#"clusterIP: "10.96.0.10""#), "{text}");
        assert!(!text.contains(": DNS_IP"), "{text}");
    }
}
