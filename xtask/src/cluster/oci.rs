//! Container images as one file: an OCI image layout (image-spec 1.1, `image-layout.md`) in a tar
//! archive, which `ctr images import`, `podman load`, `docker load` and `skopeo` read.
//!
//! The same files give the same bytes: names are sorted, and owners, times and modes do not come
//! from the machine. Layers are not compressed: such images never travel far.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// When everything was made; the true time would make each build another image.
const CREATED: &str = "1970-01-01T00:00:00Z";

const DIRECTORY: u32 = 0o755;
const PROGRAM: u32 = 0o755;
const FILE: u32 = 0o644;
const SHARED: u32 = 0o1777;

/// What an image holds and how it starts.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Full names, each with domain and tag: `localhost/weir:dev`.
    pub names: Vec<String>,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments that a container's own replace.
    pub cmd: Vec<String>,
    /// `KEY=VALUE`.
    pub env: Vec<String>,
    /// The layers that are finished, the lowest first.
    below: Vec<Tree>,
    tree: Tree,
}

/// What a layer holds, by path without a leading slash: in this order, parents come first.
type Tree = BTreeMap<String, Node>;

/// Something in the image's file system.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// A directory and its mode.
    Directory(u32),
    /// A file that is copied from the machine, with the mode of a program.
    Program(PathBuf),
    /// A file with this content.
    Text(String),
    /// A shell script with this content.
    Script(String),
    /// A symbolic link to this.
    Link(String),
}

/// The SHA-256 of a blob, as its name in the image and everywhere else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    fn of(bytes: &[u8]) -> Self {
        Self(hex(&Sha256::digest(bytes)))
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// Bytes as lower case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Image {
    /// An image without files.
    pub fn new(names: &[&str]) -> Self {
        Self {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            ..Self::default()
        }
    }

    /// An empty directory.
    pub fn directory(&mut self, path: &str) {
        self.node(path, Node::Directory(DIRECTORY));
    }

    /// An empty directory where everyone may write, as `/tmp` is.
    pub fn shared_directory(&mut self, path: &str) {
        self.node(path, Node::Directory(SHARED));
    }

    /// A program or library of the machine.
    pub fn program(&mut self, path: &str, from: &Path) {
        self.node(path, Node::Program(from.to_owned()));
    }

    /// A file with this content.
    pub fn text(&mut self, path: &str, content: &str) {
        self.node(path, Node::Text(content.to_owned()));
    }

    /// A shell script with this content.
    pub fn script(&mut self, path: &str, content: &str) {
        self.node(path, Node::Script(content.to_owned()));
    }

    /// Finishes a layer: what is added from now on lies over it, and another image that begins with
    /// the same layer shares it wherever both are.
    pub fn next_layer(&mut self) {
        self.below.push(std::mem::take(&mut self.tree));
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, to: &str) {
        self.node(path, Node::Link(to.to_owned()));
    }

    /// Puts `node` at `path` (no leading slash) with the directories above it; what was there
    /// before is replaced.
    fn node(&mut self, path: &str, node: Node) {
        let path = path.trim_matches('/');
        for (at, _) in path.match_indices('/') {
            self.tree
                .entry(path[..at].to_owned())
                .or_insert(Node::Directory(DIRECTORY));
        }
        self.tree.insert(path.to_owned(), node);
    }

    fn layers(&self) -> impl Iterator<Item = &Tree> {
        self.below.iter().chain([&self.tree])
    }

    /// Everything in it, layer by layer, each under its path without a leading slash, parents first.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.layers()
            .flatten()
            .map(|(path, node)| (path.as_str(), node))
    }

    /// Layers are not compressed, so their digests are those of their content too.
    fn config(&self, architecture: &str, layers: &[Digest]) -> Value {
        let digests: Vec<String> = layers.iter().map(Digest::to_string).collect();
        let history: Vec<Value> = layers
            .iter()
            .map(|_| json!({ "created": CREATED, "created_by": "cargo xtask" }))
            .collect();
        let mut config = json!({ "Env": self.env, "WorkingDir": "/" });
        if !self.entrypoint.is_empty() {
            config["Entrypoint"] = json!(self.entrypoint);
        }
        if !self.cmd.is_empty() {
            config["Cmd"] = json!(self.cmd);
        }
        json!({
            "created": CREATED,
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": digests },
            "history": history,
        })
    }

    /// The descriptors of the manifest, one for each name: containerd takes the whole name from an
    /// annotation of its own, the specification has one for the tag.
    fn named(&self, architecture: &str, manifest: &Value) -> impl Iterator<Item = Value> {
        self.names.iter().map(move |name| {
            let mut entry = manifest.clone();
            entry["platform"] = json!({ "architecture": architecture, "os": "linux" });
            entry["annotations"] = json!({
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": tag(name),
            });
            entry
        })
    }
}

/// Writes `images` for `architecture` (Go's name: `amd64`, `arm64`) into one archive, in which each
/// layer is once, and returns the digests of their manifests.
///
/// # Errors
/// A file of the machine cannot be read (the error names it), or `out` not be written.
pub fn write(images: &[Image], architecture: &str, out: impl Write) -> io::Result<Vec<Digest>> {
    let mut blobs = Blobs::default();
    let mut entries = Vec::new();
    let mut digests = Vec::new();
    for image in images {
        let mut layers = Vec::new();
        for tree in image.layers() {
            layers.push(blobs.layer(tree)?);
        }
        let config = blobs.add(image.config(architecture, &layers).to_string().into());
        let layers: Vec<Value> = layers.iter().map(|l| blobs.descriptor(LAYER, l)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": blobs.descriptor(CONFIG, &config),
            "layers": layers,
        });
        let manifest = blobs.add(manifest.to_string().into());
        entries.extend(image.named(architecture, &blobs.descriptor(MANIFEST, &manifest)));
        digests.push(manifest);
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }).to_string();
    let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
    let mut tar = Builder::new(out);
    bytes(&mut tar, "oci-layout", FILE, layout)?;
    bytes(&mut tar, "index.json", FILE, index.as_bytes())?;
    for dir in ["blobs", "blobs/sha256"] {
        special(&mut tar, dir, DIRECTORY, EntryType::Directory, "")?;
    }
    for (digest, blob) in &blobs.all {
        bytes(&mut tar, &digest.path(), FILE, blob)?;
    }
    tar.into_inner()?.flush()?;
    Ok(digests)
}

/// What an archive refers to by digest.
#[derive(Default)]
struct Blobs<'a> {
    all: BTreeMap<Digest, Vec<u8>>,
    layers: BTreeMap<&'a Tree, Digest>,
}

impl<'a> Blobs<'a> {
    fn add(&mut self, blob: Vec<u8>) -> Digest {
        let digest = Digest::of(&blob);
        self.all.insert(digest.clone(), blob);
        digest
    }

    /// Reads the files of a layer, unless another image has the same.
    fn layer(&mut self, tree: &'a Tree) -> io::Result<Digest> {
        if let Some(digest) = self.layers.get(tree) {
            return Ok(digest.clone());
        }
        let digest = self.add(layer(tree)?);
        self.layers.insert(tree, digest.clone());
        Ok(digest)
    }

    fn descriptor(&self, kind: &str, digest: &Digest) -> Value {
        let size = self.all.get(digest).map_or(0, Vec::len);
        json!({ "mediaType": kind, "digest": digest.to_string(), "size": size })
    }
}

fn layer(tree: &Tree) -> io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for (path, node) in tree {
        match node {
            Node::Directory(mode) => special(&mut tar, path, *mode, EntryType::Directory, "")?,
            Node::Link(to) => special(&mut tar, path, 0o777, EntryType::Symlink, to)?,
            Node::Text(content) => bytes(&mut tar, path, FILE, content.as_bytes())?,
            Node::Script(content) => bytes(&mut tar, path, PROGRAM, content.as_bytes())?,
            Node::Program(from) => {
                let content = fs::read(from).map_err(|err| {
                    io::Error::new(err.kind(), format!("cannot read {}: {err}", from.display()))
                })?;
                bytes(&mut tar, path, PROGRAM, &content)?;
            }
        }
    }
    tar.into_inner()
}

/// What stands after the colon of an image's name; a colon before the last slash is a port's.
fn tag(name: &str) -> &str {
    name.rsplit_once(':')
        .map(|(_, tag)| tag)
        .filter(|tag| !tag.contains('/'))
        .unwrap_or("latest")
}

fn header(mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn bytes<W: Write>(tar: &mut Builder<W>, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut header = header(mode, content.len() as u64);
    header.set_entry_type(EntryType::Regular);
    tar.append_data(&mut header, path, content)
}

fn special<W: Write>(
    tar: &mut Builder<W>,
    path: &str,
    mode: u32,
    kind: EntryType,
    to: &str,
) -> io::Result<()> {
    let mut header = header(mode, 0);
    header.set_entry_type(kind);
    if kind == EntryType::Symlink {
        return tar.append_link(&mut header, path, to);
    }
    tar.append_data(&mut header, path, io::empty())
}

#[cfg(test)]
#[path = "oci_tests.rs"]
mod tests;
