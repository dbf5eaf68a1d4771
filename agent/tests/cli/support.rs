//! Files to ask about, and command lines.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use weir_agent::cli::{Done, run};

/// A shop: deny by default, web may reach db at its named port, and web's egress is closed but for
/// db and one block.
pub const SHOP: &str = "\
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: x, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {nodeName: n1, containers: [{name: c, image: x, ports: [{name: pg, containerPort: 5432}]}]}
status: {phase: Running, podIPs: [{ip: 10.1.0.2}, {ip: 'fd01::2'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: job, namespace: shop, labels: {app: job}}
spec: {nodeName: n2, containers: [{name: c, image: x}]}
status: {phase: Running, podIPs: [{ip: 10.2.0.3}, {ip: 'fd02::3'}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: www, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: both, namespace: shop}
spec: {selector: {tier: both}, ports: [{port: 5432}]}
---
apiVersion: v1
kind: Pod
metadata: {name: both-a, namespace: shop, labels: {tier: both, app: db}}
spec: {containers: []}
---
apiVersion: v1
kind: Pod
metadata: {name: both-b, namespace: shop, labels: {tier: both}}
spec: {containers: []}
---
apiVersion: v1
kind: Service
metadata: {name: nobody, namespace: shop}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: admin}}}]
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: pg}, {port: 5432}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web-out, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: db}}}]
  - to: [{podSelector: {matchLabels: {tier: both}}}]
  - to: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.128/25]}}]
    ports: [{port: 443}]
";

/// A directory of files.
pub struct Files(TempDir);

impl Files {
    pub fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Self(dir)
    }

    pub fn shop() -> Self {
        Self::new(&[("shop.yaml", SHOP)])
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }
}

/// Runs `weir ARGUMENTS`, split at blanks; `{}` stands for a path.
pub fn weir(arguments: &str, path: &Path) -> Done {
    let path = path.to_str().unwrap();
    let words = arguments.split(' ').map(|word| word.replace("{}", path));
    run(std::iter::once("weir".to_owned()).chain(words), false)
}

/// Runs `policy trace` over the shop.
pub fn trace(arguments: &str) -> Done {
    let files = Files::shop();
    weir(
        &format!("policy trace --manifests {{}} {arguments}"),
        files.dir(),
    )
}
