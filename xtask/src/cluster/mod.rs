//! `cargo xtask cluster`, `e2e` and `image`: builds the programs and images of a test cluster and
//! hands over to `weir-cluster`.
//!
//! Only these commands need Go, and only until its programs are in the cache.

mod go;
mod images;
mod iperf;
mod libraries;
mod oci;
mod pins;
mod shop;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::context::{Context, as_root, ensure_root};
use crate::setup::which;
use crate::{build, setup, signals, step};

/// The cluster of `cluster test`, which comes and goes beside a developer's own.
const TEST_NAME: &str = "test";

/// What a call of `weir-cluster` needs to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// Nothing but itself, and not even root: it explains itself.
    Words,
    /// Nothing but itself: it ends what runs, looks at it or runs a program in it.
    Itself,
    /// All programs and images of a cluster.
    Cluster,
    /// The upstream tests as well.
    Tests,
}

/// `cargo xtask image`: the image of Weir, and its way into a containerd.
///
/// # Errors
/// It cannot be built, or the containerd behind `import` does not take it.
pub fn image(ctx: &Context, import: Option<&Path>) -> Result<()> {
    build::dist(ctx)?;
    let file = images::weir(ctx)?;
    match import {
        Some(socket) => import_into(ctx, &file, socket),
        None => Ok(()),
    }
}

/// `cargo xtask cluster …`; its exit code is that of `weir-cluster`.
///
/// # Errors
/// Something does not build, or root cannot be had.
pub fn run(ctx: &Context, args: &[OsString]) -> Result<ExitCode> {
    if args.first().is_some_and(|arg| arg == "test") && !asks_for_help(args) {
        return test(ctx, args.get(1..).unwrap_or_default());
    }
    let cluster = Cluster::new(ctx, needs(args), &ctx.target.join("cluster"))?;
    cluster.call(args).map(exit_code)
}

/// `cargo xtask e2e …`: the upstream tests in the cluster that runs.
///
/// # Errors
/// Something does not build, or root cannot be had.
pub fn e2e(ctx: &Context, args: &[OsString]) -> Result<ExitCode> {
    let needs = if asks_for_help(args) {
        Needs::Words
    } else {
        Needs::Tests
    };
    let cluster = Cluster::new(ctx, needs, &ctx.target.join("cluster"))?;
    let mut all = vec![OsString::from("e2e")];
    all.extend_from_slice(args);
    cluster.call(&all).map(exit_code)
}

/// Up, smoke and down, whatever happens in between; also after Ctrl-C.
fn test(ctx: &Context, args: &[OsString]) -> Result<ExitCode> {
    let cluster = Cluster::new(ctx, Needs::Cluster, &ctx.target.join("cluster-test"))?;
    let (name, args) = take_name(args);
    let with = |verb: &str, more: &[OsString]| {
        let mut all: Vec<OsString> = vec![verb.into(), "--name".into(), name.clone()];
        all.extend_from_slice(more);
        all
    };
    let run = || -> Result<i32> {
        match cluster.call(&with("up", &args))? {
            0 => cluster.call(&with("smoke", &[])),
            code => Ok(code),
        }
    };
    let ran = run();
    // Not one of our steps: those refuse to start once we were told to stop.
    let down = cluster.command(&with("down", &[])).status();
    let down = down.context("cannot start weir-cluster down")?;
    signals::check()?;
    let code = ran?;
    if code == 0 && !down.success() {
        bail!(
            "weir-cluster down failed ({down}): call `cargo xtask cluster down` with \
             WEIR_CLUSTER_DIR={}",
            cluster.dir.display()
        );
    }
    Ok(exit_code(code))
}

/// `weir-cluster` and where what it needs is.
struct Cluster {
    program: PathBuf,
    programs: PathBuf,
    images: PathBuf,
    dir: PathBuf,
    manifests: PathBuf,
    as_root: bool,
}

impl Cluster {
    fn new(ctx: &Context, needs: Needs, dir: &Path) -> Result<Self> {
        let cluster = Self {
            program: ctx.target.join("debug/weir-cluster"),
            programs: ctx.target.join("cluster-programs"),
            images: ctx.target.join("images"),
            dir: std::env::var_os("WEIR_CLUSTER_DIR")
                .map_or_else(|| dir.to_owned(), |dir| ctx.root.join(dir)),
            manifests: ctx.root.join("manifests"),
            as_root: needs != Needs::Words,
        };
        let mut cmd = ctx.cargo();
        // Of the whole workspace, so that its dependencies have the features of every other build.
        cmd.args(["build", "--workspace", "--bin", "weir-cluster"])
            .arg("--target-dir")
            .arg(&ctx.target);
        ctx.step("weir-cluster", &mut cmd)?;
        if matches!(needs, Needs::Cluster | Needs::Tests) {
            setup::cluster(ctx)?;
            programs(ctx, &cluster.programs, pins::CLUSTER)?;
            let upstream = images::upstream(ctx, &cluster.programs)?;
            build::dist(ctx)?;
            let files = [upstream, images::weir_test(ctx)?, images::weir(ctx)?];
            images::keep_only(ctx, &files)?;
        }
        if needs == Needs::Tests {
            programs(ctx, &cluster.programs, pins::TESTS)?;
        }
        Ok(cluster)
    }

    fn call(&self, args: &[OsString]) -> Result<i32> {
        if self.as_root {
            ensure_root("the cluster (namespaces, mounts, cgroups)")?;
        }
        step::attached("weir-cluster", &mut self.command(args))
    }

    fn command(&self, args: &[OsString]) -> std::process::Command {
        let kept = ["TERM", "NO_COLOR", "COLUMNS", "RUST_BACKTRACE", "RUST_LOG"];
        let mut env: Vec<(&str, OsString)> = vec![
            ("WEIR_CLUSTER_BIN", self.programs.clone().into()),
            ("WEIR_CLUSTER_IMAGES", self.images.clone().into()),
            ("WEIR_CLUSTER_DIR", self.dir.clone().into()),
            ("WEIR_CLUSTER_MANIFESTS", self.manifests.clone().into()),
        ];
        env.extend(
            kept.iter()
                .filter_map(|key| std::env::var_os(key).map(|value| (*key, value))),
        );
        let mut cmd = if self.as_root {
            as_root(&self.program, &env)
        } else {
            std::process::Command::new(&self.program)
        };
        cmd.args(args);
        cmd
    }
}

/// Puts a link to each program into `dir`: one of the machine that will do, else one of the cache,
/// built if it is not there.
fn programs(ctx: &Context, dir: &Path, modules: &[pins::Module]) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for module in modules {
        let pins = go::Pins::read(ctx, module)?;
        for program in module.programs {
            let file = match go::on_this_machine(program, &pins.version) {
                Some(file) => file,
                None => pins.build(ctx, program)?,
            };
            link(&file, &dir.join(program.name))?;
        }
    }
    let runc = which("runc").context("no `runc` on this machine")?;
    link(&runc, &dir.join("runc"))
}

/// Makes `at` a link to `to`, in one step, as a cluster may be running.
fn link(to: &Path, at: &Path) -> Result<()> {
    if fs::read_link(at).is_ok_and(|there| there == to) {
        return Ok(());
    }
    let new = at.with_extension(format!("new{}", std::process::id()));
    symlink(to, &new)
        .and_then(|()| fs::rename(&new, at))
        .with_context(|| format!("cannot make the link {}", at.display()))
}

/// Hands an image to a containerd, into the namespace in which kubelet looks.
fn import_into(ctx: &Context, file: &Path, socket: &Path) -> Result<()> {
    let built = ctx.target.join("cluster-programs/ctr");
    let ctr = which("ctr")
        .or_else(|| Some(built).filter(|file| file.is_file()))
        .context(
            "no `ctr` on this machine, which comes with containerd: import the file with the \
             tool of your cluster (`k3s ctr images import FILE`, `kind load image-archive FILE`)",
        )?;
    ensure_root("importing the image")?;
    let mut cmd = as_root(ctr, &[]);
    cmd.arg("--address")
        .arg(socket)
        .args(["--namespace", "k8s.io", "images", "import"])
        .arg(file);
    ctx.step(&format!("import into {}", socket.display()), &mut cmd)
}

/// What the arguments of `cargo xtask cluster` ask for.
fn needs(args: &[OsString]) -> Needs {
    let verb = args.first().and_then(|arg| arg.to_str());
    match verb {
        None | Some("help") => Needs::Words,
        // What follows may be options of the program that is run.
        Some("exec") => Needs::Itself,
        _ if asks_for_help(args) => Needs::Words,
        Some("down" | "status") => Needs::Itself,
        Some("e2e") => Needs::Tests,
        Some(_) => Needs::Cluster,
    }
}

fn asks_for_help(args: &[OsString]) -> bool {
    args.iter().any(|arg| {
        ["-h", "--help", "-V", "--version"]
            .iter()
            .any(|&h| arg == h)
    })
}

/// The cluster's name among the arguments of `up`, and the other ones: all three calls of a test
/// need it.
fn take_name(args: &[OsString]) -> (OsString, Vec<OsString>) {
    let mut name = OsString::from(TEST_NAME);
    let mut rest = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--name" {
            name = args.next().cloned().unwrap_or_default();
        } else if let Some(value) = arg.to_str().and_then(|a| a.strip_prefix("--name=")) {
            name = value.into();
        } else {
            rest.push(arg.clone());
        }
    }
    (name, rest)
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::{Needs, needs, take_name};

    fn of(args: &[&str]) -> Needs {
        needs(&args.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn what_only_looks_ends_or_explains_builds_no_programs() {
        for args in [
            &["down"][..],
            &["status", "-o", "json"],
            &["exec", "n1", "ip"],
        ] {
            assert_eq!(of(args), Needs::Itself, "{args:?}");
        }
        for args in [&["help"][..], &["--help"], &["up", "--help"], &[]] {
            assert_eq!(of(args), Needs::Words, "{args:?}");
        }
        assert_eq!(of(&["up", "--nodes", "3"]), Needs::Cluster);
        assert_eq!(of(&["smoke"]), Needs::Cluster);
        assert_eq!(of(&["e2e"]), Needs::Tests);
    }

    #[test]
    fn a_test_has_a_name_of_its_own_unless_it_is_given_one() {
        let split = |args: &[&str]| {
            let (name, rest) = take_name(&args.iter().map(OsString::from).collect::<Vec<_>>());
            (name, rest.join(" ".as_ref()))
        };
        let wanted = |name: &str| (OsString::from(name), OsString::from("--nodes 2"));
        assert_eq!(split(&["--nodes", "2"]), wanted("test"));
        assert_eq!(split(&["--name", "x", "--nodes", "2"]), wanted("x"));
        assert_eq!(split(&["--nodes", "2", "--name=x"]), wanted("x"));
    }
}
