//! `cargo xtask setup`: finds or installs what the other commands need.
//!
//! Idempotent, and quick when nothing is missing; every other command calls the part it needs.

mod apt;
pub mod debian;
pub mod toolchain;

use anyhow::{Result, bail};

use crate::context::Context;
use crate::step;

/// A program that a command runs, and the Debian package that has it.
struct Tool {
    program: &'static str,
    package: &'static str,
    why: &'static str,
}

/// What the root tests and the demo run besides our own binaries.
const LAB: &[Tool] = &[
    Tool {
        program: "ip",
        package: "iproute2",
        why: "to look at a lab's links and routes",
    },
    Tool {
        program: "ethtool",
        package: "ethtool",
        why: "to switch checksum offload off in tests",
    },
    Tool {
        program: "strace",
        package: "strace",
        why: "to kill the CNI plugin at each system call",
    },
    Tool {
        program: "bpftool",
        package: "bpftool",
        why: "to make maps that an agent must refuse",
    },
];

/// What the benchmark of Services compares with.
const BENCH: &[Tool] = &[
    Tool {
        program: "nft",
        package: "nftables",
        why: "to load the rules of kube-proxy's nftables mode",
    },
    Tool {
        program: "iptables-restore",
        package: "iptables",
        why: "to load the rules of kube-proxy's iptables mode",
    },
];

/// What a cluster runs besides what is built for it, and what its images are made of. Nothing here
/// starts a service when it is installed, as Debian's etcd and containerd would.
const CLUSTER: &[Tool] = &[
    Tool {
        program: "runc",
        package: "runc",
        why: "to run containers",
    },
    Tool {
        program: "busybox",
        package: "busybox-static",
        why: "for images",
    },
    Tool {
        program: "iptables",
        package: "iptables",
        why: "for kubelet, and to compare rules",
    },
    Tool {
        program: "nft",
        package: "nftables",
        why: "to compare rules",
    },
    Tool {
        program: "ip",
        package: "iproute2",
        why: "for agnhost's image",
    },
    Tool {
        program: "bash",
        package: "bash",
        why: "for agnhost's image",
    },
    Tool {
        program: "curl",
        package: "curl",
        why: "for agnhost's image",
    },
    Tool {
        program: "dig",
        package: "bind9-dnsutils",
        why: "for agnhost's image",
    },
    Tool {
        program: "nslookup",
        package: "bind9-dnsutils",
        why: "for agnhost's image",
    },
    Tool {
        program: "iperf",
        package: "iperf",
        why: "for agnhost's image",
    },
    Tool {
        program: "conntrack",
        package: "conntrack",
        why: "for an image of the upstream tests",
    },
    Tool {
        program: "wget",
        package: "wget",
        why: "for agnhost's image",
    },
    Tool {
        program: "nc.openbsd",
        package: "netcat-openbsd",
        why: "for agnhost's image",
    },
];

#[cfg(target_arch = "aarch64")]
const VM: &[Tool] = &[
    Tool {
        program: "qemu-system-aarch64",
        package: "qemu-system-arm",
        why: "to boot old kernels",
    },
    Tool {
        program: "dpkg-deb",
        package: "dpkg",
        why: "to unpack old kernels",
    },
    Tool {
        program: "xz",
        package: "xz-utils",
        why: "to unpack their modules",
    },
];
#[cfg(not(target_arch = "aarch64"))]
const VM: &[Tool] = &[
    Tool {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
        why: "to boot old kernels",
    },
    Tool {
        program: "dpkg-deb",
        package: "dpkg",
        why: "to unpack old kernels",
    },
    Tool {
        program: "xz",
        package: "xz-utils",
        why: "to unpack their modules",
    },
];

/// Everything, as `cargo xtask setup` does.
///
/// # Errors
/// Something is missing and cannot be installed; the error says what to install.
pub fn all(ctx: &Context) -> Result<()> {
    let found = toolchain::ensure(ctx)?;
    step::line(&format!("  eBPF toolchain: {found}"));
    lab(ctx)?;
    bench(ctx)?;
    vm(ctx)?;
    let deny = crate::lint::ensure_deny(ctx)?;
    step::line(&format!("  cargo-deny: {}", deny.display()));
    step::line("setup: everything is there");
    Ok(())
}

/// What the tests and the demo need.
///
/// # Errors
/// See [`all`].
pub fn lab(ctx: &Context) -> Result<()> {
    tools(ctx, LAB)
}

/// What the benchmarks need besides.
///
/// # Errors
/// See [`all`].
pub fn bench(ctx: &Context) -> Result<()> {
    tools(ctx, BENCH)
}

/// What a test cluster needs besides Go.
///
/// # Errors
/// See [`all`].
pub fn cluster(ctx: &Context) -> Result<()> {
    tools(ctx, CLUSTER)
}

/// What `vm-test` needs.
///
/// # Errors
/// See [`all`].
pub fn vm(ctx: &Context) -> Result<()> {
    tools(ctx, VM)
}

fn tools(ctx: &Context, wanted: &[Tool]) -> Result<()> {
    let missing: Vec<&Tool> = wanted
        .iter()
        .filter(|t| which(t.program).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if apt::available() {
        let mut packages: Vec<&str> = missing.iter().map(|t| t.package).collect();
        packages.dedup();
        return apt::install(ctx, &packages);
    }
    let list: Vec<String> = missing
        .iter()
        .map(|t| {
            format!(
                "  {} {} (Debian's package: {})",
                t.program, t.why, t.package
            )
        })
        .collect();
    bail!(
        "this machine has no apt-get; install these by hand and try again:\n{}",
        list.join("\n")
    )
}

/// This machine's architecture as Go and OCI name it.
pub fn oci_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Where `program` is: `PATH`, then the places root's programs live in.
pub fn which(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(Into::into))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}
