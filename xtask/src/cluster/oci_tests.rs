//! The files of an image, read back by name.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde_json::Value;
use tar::Archive;

use super::{Digest, Image, write};

type Files = BTreeMap<String, Vec<u8>>;

fn image() -> Image {
    let mut image = Image::new(&["localhost/weir:dev", "registry.k8s.io/e2e/weir:1.0"]);
    image.env = vec!["PATH=/bin".to_owned()];
    image.entrypoint = vec!["/bin/weir-agent".to_owned()];
    image.text("etc/weir/config", "a: b\n");
    image.link("bin/sh", "busybox");
    image.shared_directory("tmp");
    image
}

fn written(image: &Image) -> Vec<u8> {
    let mut out = Vec::new();
    write(std::slice::from_ref(image), "amd64", &mut out).expect("a Vec takes all");
    out
}

fn files(bytes: &[u8]) -> Files {
    Archive::new(bytes)
        .entries()
        .expect("an archive")
        .map(|entry| {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("its content");
            (path, content)
        })
        .collect()
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

/// The blob that a descriptor names; its digest and size have to be right.
fn blob<'a>(files: &'a Files, descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"].as_str().expect("a digest");
    let name = digest.strip_prefix("sha256:").expect("a SHA-256");
    let blob = &files[&format!("blobs/sha256/{name}")];
    assert_eq!(Digest::of(blob).to_string(), digest);
    assert_eq!(descriptor["size"], blob.len());
    blob
}

#[test]
fn the_index_leads_to_manifest_config_and_layer_by_digest_and_size() {
    let files = files(&written(&image()));
    assert_eq!(parsed(&files["oci-layout"])["imageLayoutVersion"], "1.0.0");
    let index = parsed(&files["index.json"]);
    let manifest = parsed(blob(&files, &index["manifests"][0]));
    let config = parsed(blob(&files, &manifest["config"]));
    let layer = &manifest["layers"][0];
    blob(&files, layer);
    assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar");
    // Of the content without compression, which this layer has none of.
    assert_eq!(config["rootfs"]["diff_ids"][0], layer["digest"]);
    assert_eq!(config["architecture"], "amd64");
    assert_eq!(config["config"]["Entrypoint"][0], "/bin/weir-agent");
    assert_eq!(config["config"]["Env"][0], "PATH=/bin");
    assert!(config["config"].get("Cmd").is_none());
}

#[test]
fn the_digest_that_is_returned_is_the_manifests() {
    let mut out = Vec::new();
    let digests = write(&[image()], "arm64", &mut out).expect("a Vec takes all");
    let index = parsed(&files(&out)["index.json"]);
    assert_eq!(index["manifests"][0]["digest"], digests[0].to_string());
    assert_eq!(index["manifests"][0]["platform"]["architecture"], "arm64");
}

#[test]
fn each_name_has_an_entry_with_containerds_annotation_and_the_tag() {
    let index = parsed(&files(&written(&image()))["index.json"]);
    let entries = index["manifests"].as_array().expect("a list");
    let named: Vec<(&str, &str)> = entries
        .iter()
        .map(|entry| {
            let notes = &entry["annotations"];
            (
                notes["io.containerd.image.name"].as_str().expect("a name"),
                notes["org.opencontainers.image.ref.name"]
                    .as_str()
                    .expect("a tag"),
            )
        })
        .collect();
    assert_eq!(
        named,
        [
            ("localhost/weir:dev", "dev"),
            ("registry.k8s.io/e2e/weir:1.0", "1.0")
        ]
    );
    assert_eq!(entries[0]["digest"], entries[1]["digest"]);
}

#[test]
fn a_port_in_a_name_is_no_tag() {
    assert_eq!(super::tag("localhost:5000/weir"), "latest");
    assert_eq!(super::tag("localhost:5000/weir:dev"), "dev");
}

#[test]
fn the_layer_is_sorted_with_parents_first_and_nothing_of_the_machine_in_it() {
    let files = files(&written(&image()));
    let index = parsed(&files["index.json"]);
    let manifest = parsed(blob(&files, &index["manifests"][0]));
    let layer = blob(&files, &manifest["layers"][0]);
    let mut seen = Vec::new();
    for entry in Archive::new(layer).entries().expect("an archive") {
        let entry = entry.expect("an entry");
        let header = entry.header();
        assert_eq!(header.mtime().expect("a time"), 0);
        assert_eq!(header.uid().expect("a user"), 0);
        assert_eq!(header.gid().expect("a group"), 0);
        let path = entry.path().expect("a path").display().to_string();
        seen.push((path, header.mode().expect("a mode")));
    }
    let wanted = [
        ("bin", 0o755),
        ("bin/sh", 0o777),
        ("etc", 0o755),
        ("etc/weir", 0o755),
        ("etc/weir/config", 0o644),
        ("tmp", 0o1777),
    ];
    assert_eq!(seen, wanted.map(|(path, mode)| (path.to_owned(), mode)));
}

#[test]
fn the_order_in_which_files_are_added_does_not_matter() {
    let mut other = Image::new(&["localhost/weir:dev", "registry.k8s.io/e2e/weir:1.0"]);
    other.env = vec!["PATH=/bin".to_owned()];
    other.entrypoint = vec!["/bin/weir-agent".to_owned()];
    other.shared_directory("/tmp");
    other.link("/bin/sh", "busybox");
    other.text("/etc/weir/config", "a: b\n");
    assert_eq!(written(&image()), written(&other));
}

#[test]
fn a_file_that_is_missing_is_named() {
    let mut image = image();
    image.program("bin/weir", "/nonexistent/weir".as_ref());
    let err = write(&[image], "amd64", Vec::new()).expect_err("no such file");
    assert!(err.to_string().contains("/nonexistent/weir"), "{err}");
}

#[test]
fn a_path_longer_than_a_tar_header_survives() {
    let long = format!("{}/end", "directory/".repeat(20).trim_end_matches('/'));
    let mut image = image();
    image.text(&long, "x");
    let files = files(&written(&image));
    let index = parsed(&files["index.json"]);
    let manifest = parsed(blob(&files, &index["manifests"][0]));
    let layer = self::files(blob(&files, &manifest["layers"][0]));
    assert_eq!(layer[&long], b"x");
}

#[test]
fn images_that_begin_with_the_same_layer_share_it() {
    let with = |content: &str, name: &str| {
        let mut image = image();
        image.names = vec![name.to_owned()];
        image.next_layer();
        image.script("bin/run", content);
        image
    };
    let images = [
        with("one", "localhost/one:1"),
        with("two", "localhost/two:2"),
    ];
    let mut out = Vec::new();
    let digests = write(&images, "amd64", &mut out).expect("a Vec takes all");
    let files = files(&out);
    let index = parsed(&files["index.json"]);
    let [one, two] = [0, 1].map(|at| {
        let entry = &index["manifests"][at];
        assert_eq!(entry["digest"], digests[at].to_string());
        let manifest = parsed(blob(&files, entry));
        let config = parsed(blob(&files, &manifest["config"]));
        let upper = self::files(blob(&files, &manifest["layers"][1]));
        assert_eq!(upper.keys().collect::<Vec<_>>(), ["bin", "bin/run"]);
        let layers = [0, 1].map(|at| manifest["layers"][at]["digest"].clone());
        assert_eq!(config["rootfs"]["diff_ids"], Value::from(layers.to_vec()));
        assert_eq!(config["history"].as_array().map(Vec::len), Some(2));
        layers
    });
    assert_eq!(one[0], two[0]);
    assert_ne!(one[1], two[1]);
    // Two manifests, two configurations, three layers, two directories, two files that lead to them.
    assert_eq!(files.len(), 11);
}
