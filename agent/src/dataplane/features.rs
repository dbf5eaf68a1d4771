//! What this kernel can do, and what Weir makes of it.

use std::{fs, path::Path};

use weir_api::status::Feature;
use weir_net::sock_diag::{Protocol, SockDiag};

use super::Error;

/// Weir's floor.
const FLOOR: (u32, u32) = (6, 1);

/// A kernel's version, `major.minor`.
pub type Version = (u32, u32);

/// The kernel's features as found at start.
#[derive(Clone, Debug)]
pub struct Features {
    /// As `uname -r` says.
    pub release: String,
    /// Programs are attached by tcx links; otherwise by clsact filters.
    pub tcx: bool,
    /// Sockets of TCP and UDP can be closed (`SOCK_DESTROY`).
    pub sock_destroy: bool,
    list: Vec<Feature>,
}

impl Features {
    /// Looks at the kernel.
    ///
    /// # Errors
    /// It is below the floor.
    pub fn detect() -> Result<Self, Error> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_err(|e| Error::Object(format!("/proc/sys/kernel/osrelease: {e}")))?;
        let sctp = fs::read_to_string("/proc/net/protocols").is_ok_and(|p| p.contains("SCTP"));
        let ipv6 = Path::new("/proc/sys/net/ipv6").exists();
        let btf = Path::new("/sys/kernel/btf/vmlinux").exists();
        Self::of(release.trim(), btf, ipv6, sctp, can_destroy())
    }

    fn of(
        release: &str,
        btf: bool,
        ipv6: bool,
        sctp: bool,
        sock_destroy: bool,
    ) -> Result<Self, Error> {
        let version = parse_version(release);
        if version < FLOOR {
            return Err(Error::Kernel {
                found: release.to_owned(),
                floor: "6.1",
                feature: "bpf_set_retval in socket hooks, and bounded loops the verifier accepts",
            });
        }
        let tcx = version >= (6, 6);
        let mut list = vec![
            feature(
                "btf",
                if btf { "used" } else { "missing" },
                "CONFIG_DEBUG_INFO_BTF; only debugging is poorer without",
            ),
            feature(
                "cgroup-sock-addr",
                "used",
                "Service translation at connect()",
            ),
            feature(
                "ipv6",
                if ipv6 { "used" } else { "missing" },
                "IPv6 in this network namespace",
            ),
            feature("redirect-peer", "used", "delivery straight into the pod"),
            feature(
                "sctp",
                if sctp { "used" } else { "missing" },
                "the kernel's own SCTP; packets are judged all the same",
            ),
            feature(
                "sock-destroy",
                if sock_destroy { "used" } else { "missing" },
                "CONFIG_INET_DIAG_DESTROY, tcp_diag, udp_diag; without, sockets stay connected to removed backends",
            ),
            feature(
                "tcx",
                if tcx { "used" } else { "fallback" },
                if tcx {
                    "ordered, pinned links"
                } else {
                    "clsact filters at priority 1 (tcx: Linux 6.6)"
                },
            ),
        ];
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            release: release.to_owned(),
            tcx,
            sock_destroy,
            list,
        })
    }

    /// For `GET /v1/status`, sorted by name.
    pub fn list(&self) -> &[Feature] {
        &self.list
    }
}

/// Whether sockets of both protocols can be closed; what cannot be found out is taken for a no.
fn can_destroy() -> bool {
    let both = || -> weir_net::Result<bool> {
        let diag = SockDiag::open()?;
        Ok(diag.can_destroy(Protocol::Tcp)? && diag.can_destroy(Protocol::Udp)?)
    };
    both().unwrap_or_else(|e| {
        tracing::debug!("looking for SOCK_DESTROY: {e}");
        false
    })
}

fn feature(name: &str, state: &str, detail: &str) -> Feature {
    Feature {
        name: name.into(),
        state: state.into(),
        detail: detail.into(),
    }
}

/// `6.18.5-cloud` → (6, 18); what does not parse is (0, 0).
fn parse_version(release: &str) -> Version {
    let mut parts = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(features: &Features, name: &str) -> String {
        features
            .list()
            .iter()
            .find(|f| f.name == name)
            .unwrap()
            .state
            .clone()
    }

    #[test]
    fn a_kernel_below_the_floor_is_refused_by_version_and_feature() {
        let error = Features::of("5.15.0-91-generic", true, true, true, true)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("5.15.0-91-generic") && error.contains("6.1"),
            "{error}"
        );
        assert!(error.contains("bpf_set_retval"), "{error}");
    }

    #[test]
    fn tcx_is_used_from_6_6_and_replaced_by_clsact_before() {
        let old = Features::of("6.1.0-49-cloud-amd64", true, true, false, false).unwrap();
        assert!(!old.tcx);
        assert_eq!(state(&old, "tcx"), "fallback");
        assert_eq!(state(&old, "sctp"), "missing");
        assert_eq!(state(&old, "sock-destroy"), "missing");
        let new = Features::of("6.18.5", true, true, true, true).unwrap();
        assert!(new.tcx);
        assert_eq!(state(&new, "tcx"), "used");
        assert_eq!(state(&new, "sock-destroy"), "used");
    }

    #[test]
    fn the_list_is_sorted_and_each_says_used_fallback_or_missing() {
        let features = Features::of("6.6.0", false, false, false, false).unwrap();
        let names: Vec<_> = features.list().iter().map(|f| f.name.as_str()).collect();
        assert!(names.is_sorted());
        for f in features.list() {
            assert!(["used", "fallback", "missing"].contains(&f.state.as_str()));
        }
    }
}
