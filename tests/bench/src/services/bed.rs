//! Nodes to send traffic over: one with Weir's agent, and three that only route between two
//! namespaces, for no rules at all and the rules of kube-proxy in its two shapes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use weir_lab::control::Control;
use weir_lab::spawn::{self, Place};
use weir_lab::{Lab, Node, Pod, PodSpec, cgroup};

use super::peer::{Order, Report};
use super::world::TARGET;

/// Which node is which.
pub const WEIR: usize = 0;
const PLAIN: usize = 1;
pub const NFTABLES: usize = 2;
const IPTABLES: usize = 3;

/// The lab with everything that traffic needs.
pub struct Bed {
    pub lab: Lab,
    /// The address of the server on Weir's node.
    pub pod: Ipv4Addr,
    pub covered: Client,
    pub uncovered: Client,
    pub plain: Router,
    pub nftables: Router,
    pub iptables: Router,
    /// Kept so that they live.
    _ends: (Vec<Arc<Pod>>, Running),
}

/// A node that routes between a client's and a server's namespace.
pub struct Router {
    pub rules: Rules,
    pub client: Client,
    _ends: ([Arc<Control>; 2], Running),
}

/// The server's address behind each router.
pub const BEHIND: Ipv4Addr = Ipv4Addr::new(10, 244, 8, 2);

/// A started peer, and the cgroup it is alone in.
pub struct Running {
    child: Child,
    cgroup: PathBuf,
    _stdin: Option<ChildStdin>,
    out: BufReader<ChildStdout>,
}

impl Drop for Running {
    fn drop(&mut self) {
        spawn::kill(&mut self.child);
    }
}

impl Running {
    fn start(args: &[String], place: Place, cgroup: PathBuf) -> Result<Self> {
        cgroup::create(&cgroup)?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = spawn::spawn(command, place.in_cgroup(&cgroup)?)?;
        let stdin = child.stdin.take();
        let out = child.stdout.take().context("no standard output")?;
        let mut running = Self {
            child,
            cgroup,
            _stdin: stdin,
            out: BufReader::new(out),
        };
        ensure!(running.line()? == "ready", "a peer did not start");
        Ok(running)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.out.read_line(&mut line)?;
        ensure!(!line.is_empty(), "a peer has ended (see its message above)");
        Ok(line.trim_end().to_owned())
    }
}

/// Processor time that a cgroup has used, microseconds.
fn used_by(cgroup: &Path) -> Result<f64> {
    let path = cgroup.join("cpu.stat");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let usage = text.lines().find_map(|l| l.strip_prefix("usage_usec "));
    let usage = usage.with_context(|| format!("no usage_usec in {}", path.display()))?;
    Ok(usage.parse()?)
}

/// The kernel's thread that takes packets over from whoever sent them while others want the
/// processor, too.
fn ksoftirqd(cpu: usize) -> Result<PathBuf> {
    let name = format!("ksoftirqd/{cpu}");
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let comm = std::fs::read_to_string(path.join("comm"));
        if comm.is_ok_and(|comm| comm.trim_end() == name) {
            return Ok(path.join("schedstat"));
        }
    }
    bail!("there is no {name}: is /proc that of the machine?")
}

/// A client with the server's account beside its own.
pub struct Client {
    running: Running,
    server: PathBuf,
    ksoftirqd: PathBuf,
}

/// One run of a client.
pub struct Measured {
    /// Client, server and kernel, microseconds an operation.
    pub cpu: f64,
    pub report: Report,
}

impl Client {
    /// Runs an order.
    pub fn run(&mut self, order: &Order) -> Result<Measured> {
        let before = self.used()?;
        let stdin = self.running._stdin.as_mut().context("no standard input")?;
        writeln!(stdin, "{}", serde_json::to_string(order)?)?;
        let report = self.running.line().with_context(|| format!("{order:?}"))?;
        let report = serde_json::from_str(&report)?;
        let cpu = (self.used()? - before) / f64::from(order.count);
        Ok(Measured { cpu, report })
    }

    fn used(&self) -> Result<f64> {
        let text = std::fs::read_to_string(&self.ksoftirqd)?;
        let nanos: f64 = text.split(' ').next().unwrap_or_default().parse()?;
        Ok(used_by(&self.server)? + used_by(&self.running.cgroup)? + nanos / 1e3)
    }
}

impl Bed {
    /// Makes it; both ends of all traffic are on processor `cpu`.
    pub fn new(cpu: usize) -> Result<Self> {
        let lab = Lab::builder().nodes(4).without_agents().start()?;
        lab.nodes[WEIR].start_agent()?;
        let pod = |name: &str, covered| {
            let mut spec = PodSpec::new("bench", name, WEIR);
            spec.covered = covered;
            lab.add_pod(&spec)
        };
        let (server, covered, uncovered) = (
            pod("server", true)?,
            pod("covered", true)?,
            pod("uncovered", false)?,
        );
        let std::net::IpAddr::V4(address) = server.v4() else {
            bail!("the pod has no IPv4 address");
        };
        let home = |covered| -> PathBuf {
            if covered {
                lab.nodes[WEIR].cgroup.join("pods")
            } else {
                lab.cgroup().join("uncovered")
            }
        };
        let serving = home(false).join("weir-server");
        let running = Running::start(&server_args(cpu), server.place()?, serving.clone())?;
        let client = |pod: &Pod, name: &str, covered| -> Result<Client> {
            let own = home(covered).join(name);
            Ok(Client {
                running: Running::start(&client_args(cpu), pod.place()?, own)?,
                server: serving.clone(),
                ksoftirqd: ksoftirqd(cpu)?,
            })
        };
        Ok(Self {
            pod: address,
            covered: client(&covered, "weir-covered", true)?,
            uncovered: client(&uncovered, "weir-uncovered", false)?,
            plain: Router::new(&lab, PLAIN, cpu)?,
            nftables: Router::new(&lab, NFTABLES, cpu)?,
            iptables: Router::new(&lab, IPTABLES, cpu)?,
            _ends: (vec![server, covered, uncovered], running),
            lab,
        })
    }
}

fn server_args(cpu: usize) -> Vec<String> {
    [
        "services-server",
        "--port",
        &TARGET.to_string(),
        "--cpu",
        &cpu.to_string(),
    ]
    .map(str::to_owned)
    .to_vec()
}

fn client_args(cpu: usize) -> Vec<String> {
    ["services-client", "--cpu", &cpu.to_string()]
        .map(str::to_owned)
        .to_vec()
}

/// A namespace behind a node that only routes, in the subnet 10.244.`subnet`.0/24: the node has .1 on
/// the device `name`, the namespace .2 on its `eth0`.
pub fn behind(lab: &Lab, node: usize, name: &str, subnet: u8) -> Result<Arc<Control>> {
    let place = lab.nodes[node].place();
    let inside = Place {
        net: None,
        ..place.clone()
    }
    .with_new_net()
    .in_cgroup(&lab.cgroup().join("uncovered"))?;
    let control = Control::start(&format!("bench/{name}"), inside)?;
    // It answers only once it is in its namespace.
    control.listen(&[])?;
    let pid = control.pid().to_string();
    ip(
        &place,
        &format!("link add {name} type veth peer name eth0 netns {pid}"),
    )?;
    ip(&place, &format!("addr add 10.244.{subnet}.1/24 dev {name}"))?;
    ip(&place, &format!("link set {name} up"))?;
    let inside = Place::of_process(control.pid())?;
    for args in [
        format!("addr add 10.244.{subnet}.2/24 dev eth0"),
        "link set eth0 up".to_owned(),
        format!("route add default via 10.244.{subnet}.1"),
    ] {
        ip(&inside, &args)?;
    }
    Ok(Arc::new(control))
}

/// Lets a node that has no agent route.
pub fn forward(place: &Place) -> Result<()> {
    let args = ["-qw", "net.ipv4.ip_forward=1"];
    run(place, "sysctl", &args, b"", LIMIT).map(drop)
}

/// ip(8) in a place; the arguments have no spaces within.
pub fn ip(place: &Place, args: &str) -> Result<()> {
    let args: Vec<&str> = args.split(' ').collect();
    run(place, "ip", &args, b"", LIMIT).map(drop)
}

impl Router {
    fn new(lab: &Lab, node: usize, cpu: usize) -> Result<Self> {
        forward(&lab.nodes[node].place())?;
        let home = lab.cgroup().join("uncovered");
        let ends = [
            behind(lab, node, "server", 8)?,
            behind(lab, node, "client", 9)?,
        ];
        let serving = home.join(format!("router-server-{node}"));
        let at = |end: &Control| Place::of_process(end.pid());
        let server = Running::start(&server_args(cpu), at(&ends[0])?, serving.clone())?;
        let own = home.join(format!("router-client-{node}"));
        let client = Client {
            running: Running::start(&client_args(cpu), at(&ends[1])?, own)?,
            server: serving,
            ksoftirqd: ksoftirqd(cpu)?,
        };
        Ok(Self {
            rules: Rules { node },
            client,
            _ends: (ends, server),
        })
    }
}

/// The packet filter of a node that has no agent.
pub struct Rules {
    pub node: usize,
}

impl Rules {
    /// Replaces its rules by what `program` makes of `text`; how long that took, or none if it took
    /// longer than `limit` (and there are no rules then).
    pub fn load(
        &self,
        lab: &Lab,
        program: &[&str],
        text: &str,
        limit: Duration,
    ) -> Result<Option<Duration>> {
        let place = rules_place(&lab.nodes[self.node])?;
        run(&place, "nft", &["flush", "ruleset"], b"", LIMIT)?;
        let start = Instant::now();
        match run(&place, program[0], &program[1..], text.as_bytes(), limit)? {
            Ended::Well => Ok(Some(start.elapsed())),
            Ended::TooLong => {
                run(&place, "nft", &["flush", "ruleset"], b"", LIMIT)?;
                Ok(None)
            }
        }
    }

    /// One more transaction; how long it took.
    pub fn change(&self, lab: &Lab, text: &str) -> Result<Duration> {
        let place = rules_place(&lab.nodes[self.node])?;
        let start = Instant::now();
        run(&place, "nft", &["-f", "-"], text.as_bytes(), LIMIT)?;
        Ok(start.elapsed())
    }
}

fn rules_place(node: &Node) -> Result<Place> {
    node.place().in_cgroup(&node.cgroup.join("host"))
}

/// How long a command without rules may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How a bounded command ended.
#[derive(PartialEq, Eq)]
enum Ended {
    Well,
    TooLong,
}

fn run(
    place: &Place,
    program: &str,
    args: &[&str],
    input: &[u8],
    limit: Duration,
) -> Result<Ended> {
    let mut command = Command::new("timeout");
    command
        .args([
            "--signal=KILL",
            &limit.as_secs().max(1).to_string(),
            program,
        ])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = spawn::spawn(command, place.clone())?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that is stopped half way does not read the rest.
        let _ = stdin.write_all(input);
    }
    let done = child.wait_with_output()?;
    // timeout(1) kills itself as well, with the signal that it was told.
    if done.status.code().is_none_or(|code| code == 137) {
        return Ok(Ended::TooLong);
    }
    ensure!(
        done.status.success(),
        "{program} {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(Ended::Well)
}
