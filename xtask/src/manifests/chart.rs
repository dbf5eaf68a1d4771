//! The Helm chart: the base with a template in each place that an installation may want otherwise.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use super::{HEAD, Resource};

const CHART: &str = "manifests/helm/weir";
/// The line of the ConfigMap after which the agent's configuration stands.
const CONFIG: &str = "  config.yaml: |\n";
/// The image in the base, without its tag.
const IMAGE: &str = "ghcr.io/weir-cni/weir";

/// A host path of the base, the chart's value for it, and what it is.
const PATHS: [(&str, &str, &str); 5] = [
    ("/opt/cni/bin", "cniBin", "The runtime's CNI plugins"),
    (
        "/etc/cni/net.d",
        "cniConf",
        "The runtime's CNI configurations",
    ),
    (
        "/sys/fs/cgroup",
        "cgroup",
        "The cgroup2 file system; /sys/fs/cgroup/unified where cgroup v1 is mounted as well",
    ),
    (
        "/sys/fs/bpf",
        "bpffs",
        "Where the BPF file system is, or is mounted",
    ),
    (
        "/run/netns",
        "netns",
        "Where the runtime has pods' network namespaces",
    ),
];

/// The range over `.Values.config`: JSON is YAML, whatever a value holds.
const CONFIG_TEMPLATE: &str = r"    {{- range $key, $value := .Values.config }}
    {{ $key }}: {{ $value | toJson }}
    {{- end }}
";
const RESOURCES: &str = r"
          requests:
            cpu: 100m
            memory: 192Mi
";
const RESOURCES_TEMPLATE: &str = "\n          {{- toYaml .Values.resources | nindent 10 }}\n";
/// A change of the configuration makes new pods, as agents read it when they start.
const CHECKSUM: &str = r"      annotations:
        checksum/config: {{ .Values.config | toJson | sha256sum }}
";

/// Every file of the chart, by its path in the repository.
pub(super) fn generate(base: &[Resource]) -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    let mut config = None;
    let mut tag = None;
    for (name, text) in base {
        // Helm makes the namespace (`--create-namespace`).
        if name == "namespace.yaml" {
            continue;
        }
        let text = match name.as_str() {
            "config.yaml" => {
                let (before, block) = text
                    .split_once(CONFIG)
                    .context("config.yaml has no config.yaml")?;
                config = Some(block.to_owned());
                format!("{before}{CONFIG}{CONFIG_TEMPLATE}")
            }
            "daemonset.yaml" => {
                tag = Some(image_tag(text)?);
                daemonset(text)?
            }
            _ => text.clone(),
        };
        let text = text.replace(
            "namespace: weir-system",
            "namespace: {{ .Release.Namespace }}",
        );
        files.insert(path(&format!("templates/{name}")), format!("{HEAD}{text}"));
    }
    let config = config.context("the base has no config.yaml")?;
    let tag = tag.context("the base has no daemonset.yaml")?;
    files.insert(path("Chart.yaml"), chart(&tag));
    files.insert(path("values.yaml"), values(&config, &tag)?);
    Ok(files)
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(CHART).join(name)
}

/// The version behind the image's name, the same for both containers.
fn image_tag(text: &str) -> Result<String> {
    let mut tags = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("image: "))
        .map(|image| {
            image
                .strip_prefix(IMAGE)
                .and_then(|rest| rest.strip_prefix(':'))
        });
    let first = tags
        .next()
        .flatten()
        .context("daemonset.yaml has no image of ours")?;
    ensure!(
        tags.all(|tag| tag == Some(first)),
        "the containers of daemonset.yaml have different images"
    );
    Ok(first.to_owned())
}

fn daemonset(text: &str) -> Result<String> {
    let tag = image_tag(text)?;
    let mut out = text.to_owned();
    let mut put = |from: &str, to: &str| {
        ensure!(out.contains(from), "daemonset.yaml has no {from:?}");
        out = out.replace(from, to);
        Ok(())
    };
    put(
        &format!("image: {IMAGE}:{tag}\n"),
        "image: {{ .Values.image.repository }}:{{ .Values.image.tag }}\n",
    )?;
    put(
        "imagePullPolicy: IfNotPresent\n",
        "imagePullPolicy: {{ .Values.image.pullPolicy }}\n",
    )?;
    put(RESOURCES, RESOURCES_TEMPLATE)?;
    for (host, value, _) in PATHS {
        put(
            &format!("          path: {host}\n"),
            &format!("          path: {{{{ .Values.paths.{value} | quote }}}}\n"),
        )?;
    }
    put(
        "    metadata:\n      labels:\n",
        &format!("    metadata:\n{CHECKSUM}      labels:\n"),
    )?;
    Ok(out)
}

fn chart(tag: &str) -> String {
    let version = tag.trim_start_matches('v');
    format!(
        "{HEAD}apiVersion: v2\nname: weir\ntype: application\n\
         description: CNI plugin, Service load balancer and NetworkPolicy dataplane in eBPF\n\
         home: https://github.com/weir-cni/weir\n\
         version: {version}\nappVersion: {tag}\nkubeVersion: \">= 1.29.0-0\"\n"
    )
}

/// `values.yaml`: the configuration as the ConfigMap documents it, and the places of the DaemonSet.
fn values(config: &str, tag: &str) -> Result<String> {
    let mut out = format!(
        "{HEAD}\nimage:\n  repository: {IMAGE}\n  tag: {tag}\n  pullPolicy: IfNotPresent\n\n\
         # The agent's requests. Without a limit of memory: maps are charged to it.\n\
         resources:\n  requests:\n    cpu: 100m\n    memory: 192Mi\n\n\
         # Of the node. docs/install.md has those of distributions.\npaths:\n"
    );
    for (host, value, what) in PATHS {
        out += &format!("  # {what}.\n  {value}: {host}\n");
    }
    out += "\n# The agent's configuration: every key, as in docs/agent.md.\nconfig:\n";
    for line in config.lines() {
        let line = line
            .strip_prefix("    ")
            .with_context(|| format!("config.yaml: {line:?} is not indented by four"))?;
        out += &format!("  {line}\n");
    }
    Ok(out)
}
