//! `weir install`.

use std::fs;

use crate::support::{Files, weir};

#[test]
fn install_copies_the_plugin_says_so_and_does_nothing_the_second_time() {
    let files = Files::new(&[("weir-cni", "plugin")]);
    let line = "install --plugin {}/weir-cni --bin-dir {}/bin";
    let done = weir(line, files.dir());
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    let words = |text: &str| -> Vec<String> {
        let first = text.lines().filter_map(|l| l.split(' ').next());
        first.map(str::to_owned).collect()
    };
    assert_eq!(words(&done.stdout), ["installed", "installed"]);
    for name in ["weir-cni", "loopback"] {
        assert_eq!(fs::read(files.path("bin").join(name)).unwrap(), b"plugin");
    }
    let again = weir(line, files.dir());
    assert_eq!(words(&again.stdout), ["unchanged", "unchanged"]);
}

#[test]
fn another_loopback_is_left_and_told_in_json() {
    let files = Files::new(&[("weir-cni", "plugin"), ("loopback", "theirs")]);
    let done = weir(
        "install --plugin {}/weir-cni --bin-dir {} -o json",
        files.dir(),
    );
    let value: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    // It was not executable.
    assert_eq!(value["items"][0]["outcome"], "installed");
    assert_eq!(value["items"][1]["outcome"], "foreign");
    assert_eq!(fs::read(files.path("loopback")).unwrap(), b"theirs");
}

#[test]
fn a_plugin_that_is_missing_is_an_error_that_names_it() {
    let files = Files::new(&[]);
    let done = weir("install --plugin {}/weir-cni --bin-dir {}/bin", files.dir());
    assert_eq!(done.code, 2);
    assert!(done.stderr.contains("/weir-cni: "), "{}", done.stderr);
}
