//! Kernel modules: which ones another needs, and in which order they are to be loaded. A package has no
//! `modules.dep`, which is made where it is installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// What the machines need and Debian has as modules: clsact filters for kernels without tcx, and what a
/// lab is made of.
const WANTED: [&str; 7] = [
    "sch_ingress",
    "cls_bpf",
    "veth",
    "bridge",
    "wireguard",
    "vxlan",
    "geneve",
];

/// The wanted modules among a kernel's files, with all that they need, in the order in which they are to
/// be loaded: name and content. What a kernel has built in is not among them.
///
/// # Errors
/// A file cannot be read or unpacked.
pub fn load_order(files: &[PathBuf]) -> Result<Vec<(String, Vec<u8>)>> {
    let named = files.iter().filter_map(|path| Some((name_of(path)?, path)));
    let files: BTreeMap<String, &PathBuf> = named.collect();
    let read = |name: &str| files.get(name).map(|path| content(path)).transpose();
    let mut order = Vec::new();
    for module in WANTED {
        add(module, &read, &mut order)?;
    }
    Ok(order)
}

fn add(
    module: &str,
    read: &impl Fn(&str) -> Result<Option<Vec<u8>>>,
    order: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    if order.iter().any(|(name, _)| name == module) {
        return Ok(());
    }
    let Some(content) = read(module)? else {
        return Ok(());
    };
    for needed in depends(&content) {
        add(&needed, read, order)?;
    }
    order.push((module.to_owned(), content));
    Ok(())
}

/// A module's name as the kernel writes it.
fn name_of(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (name, rest) = file.split_once(".ko")?;
    matches!(rest, "" | ".xz").then(|| name.replace('-', "_"))
}

fn content(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|kind| kind != "xz") {
        return std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let out = Command::new("xz").arg("-dc").arg(path).output();
    let out = out.context("cannot run xz")?;
    if !out.status.success() {
        bail!("cannot unpack {}: {}", path.display(), out.status);
    }
    Ok(out.stdout)
}

/// The modules that a module names as needed, in its section `.modinfo`: strings that end in a zero.
fn depends(content: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = content.windows(KEY.len()).position(|some| some == KEY) else {
        return Vec::new();
    };
    let rest = content.get(at + KEY.len()..).unwrap_or_default();
    let text = rest.split(|&byte| byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(text);
    let names = names.split(',').filter(|name| !name.is_empty());
    names.map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_is_loaded_before_it_and_once() {
        let read = |name: &str| {
            let needs = match name {
                "wireguard" => "udp_tunnel,lib-chacha",
                "vxlan" => "udp_tunnel",
                "udp_tunnel" | "lib_chacha" => "",
                _ => return Ok(None),
            };
            let text = format!("ELF\0license=GPL\0depends={needs}\0x");
            Ok(Some(text.into_bytes()))
        };
        let mut order = Vec::new();
        for module in ["built_in", "wireguard", "vxlan"] {
            add(module, &read, &mut order).unwrap();
        }
        let names: Vec<&str> = order.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["udp_tunnel", "lib_chacha", "wireguard", "vxlan"]);
    }

    #[test]
    fn a_module_is_known_by_its_file_packed_or_not() {
        for (file, name) in [
            ("a/cls_bpf.ko", Some("cls_bpf")),
            ("libcurve25519-generic.ko.xz", Some("libcurve25519_generic")),
            ("modules.dep", None),
            ("x.ko.sig", None),
        ] {
            assert_eq!(name_of(Path::new(file)).as_deref(), name);
        }
    }
}
