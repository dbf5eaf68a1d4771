//! What the pods of `manifests/shop` run in a test cluster: one small server under all the names of
//! images that stand there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::images::userland;
use super::oci::Image;

/// Says the pod's name by HTTP on every port that a container of the shop may have.
///
/// # Errors
/// The manifests cannot be read, or busybox is missing.
pub fn image(manifests: &Path) -> Result<Image> {
    let mut text = String::new();
    for entry in
        fs::read_dir(manifests).with_context(|| format!("cannot list {}", manifests.display()))?
    {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "yaml") {
            text += &fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
        }
    }
    let (names, ports) = (values(&text, "image"), values(&text, "containerPort"));
    ensure!(
        !names.is_empty() && !ports.is_empty(),
        "{}: no images or no ports",
        manifests.display()
    );
    let mut image = Image::new(&Vec::from_iter(names));
    userland(&mut image)?;
    let ports = Vec::from_iter(ports).join(" ");
    image.script(
        "serve",
        &format!(
            "#!/bin/sh\nmkdir -p /tmp/www\nhostname >/tmp/www/index.html\n\
             for port in {ports}; do\n    httpd -f -p $port -h /tmp/www &\ndone\nwait\n"
        ),
    );
    image.entrypoint = vec!["/serve".to_owned()];
    Ok(image)
}

/// What stands behind a key anywhere in manifests that are written one key to a line.
fn values<'a>(text: &'a str, key: &str) -> BTreeSet<&'a str> {
    let value = |line: &'a str| {
        let line = line.trim_start().trim_start_matches("- ");
        line.strip_prefix(key)?.strip_prefix(':').map(str::trim)
    };
    text.lines().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::values;

    #[test]
    fn each_value_of_a_key_is_found_once_and_other_keys_are_not() {
        let text = "  - image: a:1\n    imagePullPolicy: Never\n  image: b\n  - image: a:1\n";
        assert_eq!(Vec::from_iter(values(text, "image")), ["a:1", "b"]);
    }
}
