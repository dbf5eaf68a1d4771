//! A process, a cgroup and a network namespace for each test; Services through the agent's own
//! compiler and planner into the maps of a freshly loaded object.

use std::ffi::CString;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie};
use aya::programs::{CgroupAttachMode, CgroupSock, CgroupSockAddr, CgroupSockAddrAttachType as At};
use serde_json::json;
use weir_abi::map;
use weir_abi::service::{Backend, RangeKey, Service, ServiceKey, Slot};
use weir_abi::sock::SockConn;
use weir_agent::compile::service::{ServiceActual, ServiceIndex, ServiceWrite, plan};
use weir_net::Netlink;

/// Names the test's cgroup to the process that runs its body.
const CGROUP: &str = "WEIR_TEST_SOCK_CGROUP";

/// How a client's socket names its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
    /// An IPv6 socket that dials `::ffff:a.b.c.d`.
    Mapped,
}

impl Family {
    /// A frontend's address; `n` from 1.
    pub fn vip(self, n: u8) -> IpAddr {
        match self {
            Self::V4 | Self::Mapped => Ipv4Addr::new(10, 96, 0, n).into(),
            Self::V6 => Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, n.into()).into(),
        }
    }

    /// A backend's address; `n` from 1 to [`BACKENDS`].
    pub fn pod(self, n: u8) -> IpAddr {
        match self {
            Self::V4 | Self::Mapped => Ipv4Addr::new(10, 1, 0, n).into(),
            Self::V6 => Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, n.into()).into(),
        }
    }

    /// An address as this family's sockets dial and see it.
    pub fn dialled(self, ip: IpAddr, port: u16) -> SocketAddr {
        match (self, ip) {
            (Self::Mapped, IpAddr::V4(v4)) => SocketAddr::new(v4.to_ipv6_mapped().into(), port),
            _ => SocketAddr::new(ip, port),
        }
    }

    /// The wildcard address that this family's sockets bind to.
    pub fn any(self) -> SocketAddr {
        match self {
            Self::V4 => (Ipv4Addr::UNSPECIFIED, 0).into(),
            Self::V6 | Self::Mapped => (Ipv6Addr::UNSPECIFIED, 0).into(),
        }
    }
}

/// How many backend addresses the namespace has, per family.
pub const BACKENDS: u8 = 6;

/// Removes the test's cgroup.
struct Cgroup(PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The one process in it has been waited for.
        let _ = fs::remove_dir(&self.0);
    }
}

/// Runs the calling test's body in a process in a cgroup and a network namespace of its own.
pub fn isolated(body: impl FnOnce()) {
    if std::env::var_os(CGROUP).is_some() {
        populate();
        return body();
    }
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let test = std::thread::current()
        .name()
        .expect("tests run in named threads")
        .to_owned();
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let root = weir_agent::dataplane::cgroup::mount_root().unwrap();
    let cgroup = Cgroup(root.join(format!("weir-sock-{}-{number}", std::process::id())));
    fs::create_dir(&cgroup.0)
        .unwrap_or_else(|e| panic!("creating {} (as root?): {e}", cgroup.0.display()));
    let procs = CString::new(cgroup.0.join("cgroup.procs").to_str().unwrap()).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([&test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CGROUP, &cgroup.0);
    // SAFETY: between fork and exec only system calls are made, with what was allocated before.
    unsafe {
        command.pre_exec(move || {
            let checked = |result: i32| match result {
                -1 => Err(std::io::Error::last_os_error()),
                other => Ok(other),
            };
            checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            checked(libc::unshare(libc::CLONE_NEWNET))?;
            let fd = checked(libc::open(procs.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC))?;
            match libc::write(fd, c"0".as_ptr().cast(), 1) {
                1 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let output = command
        .output()
        .expect("running the test in its own process");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("1 passed"), "the test did not run: {text}");
}

/// Gives the namespace its loopback device and [`BACKENDS`] addresses of each family, no route.
fn populate() {
    let netlink = Netlink::open().unwrap();
    let lo = netlink.link("lo").unwrap().index;
    netlink.set_up(lo).unwrap();
    for family in [Family::V4, Family::V6] {
        for n in 1..=BACKENDS {
            netlink.add_address(lo, family.pod(n).into()).unwrap();
        }
    }
}

/// The loaded and attached programs, and the Services in their maps.
pub struct Rig {
    pub ebpf: Ebpf,
    pub services: ServiceIndex,
    actual: ServiceActual,
}

/// Loads the object and attaches its socket programs to a cgroup, by links that go with the value.
pub fn attach(cgroup: &Path) -> Ebpf {
    let object = weir_agent::dataplane::object::bytes(None).unwrap();
    let mut ebpf = Ebpf::load(&object).unwrap();
    let cgroup = File::open(cgroup).unwrap();
    for (name, _) in HOOKS {
        let program: &mut CgroupSockAddr = ebpf.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap_or_else(|e| panic!("{name}: {e:?}"));
        program.attach(&cgroup, CgroupAttachMode::Single).unwrap();
    }
    let release: &mut CgroupSock = ebpf
        .program_mut("sock_release")
        .unwrap()
        .try_into()
        .unwrap();
    release
        .load()
        .unwrap_or_else(|e| panic!("sock_release: {e:?}"));
    release.attach(&cgroup, CgroupAttachMode::Single).unwrap();
    ebpf
}

/// The socket programs, and where they belong.
pub const HOOKS: [(&str, At); 8] = [
    ("sock_connect4", At::Connect4),
    ("sock_connect6", At::Connect6),
    ("sock_sendmsg4", At::UDPSendMsg4),
    ("sock_sendmsg6", At::UDPSendMsg6),
    ("sock_recvmsg4", At::UDPRecvMsg4),
    ("sock_recvmsg6", At::UDPRecvMsg6),
    ("sock_getpeername4", At::GetPeerName4),
    ("sock_getpeername6", At::GetPeerName6),
];

/// The test's cgroup.
pub fn cgroup() -> PathBuf {
    PathBuf::from(std::env::var_os(CGROUP).unwrap())
}

impl Rig {
    /// The programs, attached to the test's cgroup, and no Service yet.
    pub fn new() -> Self {
        let services = ServiceIndex::default();
        let actual = ServiceActual::default();
        Self {
            ebpf: attach(&cgroup()),
            services,
            actual,
        }
    }

    /// A Service on `vip(n)`, TCP and UDP `PORT` → `TARGET`, with these backends.
    pub fn serve(&mut self, family: Family, n: u8, backends: &[u8]) {
        let ports = |port: u16| {
            json!([
                {"name": "t", "port": port, "protocol": "TCP"},
                {"name": "u", "port": port, "protocol": "UDP"},
            ])
        };
        let service = json!({
            "metadata": {"name": format!("s{n}")},
            "spec": {"clusterIPs": [family.vip(n)], "ports": ports(PORT)},
        });
        self.services
            .apply_service(&serde_json::from_value(service).unwrap());
        let endpoints: Vec<_> = backends
            .iter()
            .map(|b| json!({"addresses": [family.pod(*b)]}))
            .collect();
        let slice = json!({
            "metadata": {
                "name": format!("s{n}-1"),
                "labels": {"kubernetes.io/service-name": format!("s{n}")},
            },
            "addressType": if family == Family::V6 { "IPv6" } else { "IPv4" },
            "ports": ports(TARGET),
            "endpoints": endpoints,
        });
        self.services
            .apply_slice(&serde_json::from_value(slice).unwrap());
        assert_eq!(self.services.problems(), []);
        self.program();
    }

    /// Writes what the Services need, as the agent does.
    fn program(&mut self) {
        let plan = plan(&self.actual, self.services.desired(), None);
        for write in plan.writes() {
            self.perform(write);
            self.actual.apply(write);
        }
    }

    fn perform(&mut self, write: &ServiceWrite) {
        match write {
            ServiceWrite::PutBackend(k, v) => self.array::<Backend>(map::BACKENDS).set(k.0, v, 0),
            ServiceWrite::DeleteBackend(k) => {
                let none = Backend::default();
                self.array::<Backend>(map::BACKENDS).set(k.0, none, 0)
            }
            ServiceWrite::PutSet(set, slots) => {
                let mut array = self.array::<Slot>(map::SLOTS);
                let mut numbered = (set.0..).zip(slots);
                numbered.try_for_each(|(at, slot)| array.set(at, slot, 0))
            }
            ServiceWrite::DeleteSet(set, len) => {
                let mut array = self.array::<Slot>(map::SLOTS);
                (set.0..set.0 + len).try_for_each(|at| array.set(at, Slot::default(), 0))
            }
            ServiceWrite::PutService(k, v) => self
                .map::<ServiceKey, Service>(map::SERVICES)
                .insert(k, v, 0),
            ServiceWrite::PutRanges(_, keys) => {
                let mut trie = self.ranges();
                keys.iter().try_for_each(|k| trie.insert(&range(k), 1, 0))
            }
            ServiceWrite::DeleteRanges(_, keys) => {
                let mut trie = self.ranges();
                keys.iter().try_for_each(|k| trie.remove(&range(k)))
            }
            ServiceWrite::DeleteService(k) => {
                self.map::<ServiceKey, Service>(map::SERVICES).remove(k)
            }
        }
        .unwrap();
    }

    /// A hash map of the object.
    pub fn map<K: aya::Pod, V: aya::Pod>(
        &mut self,
        name: &str,
    ) -> HashMap<&mut aya::maps::MapData, K, V> {
        self.ebpf.map_mut(name).unwrap().try_into().unwrap()
    }

    fn array<V: aya::Pod>(&mut self, name: &str) -> Array<&mut aya::maps::MapData, V> {
        self.ebpf.map_mut(name).unwrap().try_into().unwrap()
    }

    fn ranges(&mut self) -> LpmTrie<&mut aya::maps::MapData, [u32; 6], u32> {
        let map = self.ebpf.map_mut(map::SOURCE_RANGES).unwrap();
        map.try_into().unwrap()
    }

    /// How many connected sockets the programs remember.
    pub fn connections(&mut self) -> usize {
        self.map::<u64, SockConn>(map::SOCK_CONNS).keys().count()
    }
}

/// The Services' port.
pub const PORT: u16 = 80;
/// Where their backends listen.
pub const TARGET: u16 = 8080;

fn range(key: &RangeKey) -> Key<[u32; 6]> {
    let [a, b, c, d] = key.addr;
    Key::new(key.prefix_len, [key.ranges, key.family, a, b, c, d])
}
