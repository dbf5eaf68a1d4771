//! Debian's kernels, downloaded once into the cache and unpacked there. Nothing of the machine's
//! own package configuration is touched: apt-get works on lists of our own.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::context::{Context, clean};
use crate::setup::which;
use crate::step;

/// The floor, and the newest that a Debian release has: release and the kernel series it carries.
const WANTED: [(&str, &str); 2] = [("bookworm", "6.1"), ("trixie", "6.12")];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The image's name in the cache.
const IMAGE: &str = "vmlinuz";

/// A kernel in the cache.
pub struct Kernel {
    /// For example `6.1`.
    pub series: &'static str,
    /// The bootable image.
    pub image: PathBuf,
    /// Modules to load into it, in this order.
    pub modules: Vec<PathBuf>,
}

/// What clsact filters need and Debian has as modules; a kernel with tcx does without, and a later
/// Debian compresses its modules, so that nothing is found there.
const MODULES: [&str; 2] = ["sch_ingress.ko", "cls_bpf.ko"];

/// Finds the kernels in the cache or downloads them.
///
/// # Errors
/// One cannot be downloaded; the error says how to provide it.
pub fn ensure(ctx: &Context) -> Result<Vec<Kernel>> {
    WANTED
        .iter()
        .map(|(release, series)| {
            let home = ctx.cache.join("kernels").join(series);
            if !home.join(IMAGE).is_file() {
                download(ctx, release, series, &home).with_context(|| {
                    format!(
                        "no Linux {series} to boot: put the image of Debian {release}'s \
                         {} at {}",
                        meta_package(),
                        home.join(IMAGE).display()
                    )
                })?;
            }
            let modules = MODULES
                .iter()
                .map(|m| home.join(m))
                .filter(|m| m.is_file())
                .collect();
            Ok(Kernel {
                series,
                image: home.join(IMAGE),
                modules,
            })
        })
        .collect()
}

fn meta_package() -> String {
    format!("linux-image-cloud-{}", debian_arch())
}

fn debian_arch() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn download(ctx: &Context, release: &str, series: &str, home: &Path) -> Result<()> {
    if which("apt-get").is_none() {
        bail!("this machine has no apt-get");
    }
    let mirror = mirror()?;
    let apt = Apt::new(ctx, release, &mirror)?;
    ctx.step(
        &format!("package list of Debian {release}"),
        apt.get().arg("update"),
    )?;
    let package = apt.kernel_package()?;
    if !package.contains(&format!("linux-image-{series}.")) {
        bail!("Debian {release} has {package}, not Linux {series}");
    }
    let mut get = apt.get();
    get.args(["download", &package]).current_dir(&apt.dir);
    ctx.step(&format!("download {package}"), &mut get)?;
    let archive = find(&apt.dir, |name| name.ends_with(".deb"))
        .with_context(|| format!("apt-get left no package in {}", apt.dir.display()))?;
    let unpacked = apt.dir.join("unpacked");
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("-x").arg(&archive).arg(&unpacked);
    ctx.step(&format!("unpack {package}"), &mut unpack)?;
    let image = find(&unpacked.join("boot"), |name| name.starts_with("vmlinuz-"))
        .with_context(|| format!("{package} holds no kernel image"))?;
    fs::create_dir_all(home).with_context(|| format!("cannot make {}", home.display()))?;
    for module in MODULES {
        if let Some(found) = find_below(&unpacked.join("lib/modules"), module) {
            keep(&found, &home.join(module))?;
        }
    }
    // Last: with the image there, the rest is taken to be there.
    keep(&image, &home.join(IMAGE))?;
    fs::remove_dir_all(&apt.dir).with_context(|| format!("cannot remove {}", apt.dir.display()))
}

fn keep(found: &Path, at: &Path) -> Result<()> {
    fs::rename(found, at)
        .with_context(|| format!("cannot move {} to {}", found.display(), at.display()))
}

/// A file of that name in `dir` or below.
fn find_below(dir: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(dir).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        // A link could lead back up.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find_below(&path, name)
        } else {
            (entry.file_name() == name).then_some(path)
        }
    })
}

/// A Debian mirror: `WEIR_DEBIAN_MIRROR`, else the one that this machine uses itself.
fn mirror() -> Result<String> {
    if let Some(mirror) = env::var("WEIR_DEBIAN_MIRROR")
        .ok()
        .filter(|m| !m.is_empty())
    {
        return Ok(mirror);
    }
    let list = step::output_of(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(ORIGIN) $(COMPONENT)",
    ]))
    .unwrap_or_default();
    mirror_in(&list).context(
        "this machine's apt-get has no Debian mirror: name one in WEIR_DEBIAN_MIRROR (an URL, \
         as in a line of sources.list), and install debian-archive-keyring",
    )
}

/// The first of Debian's own archives, but for the one of security updates, in what `apt-get
/// indextargets` says.
fn mirror_in(list: &str) -> Option<String> {
    list.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (uri, origin, component) = (fields.next()?, fields.next()?, fields.next()?);
        let own = origin == "Debian" && component == "main" && !uri.contains("security");
        own.then(|| uri.trim_end_matches('/').to_owned())
    })
}

/// apt-get with configuration, lists and cache of its own.
struct Apt {
    dir: PathBuf,
}

impl Apt {
    fn new(ctx: &Context, release: &str, mirror: &str) -> Result<Self> {
        let dir = ctx.cache.join("kernels").join(release);
        let _ = fs::remove_dir_all(&dir);
        for sub in ["state/lists/partial", "cache/archives/partial"] {
            let dir = dir.join(sub);
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        if !Path::new(KEYRING).is_file() {
            bail!("{KEYRING} is missing: install debian-archive-keyring");
        }
        let arch = debian_arch();
        let line = format!("deb [arch={arch} signed-by={KEYRING}] {mirror} {release} main\n");
        fs::write(dir.join("sources.list"), line).context("cannot write a sources.list")?;
        Ok(Self { dir })
    }

    fn get(&self) -> Command {
        self.command("apt-get")
    }

    fn command(&self, program: &str) -> Command {
        let dir = self.dir.display();
        let mut cmd = clean(Command::new(program));
        cmd.env("LC_ALL", "C");
        for option in [
            format!("Dir::Etc::sourcelist={dir}/sources.list"),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State={dir}/state"),
            format!("Dir::Cache={dir}/cache"),
            format!("APT::Architecture={}", debian_arch()),
            "Acquire::Languages=none".to_owned(),
            // Not root's sandbox user: it could not write here, and this is the user's own place.
            "APT::Sandbox::User=".to_owned(),
        ] {
            cmd.args(["-o", &option]);
        }
        cmd
    }

    /// The package that the meta-package depends on: `linux-image-6.1.0-N-cloud-amd64`.
    fn kernel_package(&self) -> Result<String> {
        let meta = meta_package();
        let shown =
            step::output_of(
                self.command("apt-cache")
                    .args(["show", "--no-all-versions", &meta]),
            )
            .with_context(|| format!("apt-cache knows no {meta}"))?;
        dependency(&shown).with_context(|| format!("{meta} depends on no kernel"))
    }
}

fn dependency(shown: &str) -> Option<String> {
    let depends = shown.lines().find_map(|l| l.strip_prefix("Depends: "))?;
    let package = depends.split([' ', ',']).next()?;
    package
        .starts_with("linux-image-")
        .then(|| package.to_owned())
}

fn find(dir: &Path, wanted: impl Fn(&str) -> bool) -> Option<PathBuf> {
    fs::read_dir(dir)
        .ok()?
        .flatten()
        .find(|entry| wanted(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::{dependency, mirror_in};

    #[test]
    fn the_mirror_is_debians_own_and_not_that_of_security_updates() {
        let list = "https://other.example/apt Other main\n\
                    http://mirror.example/debian-security/ Debian main\n\
                    http://mirror.example/debian/ Debian contrib\n\
                    http://mirror.example/debian/ Debian main\n";
        assert_eq!(
            mirror_in(list).as_deref(),
            Some("http://mirror.example/debian")
        );
        assert_eq!(
            mirror_in("http://archive.example/ubuntu Ubuntu main\n"),
            None
        );
    }

    #[test]
    fn the_meta_package_names_the_kernel() {
        let shown = "Package: linux-image-cloud-amd64\n\
                     Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n";
        assert_eq!(
            dependency(shown).as_deref(),
            Some("linux-image-6.1.0-56-cloud-amd64")
        );
        assert_eq!(dependency("Package: x\nDepends: libc6\n"), None);
    }
}
