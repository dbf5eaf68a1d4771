//! Usage, version, completions, colours.

use std::path::Path;
use std::process::Command;

use crate::support::{Files, weir};

#[test]
fn version_is_told_as_text_and_as_json() {
    let done = weir("version", Path::new(""));
    assert_eq!(
        (done.stdout.as_str(), done.code),
        (concat!("weir ", env!("CARGO_PKG_VERSION"), "\n"), 0)
    );
    let done = weir("version -o json", Path::new(""));
    let value: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(value["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn every_shell_gets_a_completion_script() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let done = weir(&format!("completion {shell}"), Path::new(""));
        assert_eq!(done.code, 0);
        assert!(done.stdout.contains("trace"), "{shell}");
    }
}

#[test]
fn help_is_no_error_and_nonsense_is() {
    let help = weir("policy trace --help", Path::new(""));
    assert_eq!(help.code, 0);
    assert!(help.stdout.contains("--require-kernel") && help.stderr.is_empty());
    let nonsense = weir("policy trce", Path::new(""));
    assert_eq!(nonsense.code, 2);
    assert!(nonsense.stdout.is_empty() && nonsense.stderr.contains("trace"));
}

#[test]
fn a_missing_agent_is_an_error_that_names_the_socket() {
    let files = Files::new(&[]);
    for command in [
        "status",
        "endpoint list",
        "service list",
        "policy list",
        "policy trace a b --port 1",
    ] {
        let done = weir(&format!("{command} --socket {{}}"), &files.path("no.sock"));
        assert_eq!(done.code, 2, "{command}");
        assert!(
            done.stdout.is_empty() && done.stderr.contains("no.sock"),
            "{}",
            done.stderr
        );
    }
}

#[test]
fn a_path_without_objects_is_an_error() {
    let files = Files::new(&[("notes.txt", "x")]);
    let done = weir("policy list --manifests {}", files.dir());
    assert_eq!(done.code, 2);
    assert!(
        done.stderr.contains("holds no Kubernetes objects"),
        "{}",
        done.stderr
    );
    let done = weir("policy list --manifests {}", &files.path("nowhere"));
    assert_eq!(done.code, 2);
    assert!(done.stderr.contains("nowhere"), "{}", done.stderr);
}

#[test]
fn the_program_exits_and_colours_as_the_library_says() {
    let files = Files::shop();
    let out = |no_color: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args([
            "policy",
            "trace",
            "shop/job",
            "shop/db",
            "--port",
            "80",
            "--manifests",
        ]);
        command.arg(files.dir());
        command.env_remove("NO_COLOR");
        command.envs(no_color.map(|value| ("NO_COLOR", value)));
        command.output().unwrap()
    };
    let done = out(None);
    assert_eq!(done.status.code(), Some(1));
    // A pipe is no terminal.
    assert!(done.stdout.starts_with(b"DENIED  shop/job"));
    assert!(!done.stdout.contains(&0x1b));
}

#[test]
fn a_terminal_gets_colours() {
    let files = Files::shop();
    let dir = files.dir().to_str().unwrap();
    let line = [
        "weir", "policy", "trace", "-f", dir, "shop/job", "shop/db", "--port", "80",
    ];
    let done = weir_agent::cli::run(line, true);
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    assert_eq!(done.stdout.contains('\u{1b}'), wanted);
}
