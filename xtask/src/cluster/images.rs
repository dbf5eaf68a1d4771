//! The images of a cluster, made of files of this machine: no registry, no container engine.

use std::fmt::Write as _;
use std::fs;
use std::io::BufWriter;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::iperf;
use super::libraries;
use super::oci::{self, Image, Node};
use super::shop;
use crate::context::Context;
use crate::setup::{oci_architecture, which};
use crate::step;

/// Raised when an image of the same files becomes another.
const FORMAT: u32 = 1;

/// `PATH` in images that hold more than one program.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the upstream tests run in their images besides agnhost itself: the program, and the name under
/// which it is called there.
const TOOLS: [(&str, &str); 11] = [
    ("bash", "bash"),
    ("curl", "curl"),
    ("dig", "dig"),
    ("nslookup", "nslookup"),
    ("nc.openbsd", "nc"),
    ("ip", "ip"),
    ("ss", "ss"),
    ("getent", "getent"),
    ("conntrack", "conntrack"),
    ("iptables", "iptables"),
    // Busybox's dies of a signal when it is given a timeout.
    ("wget", "wget"),
];

/// agnhost in the image of the network-policy-api suite.
const NPA_AGNHOST: &str = r#"#!/bin/sh
# Without SCTP in the kernel `porter` ends at once, and no pod of this suite becomes ready: its servers
# wait in their place. What asks them by SCTP is left out by name, with the reason.
if [ "$1" = porter ] && env | grep -q '^SERVE_SCTP_PORT_' && [ ! -e /proc/net/sctp ]; then
    exec /usr/bin/agnhost pause
fi
exec /usr/bin/agnhost "$@"
"#;

const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";
const AGNHOST_NPA: &str = "registry.k8s.io/e2e-test-images/agnhost:2.45";
const E2E_DNS: &str = "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0";
const E2E_IPTABLES: &str = "registry.k8s.io/build-image/distroless-iptables:v0.9.6";
const E2E_NGINX: &str = "registry.k8s.io/e2e-test-images/nginx:1.15-4";
const E2E_RESET: &str = "registry.k8s.io/e2e-test-images/regression-issue-74839:1.4";

/// What the shipped image holds, and nothing else.
const WEIR: [&str; 3] = ["weir", "weir-agent", "weir-cni"];

/// The image of Weir, of what `cargo xtask build` made; returns the file.
///
/// # Errors
/// A binary is missing or not static, or the file cannot be written.
pub fn weir(ctx: &Context) -> Result<PathBuf> {
    let mut image = Image::new(&["localhost/weir:dev"]);
    image.env = vec!["PATH=/bin".to_owned()];
    image.entrypoint = vec!["/bin/weir-agent".to_owned()];
    for name in WEIR {
        let file = ctx.dist().join(name);
        if !libraries::of(&file)?.is_empty() {
            bail!(
                "{} needs shared libraries, and the image has none: build it with `cargo xtask \
                 build`",
                file.display()
            );
        }
        image.program(&format!("bin/{name}"), &file);
    }
    for directory in ["etc", "run", "var"] {
        image.directory(directory);
    }
    image.shared_directory("tmp");
    save(ctx, "weir", &[image])
}

/// Every image of a cluster that is not Weir's; `programs` is where the built programs are.
///
/// # Errors
/// A program is missing, or a file cannot be written.
pub fn upstream(ctx: &Context, programs: &Path) -> Result<PathBuf> {
    let images = [
        pause(programs),
        coredns(programs),
        busybox()?,
        nginx()?,
        agnhost(ctx, programs)?,
        agnhost_npa(ctx, programs)?,
        tools(ctx, &[E2E_DNS, E2E_IPTABLES], programs)?,
        reset(programs),
        shop::image(&ctx.root.join("manifests/shop"))?,
    ];
    save(ctx, "upstream", &images)
}

/// The lab's servers and probes.
///
/// # Errors
/// See [`upstream`].
pub fn weir_test(ctx: &Context) -> Result<PathBuf> {
    let mut image = Image::new(&["localhost/weir-test:dev"]);
    userland(&mut image)?;
    image.next_layer();
    image.program("bin/weir-lab", &ctx.dist().join("weir-lab"));
    image.cmd = vec!["sh".to_owned()];
    save(ctx, "weir-test", &[image])
}

/// Removes what is not one of `files`: a cluster imports every file, also one of an earlier version.
///
/// # Errors
/// A file cannot be removed.
pub fn keep_only(ctx: &Context, files: &[PathBuf]) -> Result<()> {
    // A cluster imports every file, and one of an earlier version would still be here.
    for entry in fs::read_dir(folder(ctx)).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "tar") && !files.contains(&path) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Where the files are.
fn folder(ctx: &Context) -> PathBuf {
    ctx.target.join("images")
}

/// What holds the namespaces of a pod.
fn pause(programs: &Path) -> Image {
    let mut image = Image::new(&["registry.k8s.io/pause:3.10.2"]);
    image.entrypoint = vec!["/pause".to_owned()];
    image.env = vec![PATH.to_owned()];
    image.program("pause", &programs.join("pause"));
    image
}

fn busybox() -> Result<Image> {
    let mut image = Image::new(&[
        "localhost/busybox:dev",
        "registry.k8s.io/e2e-test-images/busybox:1.37.0-1",
    ]);
    userland(&mut image)?;
    image.cmd = vec!["sh".to_owned()];
    Ok(image)
}

fn coredns(programs: &Path) -> Image {
    let mut image = coredns_below(&["localhost/coredns:dev"], programs);
    image.entrypoint = vec!["/coredns".to_owned()];
    image.env = vec![PATH.to_owned()];
    image.directory("etc");
    image.shared_directory("tmp");
    image
}

/// The lowest layer of what holds CoreDNS or may: a test runs it from agnhost's image.
fn coredns_below(names: &[&str], programs: &Path) -> Image {
    let mut image = Image::new(names);
    image.program("coredns", &programs.join("coredns"));
    image.next_layer();
    image
}

/// The image of the upstream tests, with what their Dockerfile puts into it that tests of networks
/// run.
fn agnhost(ctx: &Context, programs: &Path) -> Result<Image> {
    let mut image = agnhost_below(ctx, &[AGNHOST], programs)?;
    image.link("agnhost", "/usr/bin/agnhost");
    // Tests of entry points call it by this name.
    image.link("agnhost-2", "agnhost");
    Ok(image)
}

/// The same for the suite of network-policy-api, which asks for an older one.
fn agnhost_npa(ctx: &Context, programs: &Path) -> Result<Image> {
    let mut image = agnhost_below(ctx, &[AGNHOST_NPA], programs)?;
    image.script("agnhost", NPA_AGNHOST);
    Ok(image)
}

/// The layers that both have.
fn agnhost_below(ctx: &Context, names: &[&str], programs: &Path) -> Result<Image> {
    let mut image = tools(ctx, names, programs)?;
    image.next_layer();
    image.program("usr/bin/agnhost", &programs.join("agnhost"));
    for kind in ["crt", "key"] {
        let file = format!("localhost.{kind}");
        image.program(&file, &programs.join(format!("porter-{file}")));
    }
    image.shared_directory("uploads");
    image.next_layer();
    image.entrypoint = vec!["/agnhost".to_owned()];
    image.cmd = vec!["pause".to_owned()];
    Ok(image)
}

/// Busybox, and the machine's own programs before it in `PATH`.
fn tools(ctx: &Context, names: &[&str], programs: &Path) -> Result<Image> {
    let mut image = coredns_below(names, programs);
    userland(&mut image)?;
    for (program, name) in TOOLS {
        let file = which(program)
            .with_context(|| format!("no `{program}` on this machine for the test images"))?;
        with_libraries(&mut image, &format!("usr/bin/{name}"), &file)?;
    }
    iperf::add(ctx, &mut image)?;
    // Busybox's shell prefers busybox's own programs to those above, whose options tests use.
    image.link("bin/sh", "/usr/bin/bash");
    image.link("bin/bash", "/usr/bin/bash");
    Ok(image)
}

/// A server that only has to run: nobody connects to it.
fn nginx() -> Result<Image> {
    let mut image = Image::new(&[E2E_NGINX]);
    userland(&mut image)?;
    image.entrypoint = ["httpd", "-f", "-p", "80"].map(str::to_owned).to_vec();
    Ok(image)
}

/// What resets a connection on a packet out of its window.
fn reset(programs: &Path) -> Image {
    let name = "regression-issue-74839";
    let mut image = Image::new(&[E2E_RESET]);
    image.entrypoint = vec![format!("/{name}")];
    image.env = vec![PATH.to_owned()];
    image.program(name, &programs.join(name));
    image
}

/// Busybox under all its names, and the files that a C library looks for.
pub(super) fn userland(image: &mut Image) -> Result<()> {
    let file = which("busybox").context("no `busybox` on this machine")?;
    let applets = step::output_of(Command::new(&file).arg("--list"))
        .with_context(|| format!("{} --list failed", file.display()))?;
    image.env = vec![PATH.to_owned()];
    for applet in applets.lines().map(str::trim) {
        image.link(&format!("bin/{applet}"), "/bin/busybox");
    }
    with_libraries(image, "bin/busybox", &file)?;
    // User and group 1000 and 50000 are in agnhost's upstream image, and a test asks for them.
    image.text(
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n\
         user-defined-in-image:x:1000:1000::/:/bin/sh\n",
    );
    image.text(
        "etc/group",
        "root:x:0:\nnobody:x:65534:\nuser-defined-in-image:x:1000:\n\
         group-defined-in-image:x:50000:user-defined-in-image\n",
    );
    image.text("etc/nsswitch.conf", "hosts: files dns\n");
    for directory in ["dev", "proc", "root", "run", "sys", "var"] {
        image.directory(directory);
    }
    image.shared_directory("tmp");
    Ok(())
}

/// Puts a program of the machine at `path`, and its libraries where its loader looks for them.
pub(super) fn with_libraries(image: &mut Image, path: &str, program: &Path) -> Result<()> {
    image.program(path, program);
    for library in libraries::of(program)? {
        let name = library
            .to_str()
            .with_context(|| format!("{} is no UTF-8", library.display()))?;
        image.program(name, &library);
    }
    Ok(())
}

/// Writes `target/images/NAME.tar` unless it was made of the same files, and says what it holds and how
/// large it is.
fn save(ctx: &Context, name: &str, images: &[Image]) -> Result<PathBuf> {
    let dir = folder(ctx);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let (file, made_of) = (
        dir.join(format!("{name}.tar")),
        dir.join(format!("{name}.inputs")),
    );
    let inputs = images.iter().map(inputs).collect::<Result<String>>()?;
    if file.is_file() && fs::read_to_string(&made_of).is_ok_and(|there| there == inputs) {
        return Ok(file);
    }
    let new = dir.join(format!(".{name}.{}", std::process::id()));
    let written = fs::File::create(&new)
        .and_then(|out| oci::write(images, oci_architecture(), BufWriter::new(out)))
        .and_then(|digests| {
            // First, so that a tar never stands beside inputs that are newer.
            let _ = fs::remove_file(&made_of);
            fs::rename(&new, &file)?;
            fs::write(&made_of, &inputs)?;
            Ok(digests)
        });
    if written.is_err() {
        // There is none where it could not be made.
        let _ = fs::remove_file(&new);
    }
    let digests = written.with_context(|| format!("cannot make {}", file.display()))?;
    let size = fs::metadata(&file).map_or(0, |meta| meta.len());
    step::line(&format!(
        "  images: {} ({})",
        file.display(),
        mebibytes(size)
    ));
    for (image, digest) in images.iter().zip(&digests) {
        step::line(&format!("    {} {digest}", image.names.join(" ")));
    }
    Ok(file)
}

/// What an image is made of, each file by size and time: enough to see that nothing has changed.
fn inputs(image: &Image) -> Result<String> {
    let mut all = format!(
        "{FORMAT} {} {:?} {:?} {:?} {:?}\n",
        oci_architecture(),
        image.names,
        image.entrypoint,
        image.cmd,
        image.env
    );
    for (path, node) in image.nodes() {
        let _ = write!(all, "{path} {node:?}");
        if let Node::Program(from) = node {
            let meta =
                fs::metadata(from).with_context(|| format!("cannot read {}", from.display()))?;
            let _ = write!(
                all,
                " {} {}.{:09}",
                meta.len(),
                meta.mtime(),
                meta.mtime_nsec()
            );
        }
        all.push('\n');
    }
    Ok(all)
}

fn mebibytes(size: u64) -> String {
    // A tenth is exact enough, and no float needs rounding.
    let tenths = size.saturating_mul(10) / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::{Image, inputs, mebibytes};

    #[test]
    fn another_name_or_file_makes_another_image() {
        let exe = std::env::current_exe().expect("a test is a program");
        let mut one = Image::new(&["localhost/x:1"]);
        one.program("bin/x", &exe);
        let mut other = Image::new(&["localhost/x:2"]);
        other.program("bin/x", &exe);
        let of = |image: &Image| inputs(image).expect("it can be read");
        assert_eq!(of(&one), of(&one.clone()));
        assert_ne!(of(&one), of(&other));
        let mut more = one.clone();
        more.link("bin/y", "x");
        assert_ne!(of(&one), of(&more));
    }

    #[test]
    fn sizes_are_printed_in_mebibytes() {
        assert_eq!(mebibytes(0), "0.0 MiB");
        assert_eq!(mebibytes(5 * 1024 * 1024 + 512 * 1024), "5.5 MiB");
    }
}
