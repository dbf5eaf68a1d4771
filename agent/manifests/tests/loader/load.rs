//! Files and directories.

use std::path::Path;

use weir_manifests::{Object, load};

fn pod(name: &str, label: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: ns, labels: {{v: {label}}}}}\n"
    )
}

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn label(manifests: &weir_manifests::Manifests, name: &str) -> Option<String> {
    manifests.objects.values().find_map(|l| {
        let metadata = l.object.metadata();
        (metadata.name.as_deref() == Some(name))
            .then(|| metadata.labels.as_ref().unwrap()["v"].clone())
    })
}

#[test]
fn a_tree_is_read_in_the_order_of_names_and_the_last_duplicate_wins_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "b.yml", &pod("x", "second"));
    write(dir.path(), "a/deep/1.YAML", &pod("x", "first"));
    write(
        dir.path(),
        "c.json",
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "why", "namespace": "ns", "labels": {"v": "json"}}}"#,
    );
    write(dir.path(), "notes.txt", &pod("z", "no"));
    write(dir.path(), ".hidden.yaml", &pod("z", "no"));
    write(dir.path(), "..data/x.yaml", &pod("z", "no"));
    let manifests = load(dir.path()).unwrap();
    assert_eq!(label(&manifests, "x").as_deref(), Some("second"));
    assert_eq!(label(&manifests, "why").as_deref(), Some("json"));
    assert_eq!(label(&manifests, "z"), None);
    assert_eq!(manifests.warnings.len(), 1);
    let warning = manifests.warnings[0].to_string();
    assert!(
        warning.contains("b.yml:1: Pod ns/x replaces the one at "),
        "{warning}"
    );
    assert!(warning.ends_with("1.YAML:1"), "{warning}");
}

#[test]
fn a_file_is_read_whatever_its_name() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "dump", &pod("x", "v"));
    assert!(label(&load(&dir.path().join("dump")).unwrap(), "x").is_some());
}

#[test]
fn links_that_go_round_end() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a/x.yaml", &pod("x", "v"));
    std::os::unix::fs::symlink(dir.path(), dir.path().join("a/loop")).unwrap();
    assert!(label(&load(dir.path()).unwrap(), "x").is_some());
}

#[test]
fn what_cannot_be_read_is_named() {
    let error = load(Path::new("/nowhere/at/all")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all"));
}

#[test]
fn namespaces_that_are_used_exist_and_all_carry_their_name() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        "x.yaml",
        &(pod("x", "v")
            + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: m, labels: {team: a}}\n"),
    );
    let manifests = load(dir.path()).unwrap();
    let namespaces: Vec<_> = manifests
        .objects
        .values()
        .filter_map(|l| match &l.object {
            Object::Namespace(n) => Some((
                n.metadata.name.clone().unwrap(),
                n.metadata.labels.clone().unwrap(),
            )),
            _ => None,
        })
        .collect();
    assert_eq!(namespaces.len(), 2);
    for (name, labels) in &namespaces {
        assert_eq!(&labels["kubernetes.io/metadata.name"], name);
    }
    assert_eq!(namespaces[0].1["team"], "a");
}
