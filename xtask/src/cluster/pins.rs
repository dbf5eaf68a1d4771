//! Which programs the test cluster runs, from which pinned module, and what a program of the machine
//! has to be to do instead. The versions stand in `tests/cluster/go/*/go.mod` and nowhere else.

/// How a program is made from its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `go build` of a main package.
    Main,
    /// `go test -c` of a package with tests.
    Tests,
    /// `cc -static` of a C file in the published module.
    C,
    /// A file of the published module, as it is.
    File,
}

/// Which of the machine's programs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// None: always built.
    Built,
    /// One whose output with these arguments names the pinned major and minor version.
    SameMinor(&'static [&'static str]),
    /// One whose output with these arguments names this version or a newer one.
    AtLeast(&'static [&'static str], (u32, u32)),
}

/// A program.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its file's name.
    pub name: &'static str,
    /// Where its source is: a package, or a file's path in the module.
    pub source: &'static str,
    pub kind: Kind,
    pub accept: Accept,
}

/// A module of `tests/cluster/go` and what is built from it.
#[derive(Debug)]
pub struct Module {
    /// Its folder.
    pub dir: &'static str,
    /// The requirement in its go.mod that is the version of the programs.
    pub of: &'static str,
    pub programs: &'static [Program],
}

const VERSION: Accept = Accept::SameMinor(&["--version"]);

const fn main(name: &'static str, source: &'static str, accept: Accept) -> Program {
    Program {
        name,
        source,
        kind: Kind::Main,
        accept,
    }
}

const fn file(name: &'static str, source: &'static str, kind: Kind) -> Program {
    Program {
        name,
        source,
        kind,
        accept: Accept::Built,
    }
}

/// What a cluster needs.
pub const CLUSTER: &[Module] = &[
    Module {
        dir: "etcd",
        of: "go.etcd.io/etcd/server/v3",
        // Debian's does: Kubernetes asks for nothing that 3.4 lacks.
        programs: &[main(
            "etcd",
            "go.etcd.io/etcd/server/v3",
            Accept::AtLeast(&["--version"], (3, 4)),
        )],
    },
    Module {
        dir: "kubernetes",
        of: "k8s.io/kubernetes",
        programs: &[
            main(
                "kube-apiserver",
                "k8s.io/kubernetes/cmd/kube-apiserver",
                VERSION,
            ),
            main(
                "kube-controller-manager",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
                VERSION,
            ),
            main(
                "kube-scheduler",
                "k8s.io/kubernetes/cmd/kube-scheduler",
                VERSION,
            ),
            main("kubelet", "k8s.io/kubernetes/cmd/kubelet", VERSION),
            main(
                "kubectl",
                "k8s.io/kubernetes/cmd/kubectl",
                Accept::SameMinor(&["version", "--client"]),
            ),
            main(
                "agnhost",
                "k8s.io/kubernetes/test/images/agnhost",
                Accept::Built,
            ),
            main(
                "regression-issue-74839",
                "k8s.io/kubernetes/test/images/regression-issue-74839",
                Accept::Built,
            ),
            file("pause", "build/pause/linux/pause.c", Kind::C),
            file(
                "porter-localhost.crt",
                "test/images/agnhost/porter/localhost.crt",
                Kind::File,
            ),
            file(
                "porter-localhost.key",
                "test/images/agnhost/porter/localhost.key",
                Kind::File,
            ),
        ],
    },
    Module {
        dir: "containerd",
        of: "github.com/containerd/containerd/v2",
        programs: &[
            main(
                "containerd",
                "github.com/containerd/containerd/v2/cmd/containerd",
                VERSION,
            ),
            main(
                "containerd-shim-runc-v2",
                "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
                Accept::SameMinor(&["-v"]),
            ),
            main(
                "ctr",
                "github.com/containerd/containerd/v2/cmd/ctr",
                VERSION,
            ),
        ],
    },
    Module {
        dir: "coredns",
        of: "github.com/coredns/coredns",
        programs: &[main(
            "coredns",
            "github.com/coredns/coredns",
            Accept::SameMinor(&["-version"]),
        )],
    },
    Module {
        dir: "network-policy-api",
        of: "sigs.k8s.io/network-policy-api",
        programs: &[file(
            "npa-crd-standard.yaml",
            "config/crd/standard/policy.networking.k8s.io_clusternetworkpolicies.yaml",
            Kind::File,
        )],
    },
];

/// What the upstream tests need besides.
pub const TESTS: &[Module] = &[
    Module {
        dir: "kubernetes",
        of: "k8s.io/kubernetes",
        programs: &[Program {
            name: "e2e.test",
            source: "k8s.io/kubernetes/test/e2e",
            kind: Kind::Tests,
            accept: VERSION,
        }],
    },
    Module {
        dir: "network-policy-api",
        of: "sigs.k8s.io/network-policy-api",
        programs: &[
            file(
                "npa-conformance.test",
                "sigs.k8s.io/network-policy-api/conformance",
                Kind::Tests,
            ),
            file(
                "npa-crd-experimental.yaml",
                "config/crd/experimental/policy.networking.k8s.io_clusternetworkpolicies.yaml",
                Kind::File,
            ),
        ],
    },
];

/// The version of the requirement `module` in the text of a go.mod: `v1.36.3`.
pub fn required<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let line = line.trim();
        let line = line.strip_prefix("require ").unwrap_or(line);
        let mut words = line.split_whitespace();
        let found = words.next()? == module;
        words
            .next()
            .filter(|version| found && version.starts_with('v'))
    })
}

/// The Go version that a go.mod asks for: `1.26.0`.
pub fn go_version(go_mod: &str) -> Option<&str> {
    go_mod
        .lines()
        .find_map(|line| line.strip_prefix("go "))
        .map(str::trim)
}

/// Major and minor of the first version in a text: of `Kubernetes v1.36.3` and `CoreDNS-1.14.7`, not
/// of the `v2` in a module's path.
pub fn version_in(text: &str) -> Option<(u32, u32)> {
    text.split(|c: char| c.is_whitespace() || c == '-' || c == ',')
        .find_map(|word| {
            let mut parts = word.strip_prefix('v').unwrap_or(word).split('.');
            let major = parts.next()?.parse().ok()?;
            let minor = parts.next()?.parse().ok()?;
            Some((major, minor))
        })
}

impl Accept {
    /// Whether a program that said `output` does where `pinned` (`v1.36.3`) is wanted.
    pub fn takes(self, output: &str, pinned: &str) -> bool {
        let Some(found) = version_in(output) else {
            return false;
        };
        match self {
            Self::Built => false,
            Self::SameMinor(_) => version_in(pinned) == Some(found),
            Self::AtLeast(_, least) => found >= least,
        }
    }

    /// What makes a program tell its version.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Built => &[],
            Self::SameMinor(arguments) | Self::AtLeast(arguments, _) => arguments,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Accept, go_version, required, version_in};

    const MOD: &str = "module m\n\ngo 1.26.6\n\nrequire github.com/x/y v1.2.3\nrequire (\n\
        \tk8s.io/kubernetes v1.36.3\n\tk8s.io/api v0.36.3 // indirect\n)\n\
        replace k8s.io/new => k8s.io/new v0.1.0\n";

    #[test]
    fn the_pinned_versions_are_those_of_go_mod() {
        assert_eq!(required(MOD, "k8s.io/kubernetes"), Some("v1.36.3"));
        assert_eq!(required(MOD, "k8s.io/api"), Some("v0.36.3"));
        assert_eq!(required(MOD, "github.com/x/y"), Some("v1.2.3"));
        assert_eq!(required(MOD, "k8s.io/new"), None);
        assert_eq!(required(MOD, "k8s.io"), None);
        assert_eq!(go_version(MOD), Some("1.26.6"));
    }

    #[test]
    fn every_programs_version_is_understood() {
        for (said, version) in [
            ("Kubernetes v1.36.3", (1, 36)),
            (
                "Client Version: v1.36.3\nKustomize Version: v5.8.1",
                (1, 36),
            ),
            (
                "containerd github.com/containerd/containerd/v2 2.4.2+unknown ",
                (2, 4),
            ),
            (
                "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3",
                (1, 6),
            ),
            (
                "containerd-shim-runc-v2:\n  Version:  2.4.2+unknown\n  Go version: go1.26.8",
                (2, 4),
            ),
            (
                "ctr github.com/containerd/containerd/v2 2.4.2+unknown",
                (2, 4),
            ),
            ("CoreDNS-1.14.7\nlinux/amd64, go1.26.8, ", (1, 14)),
            ("etcd Version: 3.4.23\nGit SHA: Not provided", (3, 4)),
        ] {
            assert_eq!(version_in(said), Some(version), "{said}");
        }
        assert_eq!(version_in("usage: x [-v2] ..."), None);
    }

    #[test]
    fn only_the_pinned_minor_does_and_for_etcd_any_newer_one() {
        let same = Accept::SameMinor(&["--version"]);
        assert!(same.takes("Kubernetes v1.36.0", "v1.36.3"));
        assert!(!same.takes("Kubernetes v1.35.9", "v1.36.3"));
        assert!(!same.takes("no such option", "v1.36.3"));
        let least = Accept::AtLeast(&["--version"], (3, 4));
        assert!(least.takes("etcd Version: 3.4.23", "v3.6.8"));
        assert!(least.takes("etcd Version: 4.0.0", "v3.6.8"));
        assert!(!least.takes("etcd Version: 3.3.27", "v3.6.8"));
        assert!(!Accept::Built.takes("v1.36.3", "v1.36.3"));
    }
}
