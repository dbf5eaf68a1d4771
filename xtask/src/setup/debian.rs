//! Packages of another Debian release than the machine's, unpacked without installing them. Nothing of
//! the machine's own package configuration is touched: apt-get works on lists of our own.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::which;
use crate::context::{Context, clean};
use crate::step;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Debian's name of this machine's architecture.
pub fn debian_arch() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
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
pub struct Apt {
    dir: PathBuf,
}

impl Apt {
    /// With its package list read. `dir` is its own: what it held is gone.
    ///
    /// # Errors
    /// This machine has no apt-get or no mirror, or the list cannot be had.
    pub fn new(ctx: &Context, dir: &Path, release: &str) -> Result<Self> {
        if which("apt-get").is_none() {
            bail!("this machine has no apt-get");
        }
        let mirror = mirror()?;
        let dir = dir.to_owned();
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
        let apt = Self { dir };
        ctx.step(
            &format!("package list of Debian {release}"),
            apt.command("apt-get").arg("update"),
        )?;
        Ok(apt)
    }

    /// Downloads a package and unpacks it; the folder that holds its files.
    ///
    /// # Errors
    /// There is no such package, or it cannot be had.
    pub fn unpack(&self, ctx: &Context, package: &str) -> Result<PathBuf> {
        let place = self.dir.join(package);
        fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        let mut get = self.command("apt-get");
        get.args(["download", package]).current_dir(&place);
        ctx.step(&format!("download {package}"), &mut get)?;
        let archive = find(&place, |name| name.ends_with(".deb"))
            .with_context(|| format!("apt-get left no package in {}", place.display()))?;
        let unpacked = place.join("unpacked");
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("-x").arg(&archive).arg(&unpacked);
        ctx.step(&format!("unpack {package}"), &mut unpack)?;
        Ok(unpacked)
    }

    /// Removes what was downloaded.
    ///
    /// # Errors
    /// It cannot be.
    pub fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.dir)
            .with_context(|| format!("cannot remove {}", self.dir.display()))
    }

    /// A program of apt with that configuration.
    pub fn command(&self, program: &str) -> Command {
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
}

/// All files in a folder and below.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        // A link could lead back up.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

/// A file of a folder.
pub fn find(dir: &Path, wanted: impl Fn(&str) -> bool) -> Option<PathBuf> {
    fs::read_dir(dir)
        .ok()?
        .flatten()
        .find(|entry| wanted(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::mirror_in;

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
}
