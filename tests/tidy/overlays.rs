//! Overlays and the cleanup Job name what the manifest has.

use std::collections::BTreeMap;

use serde_json::Value;
use weir_manifests::yaml::documents;

use crate::{read, root};

const OVERLAYS: &str = "manifests/kustomize/overlays";

fn first(text: &str) -> Value {
    let document = documents(text).into_iter().next().expect("a document");
    let (line, why) = match document.value {
        Ok(value) => return value.into(),
        Err(error) => error,
    };
    panic!("line {line}: {why}\n{text}")
}

fn daemonset() -> Value {
    first(&read("manifests/kustomize/base/daemonset.yaml"))
}

/// The items of a list by their names; none where the list is not there.
fn by_name<'a>(object: &'a Value, list: &str) -> BTreeMap<&'a str, &'a Value> {
    let items = object.pointer(list).and_then(Value::as_array);
    let named = items.into_iter().flatten();
    named
        .map(|item| (item["name"].as_str().expect("a name"), item))
        .collect()
}

#[test]
fn overlays_change_volumes_containers_and_keys_that_the_base_has() {
    let base = daemonset();
    let config = read("manifests/kustomize/base/config.yaml");
    let mut checked = 0;
    for entry in std::fs::read_dir(root().join(OVERLAYS)).expect("overlays") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_str().expect("UTF-8");
        let overlay = first(&read(&format!("{OVERLAYS}/{name}/kustomization.yaml")));
        assert_eq!(overlay["resources"][0], "../../base", "{name}");
        let patch = first(overlay["patches"][0]["patch"].as_str().expect("a patch"));
        for key in ["kind", "apiVersion"] {
            assert_eq!(patch[key], base[key], "{name}");
        }
        for key in ["name", "namespace"] {
            assert_eq!(patch["metadata"][key], base["metadata"][key], "{name}");
        }
        for list in [
            "/spec/template/spec/volumes",
            "/spec/template/spec/containers",
        ] {
            let known = by_name(&base, list);
            for (item, change) in by_name(&patch, list) {
                assert!(known.contains_key(item), "{name}: the base has no {item}");
                checked += 1;
                for variable in by_name(change, "/env").keys() {
                    let key = variable.strip_prefix("WEIR_").expect("one of ours");
                    let key = key.to_lowercase().replace('_', "-");
                    let there = config.contains(&format!("# {key}:"));
                    assert!(there, "{name}: config.yaml has no {key}");
                }
            }
        }
    }
    assert!(checked > 3, "{checked}");
}

#[test]
fn the_cleanup_job_has_the_image_and_the_paths_of_the_manifest() {
    let (base, job) = (daemonset(), first(&read("manifests/cleanup-job.yaml")));
    let list = "/spec/template/spec/volumes";
    let known = by_name(&base, list);
    for (name, volume) in by_name(&job, list) {
        assert_eq!(
            volume["hostPath"]["path"], known[name]["hostPath"]["path"],
            "{name}"
        );
    }
    let container = "/spec/template/spec/containers/0";
    let image = |object: &Value| object.pointer(container).map(|c| c["image"].clone());
    assert_eq!(image(&job), image(&base));
}
