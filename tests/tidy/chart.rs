//! The Helm chart, rendered by the few forms of templates that it has, is the manifest.

use std::path::Path;

use serde_json::{Value, json};
use weir_manifests::yaml::documents;

use crate::{read, root};

const CHART: &str = "manifests/helm/weir";

/// The documents of a YAML text.
fn parse(text: &str) -> Vec<Value> {
    let parsed = documents(text).into_iter().map(|document| {
        let value = document.value;
        Value::from(value.unwrap_or_else(|(line, why)| panic!("line {line}: {why}\n{text}")))
    });
    parsed.filter(|value| !value.is_null()).collect()
}

/// What Helm makes of a template, for the forms that are known here; another form is refused.
fn render(template: &str, values: &Value) -> String {
    let mut out = String::new();
    let mut lines = template.lines();
    while let Some(line) = lines.next() {
        if line.contains("{{- range $key, $value := .Values.config }}") {
            assert_eq!(lines.next(), Some("    {{ $key }}: {{ $value | toJson }}"));
            assert_eq!(lines.next(), Some("    {{- end }}"));
            for (key, value) in values["config"].as_object().expect("a mapping") {
                out += &format!("    {key}: {value}\n");
            }
        } else if line.trim() == "{{- toYaml .Values.resources | nindent 10 }}" {
            // JSON is YAML; the marker takes the line break before it away.
            out += &format!("          {}\n", values["resources"]);
        } else {
            out += &expressions(line, values);
            out.push('\n');
        }
    }
    out
}

/// A line with its expressions replaced.
fn expressions(line: &str, values: &Value) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("{{ ") {
        let (expression, after) = after.split_once(" }}").expect("an expression ends");
        out += before;
        out += &match expression {
            ".Release.Namespace" => "weir-system".to_owned(),
            ".Values.config | toJson | sha256sum" => "sum".to_owned(),
            path => {
                let (path, quoted) = match path.strip_suffix(" | quote") {
                    Some(path) => (path, true),
                    None => (path, false),
                };
                let keys = path.strip_prefix(".Values").expect("a value");
                let value = values.pointer(&keys.replace('.', "/"));
                let value = value.unwrap_or_else(|| panic!("values.yaml has no {path}"));
                let text = value.as_str().expect("text");
                if quoted {
                    format!("{text:?}")
                } else {
                    text.to_owned()
                }
            }
        };
        rest = after;
    }
    out + rest
}

/// The objects of the chart as an installation with these values gets them.
fn installed(values: &Value) -> Vec<Value> {
    let dir = root().join(CHART).join("templates");
    let mut objects = Vec::new();
    for entry in std::fs::read_dir(dir).expect("templates") {
        let name = entry.expect("an entry").file_name();
        let path = Path::new(CHART).join("templates").join(name);
        let text = read(path.to_str().expect("UTF-8"));
        objects.extend(parse(&render(&text, values)));
    }
    objects
}

fn values() -> Value {
    let mut values = parse(&read(&format!("{CHART}/values.yaml")));
    values.remove(0)
}

/// Without what the chart does its own way: the configuration's comments, and its checksum.
fn comparable(mut object: Value) -> (String, Value) {
    if let Some(text) = object.pointer_mut("/data/config.yaml") {
        *text = parse(text.as_str().expect("text")).remove(0);
    }
    if let Some(Value::Object(metadata)) = object.pointer_mut("/spec/template/metadata") {
        metadata.remove("annotations");
    }
    let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
    (name, object)
}

#[test]
fn the_chart_with_its_own_values_is_the_manifest_but_for_the_namespace() {
    let mut chart: Vec<_> = installed(&values()).into_iter().map(comparable).collect();
    let manifest = parse(&read("manifests/weir.yaml")).into_iter();
    let mut manifest: Vec<_> = manifest
        .filter(|object| object["kind"] != "Namespace")
        .map(comparable)
        .collect();
    for list in [&mut chart, &mut manifest] {
        list.sort_by(|a, b| a.0.cmp(&b.0));
    }
    assert!(manifest.len() >= 7);
    assert_eq!(chart, manifest);
}

#[test]
fn values_reach_their_places_in_the_chart() {
    let mut values = values();
    values["image"]["tag"] = json!("v9");
    values["paths"]["cniBin"] = json!("/bin/cni");
    values["config"]["api-server"] = json!("https://192.0.2.1:6443");
    values["config"]["uplinks"] = json!(["eth0", "eth1"]);
    values["resources"] = json!({"requests": {"cpu": "7m"}});
    let objects = installed(&values);
    let find = |kind: &str| {
        let found = objects.iter().find(|o| o["kind"] == kind);
        found.unwrap_or_else(|| panic!("no {kind}"))
    };
    let config = find("ConfigMap")["data"]["config.yaml"].as_str();
    let config = parse(config.expect("text")).remove(0);
    assert_eq!(config["api-server"], "https://192.0.2.1:6443");
    assert_eq!(config["uplinks"], json!(["eth0", "eth1"]));
    let pod = &find("DaemonSet")["spec"]["template"];
    assert_eq!(pod["metadata"]["annotations"]["checksum/config"], "sum");
    let spec = &pod["spec"];
    for container in [&spec["containers"][0], &spec["initContainers"][0]] {
        assert_eq!(container["image"], "ghcr.io/weir-cni/weir:v9");
        assert_eq!(container["resources"]["requests"]["cpu"], "7m");
    }
    let volumes = spec["volumes"].as_array().expect("a list");
    assert!(volumes.iter().any(|v| v["hostPath"]["path"] == "/bin/cni"));
}
