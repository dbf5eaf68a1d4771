//! `cargo xtask test`: pure tests as the user, then those that need namespaces as root.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::context::{Context, as_root, ensure_root};
use crate::count::Count;
use crate::traces::Traces;
use crate::{build, setup, signals, step};

/// A test program that runs longer is stuck.
const LIMIT: Duration = Duration::from_secs(35 * 60);

/// How many lines of what failed tests said are shown.
const REPORT: usize = 400;

/// One test program that cargo built.
struct Program {
    label: String,
    executable: PathBuf,
    package: PathBuf,
    root: bool,
}

/// Builds and runs the tests whose names contain `filter` (all without one).
///
/// # Errors
/// Something does not build, or root cannot be had. Failing tests are not an error but in the
/// count.
pub fn run(ctx: &Context, filter: Option<&str>) -> Result<Count> {
    setup::lab(ctx)?;
    let object = build::ebpf(ctx, build::Object::Plain)?;
    let mut bins = ctx.cargo();
    bins.args(["build", "--workspace", "--bins"])
        .env("WEIR_EBPF_OBJECT", &object);
    ctx.step("debug binaries", &mut bins)?;
    let mut tests = ctx.cargo();
    tests
        .args([
            "test",
            "--no-run",
            "--workspace",
            "--lib",
            "--bins",
            "--tests",
        ])
        .arg("--message-format=json-render-diagnostics");
    object_for_agent(ctx, &mut tests, &object);
    let programs = compile(ctx, "test programs", &mut tests)?;
    let skips = ctx.logs.join("skips");
    // Not there on a first run.
    let _ = fs::remove_file(&skips);
    let mut total = Count::default();
    for program in programs.iter().filter(|p| !p.root) {
        total += one(ctx, program, filter, &object, &skips)?;
    }
    if programs.iter().any(|p| p.root) {
        ensure_root("the tests in network namespaces")?;
        let before = Traces::now();
        for program in programs.iter().filter(|p| p.root) {
            total += one(ctx, program, filter, &object, &skips)?;
        }
        total += left_behind(&before);
    }
    skipped(&skips, &mut total);
    Ok(total)
}

/// Names the object for the agent's build, unless it is where the agent looks by itself: a
/// developer's plain `cargo build` and ours then agree on what is fresh.
pub fn object_for_agent(ctx: &Context, cmd: &mut Command, object: &Path) {
    if !object.starts_with(ctx.root.join("target/bpf/bpfel-unknown-none")) {
        cmd.env("WEIR_EBPF_OBJECT", object);
    }
}

/// Runs a cargo that compiles test programs and reports in JSON; lists the programs.
///
/// # Errors
/// They do not compile.
fn compile(ctx: &Context, name: &str, cmd: &mut Command) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    let done = step::observe(&ctx.logs, name, cmd, None, |line| {
        programs.extend(program(line))
    })?;
    if !done.ok {
        let said: Vec<&str> = done
            .tail
            .iter()
            .map(String::as_str)
            .filter(|l| !l.starts_with('{'))
            .collect();
        let log = done.log.display();
        bail!(
            "step `{name}` failed\n{}\n(whole output: {log})",
            said.join("\n")
        );
    }
    step::line(&format!("  {name}: done in {}", step::seconds(done.took)));
    programs.sort_by(|a, b| (a.root, &a.label).cmp(&(b.root, &b.label)));
    Ok(programs)
}

/// The test program that a line of cargo's JSON tells of.
fn program(line: &str) -> Option<Program> {
    if !line.starts_with('{') {
        return None;
    }
    let message: Value = serde_json::from_str(line).ok()?;
    let executable = PathBuf::from(message["executable"].as_str()?);
    if message["profile"]["test"] != Value::Bool(true) {
        return None;
    }
    let package = Path::new(message["manifest_path"].as_str()?)
        .parent()?
        .to_owned();
    let target = &message["target"];
    let kind = target["kind"][0].as_str()?;
    let name = target["name"].as_str()?;
    // The one rule: what weir-tests drives needs root, but for the rules about the repository.
    let root = kind == "test" && package.ends_with("tests") && name != "tidy";
    let label = format!("{name} ({kind})");
    Some(Program {
        executable,
        label,
        package,
        root,
    })
}

/// Runs one program; the count is what it reported, or one failure if it reported nothing.
fn one(
    ctx: &Context,
    program: &Program,
    filter: Option<&str>,
    object: &Path,
    skips: &Path,
) -> Result<Count> {
    let env: Vec<(&str, OsString)> = vec![
        ("WEIR_BIN_DIR", ctx.target.join("debug").into()),
        ("WEIR_EBPF_OBJECT", object.into()),
        ("WEIR_SKIPS", skips.into()),
        ("CARGO_MANIFEST_DIR", program.package.clone().into()),
        ("CARGO_TARGET_DIR", ctx.target.clone().into()),
    ];
    let mut cmd = if program.root {
        as_root(&program.executable, &env)
    } else {
        let mut cmd = Command::new(&program.executable);
        cmd.envs(env);
        cmd
    };
    cmd.current_dir(&program.package).args(filter);
    let mut count = Count::default();
    let mut reported = false;
    let mut failed = Vec::new();
    let mut report = Vec::new();
    let mut saw = |line: &str| {
        // libtest repeats what failed tests printed after this line.
        if !report.is_empty() || line == "failures:" {
            report.push(line.to_owned());
        }
        if let Some(result) = Count::of_libtest(line) {
            count += result;
            reported = true;
        }
        if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|l| l.strip_suffix(" ... FAILED"))
        {
            failed.push(name.to_owned());
        }
    };
    let done = step::observe(&ctx.logs, &program.label, &mut cmd, Some(LIMIT), &mut saw)?;
    if done.ok && count == Count::default() {
        return Ok(count);
    }
    if !done.ok || !reported {
        // A program that dies without its summary is one failure at least.
        count.failed = count.failed.max(1);
        if report.is_empty() {
            step::line(&step::failure(&program.label, &done));
        } else {
            report.truncate(REPORT);
            let log = done.log.display();
            step::line(&format!("{}\n(whole output: {log})", report.join("\n")));
        }
        for name in failed {
            step::line(&format!("  FAILED {}: {name}", program.label));
        }
    }
    step::line(&format!(
        "  {}: {count} in {}",
        program.label,
        step::seconds(done.took)
    ));
    Ok(count)
}

/// What the root tests left on the machine is one failed test.
fn left_behind(before: &Traces) -> Count {
    let left = before.new_since();
    if left.is_empty() {
        step::line("  nothing left behind: 1 passed");
        return Count {
            passed: 1,
            ..Count::default()
        };
    }
    step::line(&format!(
        "  FAILED the tests left behind:\n    {}",
        left.join("\n    ")
    ));
    Count {
        failed: 1,
        ..Count::default()
    }
}

/// Tests that skipped themselves passed as far as the test harness knows.
fn skipped(file: &Path, total: &mut Count) {
    let Ok(text) = fs::read_to_string(file) else {
        return;
    };
    let mut tests = BTreeSet::new();
    for line in text.lines() {
        let mut parts = line.split('\t');
        if let (Some(feature), Some(test)) = (parts.next(), parts.next())
            && tests.insert(test.to_owned())
        {
            let why = parts.next().unwrap_or_default();
            step::line(&format!(
                "  skipped {test}: this kernel has no {feature}: {why}"
            ));
        }
    }
    let count = tests.len().min(total.passed);
    total.passed -= count;
    total.skipped += count;
}

/// Ends a command that counted: prints the line that sums up and says whether all is well.
///
/// # Errors
/// Something failed, nothing ran, or a signal asked us to stop.
pub fn verdict(total: Count) -> Result<()> {
    signals::check()?;
    step::line("");
    println!("{total}");
    if total.failed > 0 {
        bail!("{} failed", total.failed);
    }
    if total == Count::default() {
        bail!("nothing ran: no test has that name");
    }
    Ok(())
}
