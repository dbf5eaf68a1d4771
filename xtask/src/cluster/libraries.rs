//! The shared libraries of a program, for an image that is made of the machine's own files.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Where the libraries and the loader of `program` are, as the loader finds them; none if it is
/// linked statically.
///
/// # Errors
/// `ldd` is missing, or a library is.
pub fn of(program: &Path) -> Result<Vec<PathBuf>> {
    let out = Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        .output()
        .context("cannot start ldd, which comes with the C library")?;
    // A static program is a failure to it, and said on stderr.
    let said = String::from_utf8_lossy(&out.stdout);
    match parse(&said) {
        Ok(found) => Ok(found),
        Err(library) => bail!(
            "{} needs {library}, which is not on this machine: install its package again",
            program.display()
        ),
    }
}

/// The paths in what `ldd` says, or the name of the library that it did not find.
fn parse(said: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for line in said.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), second) = (words.next(), words.next()) else {
            continue;
        };
        if second == Some("=>") {
            match words.next() {
                Some(path) if path.starts_with('/') => found.push(path.into()),
                _ => return Err(name.to_owned()),
            }
        } else if name.starts_with('/') && second.is_some_and(|s| s.starts_with("(0x")) {
            // The loader itself.
            found.push(name.into());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::parse;

    #[test]
    fn libraries_and_the_loader_are_listed_and_the_kernels_own_is_not() {
        let said = "\tlinux-vdso.so.1 (0x00007ffc0b3f2000)\n\
            \tlibc.so.6 => /lib/multiarch/libc.so.6 (0x00007f5d6a9d4000)\n\
            \t/lib64/ld-linux.so.2 (0x00007f5d6abe1000)\n";
        let found = parse(said).expect("all are there");
        let wanted = ["/lib/multiarch/libc.so.6", "/lib64/ld-linux.so.2"];
        assert_eq!(found, wanted.map(|p| Path::new(p).to_owned()));
    }

    #[test]
    fn a_static_program_has_none_and_a_missing_library_is_named() {
        assert_eq!(parse("\tnot a dynamic executable\n"), Ok(Vec::new()));
        assert_eq!(parse("\tstatically linked\n"), Ok(Vec::new()));
        assert_eq!(
            parse("\tlibx.so.1 => not found\n"),
            Err("libx.so.1".to_owned())
        );
    }
}
