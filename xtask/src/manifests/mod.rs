//! `cargo xtask manifests`: from the kustomize base come the one file to apply, and the Helm chart.

mod chart;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::step;

/// What everything is generated from.
const BASE: &str = "manifests/kustomize/base";
/// The one file.
const SINGLE: &str = "manifests/weir.yaml";
/// The first lines of what is generated.
const HEAD: &str =
    "# Generated from manifests/kustomize/base by `cargo xtask manifests`: change it there.\n";

/// A resource of the base: its file's name and text.
type Resource = (String, String);

/// Writes every file that differs.
///
/// # Errors
/// The base cannot be read or is not as expected; a file cannot be written.
pub fn run(ctx: &Context) -> Result<()> {
    for (path, text) in generate(&ctx.root)? {
        let file = ctx.root.join(&path);
        let same = fs::read_to_string(&file).is_ok_and(|old| old == text);
        if !same {
            let dir = file.parent().unwrap_or(&ctx.root);
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        }
        let word = if same { "unchanged" } else { "written" };
        step::line(&format!("  {word}: {}", path.display()));
    }
    Ok(())
}

/// Every generated file, by its path in the repository.
fn generate(root: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let read = |name: &str| {
        let path = root.join(BASE).join(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let names = resources(&read("kustomization.yaml")?)?;
    let base: Vec<Resource> = names
        .into_iter()
        .map(|name| Ok((name.clone(), read(&name)?)))
        .collect::<Result<_>>()?;
    let mut files = chart::generate(&base)?;
    files.insert(SINGLE.into(), single(&base));
    Ok(files)
}

/// The resources that a kustomization names, in their order.
fn resources(kustomization: &str) -> Result<Vec<String>> {
    let (_, list) = kustomization
        .split_once("resources:\n")
        .context("kustomization.yaml has no resources")?;
    let names = list.lines().map_while(|line| line.strip_prefix("- "));
    Ok(names.map(str::to_owned).collect())
}

/// All resources as one file.
fn single(base: &[Resource]) -> String {
    let texts: Vec<&str> = base.iter().map(|(_, text)| text.as_str()).collect();
    format!("{HEAD}{}", texts.join("---\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_manifests_are_current() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (path, text) in generate(&root).expect("the base is as expected") {
            let there = fs::read_to_string(root.join(&path)).unwrap_or_default();
            assert!(
                there == text,
                "{} is not what the base says: run `cargo xtask manifests`",
                path.display()
            );
        }
    }

    #[test]
    fn resources_are_read_in_their_order_up_to_the_next_key() {
        let text = "kind: Kustomization\nresources:\n- b.yaml\n- a.yaml\nimages:\n- name: x\n";
        assert_eq!(resources(text).expect("a list"), ["b.yaml", "a.yaml"]);
        assert!(resources("kind: Kustomization\n").is_err());
    }
}
