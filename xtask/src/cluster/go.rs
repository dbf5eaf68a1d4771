//! Building Go programs from their published modules into the cache, once for each set of pins.

use std::cell::OnceCell;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::oci::hex;
use super::pins::{Kind, Module, Program, go_version, required, version_in};
use crate::context::{Context, clean};
use crate::setup::{oci_architecture, which};
use crate::step;

/// Where Go's own installer puts it, which is often not on root's `PATH`.
const USUAL: &str = "/usr/local/go/bin/go";

/// A module of ours with its pins.
pub struct Pins {
    /// The folder with go.mod and go.sum.
    pub home: PathBuf,
    /// The published module that its programs are of.
    of: &'static str,
    /// The version of its programs: `v1.36.3`.
    pub version: String,
    /// What `go build` gets as `-ldflags`.
    ldflags: String,
    /// The Go version that it asks for.
    go: String,
    /// Where its programs are kept.
    pub cache: PathBuf,
    /// The Go that builds them, once it was asked for its version.
    found: OnceCell<PathBuf>,
}

impl Pins {
    /// Reads the module's go.mod and go.sum.
    ///
    /// # Errors
    /// One is missing, or go.mod lacks what is asked of it.
    pub fn read(ctx: &Context, module: &Module) -> Result<Self> {
        let home = ctx.root.join("tests/cluster/go").join(module.dir);
        let read = |name: &str| {
            let file = home.join(name);
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
        };
        let (go_mod, go_sum) = (read("go.mod")?, read("go.sum")?);
        let lacks = |what: &str| format!("{} has no {what}", home.join("go.mod").display());
        let version = required(&go_mod, module.of).with_context(|| lacks(module.of))?;
        let go = go_version(&go_mod).with_context(|| lacks("line `go VERSION`"))?;
        let ldflags = ldflags(module.dir, version);
        let key = key(&go_mod, &go_sum, &ldflags, oci_architecture());
        Ok(Self {
            cache: ctx
                .cache
                .join("cluster/bin")
                .join(format!("{}-{key}", module.dir)),
            of: module.of,
            version: version.to_owned(),
            go: go.to_owned(),
            ldflags,
            home,
            found: OnceCell::new(),
        })
    }

    /// Builds a program unless it is in the cache, and returns where it is.
    ///
    /// # Errors
    /// Go is missing or too old, the modules cannot be fetched, or the program does not compile.
    pub fn build(&self, ctx: &Context, program: &Program) -> Result<PathBuf> {
        let file = self.cache.join(program.name);
        if file.is_file() {
            return Ok(file);
        }
        let go = self.find_go(ctx)?;
        fs::create_dir_all(&self.cache)
            .with_context(|| format!("cannot make {}", self.cache.display()))?;
        // Under another name until it is whole; another xtask may be building the same.
        let new = self
            .cache
            .join(format!(".{}.{}", program.name, std::process::id()));
        let built = self.run(ctx, &go, program, &new).and_then(|()| {
            fs::rename(&new, &file).with_context(|| format!("cannot make {}", file.display()))
        });
        if built.is_err() {
            // There is none where the compiler stopped before it.
            let _ = fs::remove_file(&new);
        }
        built.map(|()| file)
    }

    fn run(&self, ctx: &Context, go: &Path, program: &Program, to: &Path) -> Result<()> {
        let name = format!("build {} {} (once)", program.name, self.version);
        let mut cmd = match program.kind {
            Kind::Main => self.go(go, &["build"]),
            // They were vetted where they were written.
            Kind::Tests => self.go(go, &["test", "-c", "-vet=off"]),
            Kind::C => {
                let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
                let mut cmd = clean(Command::new(compiler));
                cmd.args(["-Os", "-static", "-s", "-o"])
                    .arg(to)
                    .arg(self.source(ctx, go)?.join(program.source));
                return ctx
                    .step(&name, &mut cmd)
                    .context("needs a C compiler and a static C library (Debian: gcc libc6-dev)");
            }
            Kind::File => {
                let from = self.source(ctx, go)?.join(program.source);
                return fs::copy(&from, to)
                    .map(|_| ())
                    .with_context(|| format!("cannot copy {}", from.display()));
            }
        };
        cmd.args([
            "-mod=readonly",
            "-trimpath",
            "-v",
            "-ldflags",
            &self.ldflags,
        ])
        .arg("-o")
        .arg(to)
        .arg(program.source);
        let done = step::observe(&ctx.logs, &name, &mut cmd, None, |_| ())?;
        if !done.ok {
            let said: Vec<&str> = done.tail.iter().map(String::as_str).collect();
            let remedy = self.remedy(&said.join("\n"));
            bail!("{}{remedy}", step::failure(&name, &done));
        }
        step::line(&format!("  {name}: done in {}", step::seconds(done.took)));
        Ok(())
    }

    fn go(&self, go: &Path, arguments: &[&str]) -> Command {
        let mut cmd = clean(Command::new(go));
        cmd.current_dir(&self.home)
            .args(arguments)
            .env("CGO_ENABLED", "0")
            // A workspace file further up, or another system, would build something else.
            .env("GOWORK", "off")
            .env_remove("GOOS")
            .env_remove("GOARCH");
        cmd
    }

    /// Where the source of the module is, fetched if it is not there.
    fn source(&self, ctx: &Context, go: &Path) -> Result<PathBuf> {
        let module = self.of;
        let mut said = String::new();
        let mut cmd = self.go(go, &["mod", "download", "-json", module]);
        let name = format!("source of {module} {}", self.version);
        let done = step::observe(&ctx.logs, &name, &mut cmd, None, |line| {
            said.push_str(line);
            said.push('\n');
        })?;
        let dir = serde_json::from_str::<Value>(&said)
            .ok()
            .and_then(|answer| answer["Dir"].as_str().map(PathBuf::from));
        match dir {
            Some(dir) if done.ok => Ok(dir),
            _ => bail!("{}{}", step::failure(&name, &done), self.remedy(&said)),
        }
    }

    /// Go on `PATH` or where its installer puts it, new enough for this module or able to fetch a
    /// release that is.
    fn find_go(&self, ctx: &Context) -> Result<PathBuf> {
        if let Some(go) = self.found.get() {
            return Ok(go.clone());
        }
        let wanted = &self.go;
        let remedy = format!(
            "the test cluster's programs are built with Go {wanted} or newer: install it from \
             https://go.dev/dl/ and have its `go` on PATH"
        );
        let go = which("go")
            .or_else(|| Some(PathBuf::from(USUAL)).filter(|go| go.is_file()))
            .with_context(|| format!("no `go` on this machine: {remedy}"))?;
        // In the module's folder, so that a Go which fetches its successor does it now.
        let name = format!("Go for {} {}", self.of, self.version);
        let mut said = String::new();
        let mut cmd = self.go(&go, &["version"]);
        let done = step::observe(&ctx.logs, &name, &mut cmd, None, |line| {
            said.push_str(line);
            said.push('\n');
        })?;
        if !done.ok || !new_enough(&said, wanted) {
            bail!("{} says `{}`: {remedy}", go.display(), said.trim());
        }
        Ok(self.found.get_or_init(|| go).clone())
    }

    /// What to do about a failure of Go, where it is one of the network's.
    fn remedy(&self, said: &str) -> String {
        if !unreachable(said) {
            return String::new();
        }
        let proxy = env::var("GOPROXY").unwrap_or_else(|_| "the default".into());
        format!(
            "\nGo modules cannot be fetched from here (GOPROXY: {proxy}): name a proxy that this \
             machine reaches in GOPROXY, or run `go mod download` in {} on a machine with a network \
             and copy its `go env GOMODCACHE` here",
            self.home.display()
        )
    }
}

/// Whether what Go said is a failure to fetch, not one to compile.
fn unreachable(said: &str) -> bool {
    const SIGNS: [&str; 9] = [
        "dial tcp",
        "no such host",
        "connection refused",
        "i/o timeout",
        "TLS handshake",
        "module lookup disabled by GOPROXY=off",
        "proxyconnect",
        "x509:",
        "Service Unavailable",
    ];
    SIGNS.iter().any(|sign| said.contains(sign))
}

/// Whether `go version` names `wanted` (`1.26.6`) or something newer.
fn new_enough(said: &str, wanted: &str) -> bool {
    let numbers = |version: &str| -> Vec<u32> {
        version
            .split('.')
            .map_while(|part| part.parse().ok())
            .collect()
    };
    said.split_whitespace()
        .find_map(|word| word.strip_prefix("go1"))
        .is_some_and(|rest| numbers(&format!("1{rest}")) >= numbers(wanted))
}

fn ldflags(dir: &str, version: &str) -> String {
    let mut flags = "-s -w".to_owned();
    // Kubernetes takes its version from the linker, and its tests compare it with the server's.
    if let (true, Some((major, minor))) = (dir == "kubernetes", version_in(version)) {
        let variable = "-X k8s.io/component-base/version";
        flags.push_str(&format!(
            " {variable}.gitVersion={version} {variable}.gitMajor={major} {variable}.gitMinor={minor}"
        ));
    }
    flags
}

/// Under which name the programs of a module are kept: what would make them others makes it another.
/// Go's own version is left out, so that a newer Go does not build all again.
fn key(go_mod: &str, go_sum: &str, ldflags: &str, arch: &str) -> String {
    let mut hash = Sha256::new();
    for part in [go_mod, go_sum, ldflags, arch] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize()[..8])
}

/// The program of this name in a folder that `KUBEBUILDER_ASSETS` or `PATH` lists, if it will do;
/// what will not is passed over.
pub fn on_this_machine(program: &Program, pinned: &str) -> Option<PathBuf> {
    let folders: OsString = ["KUBEBUILDER_ASSETS", "PATH"]
        .iter()
        .filter_map(env::var_os)
        .fold(OsString::new(), |mut all, next| {
            if !all.is_empty() {
                all.push(":");
            }
            all.push(next);
            all
        });
    let arguments = program.accept.arguments();
    if arguments.is_empty() {
        return None;
    }
    env::split_paths(&folders)
        .map(|dir| dir.join(program.name))
        .filter(|file| file.is_file())
        .find(|file| {
            step::output_of(Command::new(file).args(arguments))
                .is_some_and(|said| program.accept.takes(&said, pinned))
        })
}

#[cfg(test)]
mod tests {
    use super::{key, ldflags, new_enough, unreachable};

    #[test]
    fn the_key_changes_with_every_pin_and_flag_and_with_nothing_else() {
        let key_of = |parts: [&str; 4]| key(parts[0], parts[1], parts[2], parts[3]);
        let one = key_of(["mod", "sum", "-s -w", "amd64"]);
        assert_eq!(one, key_of(["mod", "sum", "-s -w", "amd64"]));
        assert_eq!(one.len(), 16);
        for other in [
            ["mod2", "sum", "-s -w", "amd64"],
            ["mod", "sum2", "-s -w", "amd64"],
            ["mod", "sum", "-s", "amd64"],
            ["mod", "sum", "-s -w", "arm64"],
            // The same bytes, split elsewhere.
            ["mods", "um", "-s -w", "amd64"],
        ] {
            assert_ne!(one, key_of(other), "{other:?}");
        }
    }

    #[test]
    fn kubernetes_gets_its_version_from_the_linker() {
        assert_eq!(ldflags("coredns", "v1.14.7"), "-s -w");
        assert_eq!(
            ldflags("kubernetes", "v1.36.3"),
            "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
             -X k8s.io/component-base/version.gitMajor=1 \
             -X k8s.io/component-base/version.gitMinor=36"
        );
    }

    #[test]
    fn an_old_go_is_refused_and_a_newer_one_taken() {
        assert!(new_enough("go version go1.26.8 linux/amd64", "1.26.6"));
        assert!(new_enough("go version go1.26.6 linux/amd64", "1.26.6"));
        assert!(new_enough("go version go1.27 linux/amd64", "1.26.6"));
        assert!(!new_enough("go version go1.26.1 linux/amd64", "1.26.6"));
        assert!(!new_enough("go version go1.19.8 linux/amd64", "1.26.0"));
        assert!(!new_enough(
            "go: go.mod requires go >= 1.26.6 (running go 1.24.1; GOTOOLCHAIN=local)",
            "1.26.6"
        ));
    }

    #[test]
    fn failures_to_fetch_are_told_from_those_to_compile() {
        assert!(unreachable(
            "go: x@v1: Get \"https://proxy/x\": dial tcp: lookup proxy: no such host"
        ));
        assert!(unreachable("module lookup disabled by GOPROXY=off"));
        assert!(!unreachable("main.go:3:1: syntax error"));
    }
}
