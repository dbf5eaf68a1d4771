//! iperf 2.2, whose reports upstream's test reads: Debian 12 has 2.1. It comes with the libraries of its
//! own release, in a folder of its own.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::oci::Image;
use crate::context::Context;
use crate::setup::debian::{Apt, files_below};
use crate::setup::which;
use crate::step;

const RELEASE: &str = "trixie";
/// The program, and what it is linked to.
const PACKAGES: [&str; 4] = ["iperf", "libc6", "libgcc-s1", "libstdc++6"];
/// Folders of these packages that hold nothing of it.
const NOT_NEEDED: [&str; 3] = ["gconv", "share", "audit"];
/// Where it is in the image.
const HOME: &str = "opt/iperf";

/// Puts it into the image, called `iperf`. Where it cannot be had, the machine's own stands in, and the
/// test says what it misses.
///
/// # Errors
/// There is none at all.
pub fn add(ctx: &Context, image: &mut Image) -> Result<()> {
    let home = ctx.cache.join("cluster/iperf-2.2");
    if !home.is_dir()
        && let Err(error) = fetch(ctx, &home)
    {
        step::line(&format!(
            "  iperf 2.2: {error:#}; the machine's own is taken"
        ));
        let own = which("iperf").context("no `iperf` on this machine for the test images")?;
        return super::images::with_libraries(image, "usr/bin/iperf", &own);
    }
    let mut loader = None;
    for entry in fs::read_dir(&home).with_context(|| format!("cannot list {}", home.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("ld-linux") {
            loader = Some(name.clone());
        }
        image.program(&format!("{HOME}/{name}"), &entry.path());
    }
    let loader = loader.with_context(|| format!("no loader in {}", home.display()))?;
    image.script(
        "usr/bin/iperf",
        &format!("#!/bin/sh\nexec /{HOME}/{loader} --library-path /{HOME} /{HOME}/iperf \"$@\"\n"),
    );
    Ok(())
}

fn fetch(ctx: &Context, home: &Path) -> Result<()> {
    let apt = Apt::new(ctx, &ctx.cache.join("cluster/iperf-packages"), RELEASE)?;
    let new = home.with_extension("new");
    let _ = fs::remove_dir_all(&new);
    fs::create_dir_all(&new).with_context(|| format!("cannot make {}", new.display()))?;
    for package in PACKAGES {
        keep_files(&apt.unpack(ctx, package)?, &new)?;
    }
    fs::rename(&new, home).with_context(|| format!("cannot make {}", home.display()))?;
    apt.remove()
}

/// Copies the program and the shared libraries, each under the name by which it is asked for.
fn keep_files(dir: &Path, to: &Path) -> Result<()> {
    for path in files_below(dir) {
        // Modules that the C library loads by name, and helpers, are not needed.
        let inside = path.strip_prefix(dir).unwrap_or(&path);
        if inside
            .iter()
            .any(|part| NOT_NEEDED.iter().any(|name| part == *name))
        {
            continue;
        }
        let Some(name) = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
        else {
            continue;
        };
        if name == "iperf" || name.contains(".so") {
            // Follows links: `libm.so.6` may be one.
            if fs::metadata(&path).is_ok_and(|meta| meta.is_file()) {
                fs::copy(&path, to.join(&name))
                    .with_context(|| format!("cannot copy {}", path.display()))?;
            }
        }
    }
    Ok(())
}
