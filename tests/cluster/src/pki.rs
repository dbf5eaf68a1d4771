//! The cluster's certificates: a small authority of its own, made anew by each `up`.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;

use crate::plan::{DOMAIN, Plan};

/// A folder of certificates and keys: `NAME.crt` and `NAME.key`.
#[derive(Clone, Debug)]
pub struct Pki {
    dir: PathBuf,
}

/// An authority that signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

fn user<'a>(user: &'a str, group: Option<&'a str>) -> Subject<'a> {
    Subject { user, group }
}

/// Who a certificate is for, as Kubernetes reads it.
struct Subject<'a> {
    /// Common name: the user.
    user: &'a str,
    /// Organization: the user's group.
    group: Option<&'a str>,
}

impl Pki {
    /// Makes all certificates of a cluster below `dir`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn create(dir: &Path, plan: &Plan, nodes: u8) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let pki = Self {
            dir: dir.to_owned(),
        };
        let ca = pki.authority("ca", "weir-cluster")?;
        let front = pki.authority("front-proxy-ca", "weir-cluster-front-proxy")?;
        pki.sign(
            &ca,
            "apiserver",
            &user("kube-apiserver", None),
            api_names(plan),
        )?;
        let masters = Some("system:masters");
        for (file, name, group) in [
            ("admin", "kubernetes-admin", masters),
            (
                "apiserver-kubelet-client",
                "kube-apiserver-kubelet-client",
                masters,
            ),
            ("controller-manager", "system:kube-controller-manager", None),
            ("scheduler", "system:kube-scheduler", None),
        ] {
            pki.sign(&ca, file, &user(name, group), Vec::new())?;
        }
        pki.sign(
            &front,
            "front-proxy-client",
            &user("front-proxy-client", None),
            Vec::new(),
        )?;
        for number in 1..=nodes {
            let name = format!("n{number}");
            let who = format!("system:node:{name}");
            let subject = user(&who, Some("system:nodes"));
            let mut names = vec![name.clone()];
            names.extend(plan.node(number).iter().map(ToString::to_string));
            // One certificate for both: the kubelet's client and its server.
            pki.sign(&ca, &format!("kubelet-{name}"), &subject, names)?;
        }
        let accounts = KeyPair::generate()?;
        pki.write("sa.key", &accounts.serialize_pem())?;
        pki.write("sa.pub", &accounts.public_key_pem())?;
        Ok(pki)
    }

    /// A file of it: `ca.crt`, `admin.key`, `sa.pub`, …
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn authority(&self, file: &str, name: &str) -> Result<Authority> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate()?;
        self.write(&format!("{file}.crt"), &params.self_signed(&key)?.pem())?;
        self.write(&format!("{file}.key"), &key.serialize_pem())?;
        Ok(Authority {
            issuer: Issuer::new(params, key),
        })
    }

    fn sign(
        &self,
        by: &Authority,
        file: &str,
        who: &Subject<'_>,
        names: Vec<String>,
    ) -> Result<()> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, who.user);
        if let Some(group) = who.group {
            params
                .distinguished_name
                .push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &by.issuer)?;
        self.write(&format!("{file}.crt"), &certificate.pem())?;
        self.write(&format!("{file}.key"), &key.serialize_pem())
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        write_private(&self.file(name), text)
    }

    /// Writes a kubeconfig of the user whose certificate is `user` (`admin`, `kubelet-n1`, …).
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn kubeconfig(&self, path: &Path, user: &str, server: &str) -> Result<()> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "weir", "cluster": {
                "server": server,
                "certificate-authority": self.file("ca.crt"),
            }}],
            "users": [{"name": user, "user": {
                "client-certificate": self.file(&format!("{user}.crt")),
                "client-key": self.file(&format!("{user}.key")),
            }}],
            "contexts": [{"name": "weir", "context": {"cluster": "weir", "user": user}}],
            "current-context": "weir",
        });
        write_private(path, &format!("{config:#}\n"))
    }
}

/// Every name and address by which a client may reach the API server.
fn api_names(plan: &Plan) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1", "n1"]
        .map(Into::into)
        .into();
    let mut service = "kubernetes".to_owned();
    for part in ["", ".default", ".svc", &format!(".{DOMAIN}")] {
        service.push_str(part);
        names.push(service.clone());
    }
    let addresses = [plan.node(1), plan.kubernetes()];
    names.extend(addresses.iter().flatten().map(ToString::to_string));
    names
}

/// Writes a file that only root reads.
fn write_private(path: &Path, text: &str) -> Result<()> {
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cni, Containerd, NodeCidrs, Options};

    fn plan() -> Plan {
        Plan::new(&Options {
            nodes: 2,
            cni: Cni::None,
            dual_stack: true,
            ipv6: false,
            containerd: Containerd::Two,
            node_cidrs: NodeCidrs::Controller,
        })
    }

    #[test]
    fn the_api_server_is_known_by_each_address_of_node_and_service_and_by_loopback() {
        let names = api_names(&plan());
        for name in [
            "127.0.0.1",
            "172.31.0.11",
            "fd31::11",
            "10.96.0.1",
            "fd96::1",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ] {
            assert!(
                names.iter().any(|n| n == name),
                "{name} is not in {names:?}"
            );
        }
    }

    #[test]
    fn each_part_of_the_cluster_gets_its_files_and_keys_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(dir.path(), &plan(), 2).unwrap();
        for name in [
            "apiserver",
            "admin",
            "scheduler",
            "kubelet-n1",
            "kubelet-n2",
        ] {
            let pem = fs::read_to_string(pki.file(&format!("{name}.crt"))).unwrap();
            assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"), "{name}");
            let key = fs::metadata(pki.file(&format!("{name}.key"))).unwrap();
            assert_eq!(key.permissions().mode() & 0o077, 0, "{name}");
        }
        let public = fs::read_to_string(pki.file("sa.pub")).unwrap();
        assert!(public.starts_with("-----BEGIN PUBLIC KEY-----"));
        assert!(!pki.file("kubelet-n3.crt").exists());
    }
}
