//! Debian's kernels, downloaded once into the cache and unpacked there. Nothing of the machine's
//! own package configuration is touched: apt-get works on lists of our own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::modules;
use crate::context::Context;
use crate::setup::debian::{Apt, debian_arch, files_below, find};
use crate::step;

/// The floor, and the newest that a Debian release has: release and the kernel series it carries.
const WANTED: [(&str, &str); 2] = [("bookworm", "6.1"), ("trixie", "6.12")];

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

/// The folder of its modules in the cache, whose names begin with their order.
const MODULES: &str = "modules";

/// Finds the kernels in the cache or downloads them.
///
/// # Errors
/// One cannot be downloaded; the error says how to provide it.
pub fn ensure(ctx: &Context) -> Result<Vec<Kernel>> {
    WANTED
        .iter()
        .map(|(release, series)| {
            let home = ctx.cache.join("kernels").join(series);
            if !home.join(IMAGE).is_file() || !home.join(MODULES).is_dir() {
                download(ctx, release, series, &home).with_context(|| {
                    format!(
                        "no Linux {series} to boot: put the image of Debian {release}'s \
                         {} at {}, and the modules to load, by their order, into {}",
                        meta_package(),
                        home.join(IMAGE).display(),
                        home.join(MODULES).display()
                    )
                })?;
            }
            let mut modules = files_below(&home.join(MODULES));
            modules.sort();
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

fn download(ctx: &Context, release: &str, series: &str, home: &Path) -> Result<()> {
    let apt = Apt::new(ctx, &ctx.cache.join("kernels").join(release), release)?;
    let package = kernel_package(&apt)?;
    if !package.contains(&format!("linux-image-{series}.")) {
        bail!("Debian {release} has {package}, not Linux {series}");
    }
    let unpacked = apt.unpack(ctx, &package)?;
    let image = find(&unpacked.join("boot"), |name| name.starts_with("vmlinuz-"))
        .with_context(|| format!("{package} holds no kernel image"))?;
    fs::create_dir_all(home).with_context(|| format!("cannot make {}", home.display()))?;
    // Later releases have no /lib of their own.
    let mut files = files_below(&unpacked.join("lib/modules"));
    files.extend(files_below(&unpacked.join("usr/lib/modules")));
    let made = home.join("modules.new");
    let _ = fs::remove_dir_all(&made);
    fs::create_dir_all(&made).with_context(|| format!("cannot make {}", made.display()))?;
    let found = modules::load_order(&files)?;
    if found.is_empty() {
        bail!("{package} holds none of the modules that a lab needs");
    }
    for (order, (name, content)) in found.iter().enumerate() {
        let at = made.join(format!("{order:03}-{name}.ko"));
        fs::write(&at, content).with_context(|| format!("cannot write {}", at.display()))?;
    }
    let _ = fs::remove_dir_all(home.join(MODULES));
    keep(&made, &home.join(MODULES))?;
    // Last: with the image there, the rest is taken to be there.
    keep(&image, &home.join(IMAGE))?;
    apt.remove()
}

fn keep(found: &Path, at: &Path) -> Result<()> {
    fs::rename(found, at)
        .with_context(|| format!("cannot move {} to {}", found.display(), at.display()))
}

/// The package that the meta-package depends on: `linux-image-6.1.0-N-cloud-amd64`.
fn kernel_package(apt: &Apt) -> Result<String> {
    let meta = meta_package();
    let shown =
        step::output_of(
            apt.command("apt-cache")
                .args(["show", "--no-all-versions", &meta]),
        )
        .with_context(|| format!("apt-cache knows no {meta}"))?;
    dependency(&shown).with_context(|| format!("{meta} depends on no kernel"))
}

fn dependency(shown: &str) -> Option<String> {
    let depends = shown.lines().find_map(|l| l.strip_prefix("Depends: "))?;
    let package = depends.split([' ', ',']).next()?;
    package
        .starts_with("linux-image-")
        .then(|| package.to_owned())
}

#[cfg(test)]
mod tests {
    use super::dependency;

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
