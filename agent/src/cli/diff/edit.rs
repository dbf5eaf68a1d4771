//! The world as it would be: objects added, replaced and taken away.

use std::path::PathBuf;

use anyhow::bail;
use weir_manifests::{Key, Manifests};

/// Kinds of policies, which `--without` can take away.
const POLICIES: [&str; 2] = ["NetworkPolicy", "ClusterNetworkPolicy"];

/// `base` without the policies of these names and with the objects of these files. What is wrong
/// with the files themselves is in the result's notes, beside what was in `base`'s.
pub(super) fn edited(
    base: &Manifests,
    with: &[PathBuf],
    without: &[String],
) -> anyhow::Result<Manifests> {
    let mut edited = base.clone();
    for name in without {
        let key = find(base, name)?;
        edited.objects.remove(&key);
    }
    for path in with {
        let mut added = Manifests::default();
        for file in weir_manifests::files(path)? {
            let bytes = std::fs::read(&file)
                .map_err(|e| anyhow::anyhow!("cannot read {}: {e}", file.display()))?;
            added.add_file(&file, &bytes);
        }
        if added.objects.is_empty() && added.errors.is_empty() {
            bail!(
                "--with {} holds no Kubernetes objects that Weir reads (.yaml, .yml, .json)",
                path.display()
            );
        }
        // To replace what is there is what this is for: no warning.
        edited.objects.extend(added.objects);
        edited.errors.extend(added.errors);
        edited.warnings.extend(added.warnings);
        edited.passed_over.extend(added.passed_over);
    }
    edited.imply_namespaces();
    Ok(edited)
}

/// The policy of a name: `NS/NAME`, or the NAME of a kind without namespaces.
fn find(base: &Manifests, name: &str) -> anyhow::Result<Key> {
    let policies = || {
        base.objects
            .keys()
            .filter(|key| POLICIES.contains(&key.kind))
    };
    if let Some(key) = policies().find(|key| written(key) == name) {
        return Ok(key.clone());
    }
    let nearest = policies()
        .map(|key| (strsim::damerau_levenshtein(name, &written(key)), key))
        .min();
    match nearest {
        Some((_, key)) => bail!(
            "--without {name}: no policy of that name; the nearest is {} ({})",
            written(key),
            key.kind
        ),
        None => bail!("--without {name}: there are no policies"),
    }
}

fn written(key: &Key) -> String {
    if key.namespace.is_empty() {
        key.name.clone()
    } else {
        format!("{}/{}", key.namespace, key.name)
    }
}
