//! Debian's kernels, downloaded once into the cache and unpacked there. Nothing of the machine's
//! own package configuration is touched: apt-get works on lists of our own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

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
    let files = files_below(&unpacked.join("lib/modules"));
    for module in MODULES {
        if let Some(found) = files.iter().find(|path| path.ends_with(module)) {
            keep(found, &home.join(module))?;
        }
    }
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
