//! The command line's words.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Looks into Weir: its state on this node, and what policies do to a flow.
#[derive(Debug, Parser)]
#[command(name = "weir", version, propagate_version = true, max_term_width = 100)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// The whole command tree, for completions and documentation.
pub fn command() -> clap::Command {
    Cli::command()
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show how this node's agent is
    Status(StatusArgs),
    /// Pods' attachments on this node
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Services as this node serves them
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Network policies: list, explain, test
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Put the CNI plugin into the runtime's binary directory, and mount a BPF file system
    ///
    /// Exit status: 0 everything is in its place, 2 error.
    Install(InstallArgs),
    /// Remove everything of Weir from this node: a dry run unless --yes
    ///
    /// Exit status: 0 done (or nothing in the way of --yes), 1 refused, 2 error.
    Cleanup(CleanupArgs),
    /// Show the version
    Version(VersionArgs),
    /// Print a shell's completion script
    Completion(CompletionArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum EndpointCommand {
    /// List this node's endpoints
    List(ListArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// List Services, their frontends and backends
    List(ListArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// List network policies
    List(PolicyListArgs),
    /// Explain what happens to one flow, at both ends, and ask the kernel
    ///
    /// Exit status: 0 allowed, 1 denied, 2 error, 3 intent and kernel disagree.
    Trace(Box<TraceArgs>),
    /// Show which verdicts would change if policies (or pods, or namespaces) were other
    ///
    /// Exit status: 0 nothing changes, 1 something does, 2 error.
    Diff(DiffArgs),
    /// Show who can reach whom, on which ports
    Matrix(MatrixArgs),
    /// Compare every entry of this node's kernel tables with the objects
    ///
    /// Exit status: 0 they agree, 1 they do not, 2 error.
    Verify(VerifyArgs),
    /// Check a list of probes against policies
    ///
    /// Exit status: 0 all hold, 1 one does not, 2 bad input or a probe without an answer.
    Test(TestArgs),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// How to print
    #[arg(
        short,
        long = "output",
        value_name = "FORMAT",
        value_enum,
        default_value = "table"
    )]
    pub output: Format,
}

impl OutputArgs {
    pub fn is_json(&self) -> bool {
        self.output == Format::Json
    }
}

#[derive(Debug, Args)]
pub(super) struct SocketArgs {
    /// The agent's socket
    #[arg(long, value_name = "PATH", env = "WEIR_SOCKET", default_value = weir_api::DEFAULT_SOCKET)]
    pub socket: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub socket: SocketArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct NamespaceArgs {
    /// Only this namespace
    #[arg(short, long, value_name = "NS", conflicts_with = "all_namespaces")]
    pub namespace: Option<String>,
    /// All namespaces (the default)
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

impl NamespaceArgs {
    pub fn includes(&self, namespace: &str) -> bool {
        self.namespace
            .as_deref()
            .is_none_or(|wanted| wanted == namespace)
    }
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub namespace: NamespaceArgs,
    #[command(flatten)]
    pub socket: SocketArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct ManifestArgs {
    /// Read objects from a file or directory instead of the agent; needs no root
    #[arg(short = 'f', long, value_name = "FILE|DIR")]
    pub manifests: Option<PathBuf>,
    /// Fail on kinds and fields of the manifests that are not needed
    #[arg(long, requires = "manifests")]
    pub strict: bool,
    /// List kinds and fields of the manifests that were passed over
    #[arg(long, requires = "manifests")]
    pub show_ignored: bool,
}

#[derive(Debug, Args)]
pub(super) struct PolicyListArgs {
    #[command(flatten)]
    pub namespace: NamespaceArgs,
    #[command(flatten)]
    pub manifests: ManifestArgs,
    #[command(flatten)]
    pub socket: SocketArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// YAML or JSON list of {from, to, port, protocol, allow}; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    pub probes: PathBuf,
    /// Namespace of names without one
    #[arg(short, long, value_name = "NS", default_value = "default")]
    pub namespace: String,
    #[command(flatten)]
    pub manifests: ManifestArgs,
    #[command(flatten)]
    pub socket: SocketArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// Add or replace the objects of a file or directory; repeatable
    #[arg(long, value_name = "FILE|DIR")]
    pub with: Vec<PathBuf>,
    /// Take a policy away; repeatable
    #[arg(long, value_name = "NS/NAME|NAME", required_unless_present = "with")]
    pub without: Vec<String>,
    /// Name all ends, and what decides before the change as well
    #[arg(short, long)]
    pub verbose: bool,
    #[command(flatten)]
    pub manifests: ManifestArgs,
    #[command(flatten)]
    pub socket: SocketArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How a matrix is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum MatrixFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For spreadsheets.
    Csv,
    /// For Graphviz.
    Dot,
    /// A picture.
    Svg,
}

#[derive(Debug, Args)]
pub(super) struct MatrixArgs {
    #[command(flatten)]
    pub namespace: NamespaceArgs,
    /// Tell all ports exactly, not only those that the targets declare
    #[arg(long)]
    pub ports: bool,
    /// The same as --ports
    #[arg(short, long)]
    pub verbose: bool,
    #[command(flatten)]
    pub manifests: ManifestArgs,
    #[command(flatten)]
    pub socket: SocketArgs,
    /// How to print
    #[arg(
        short,
        long = "output",
        value_name = "FORMAT",
        value_enum,
        default_value = "table"
    )]
    pub output: MatrixFormat,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Where the maps are pinned [default: /sys/fs/bpf/weir]
    #[arg(long, value_name = "DIR")]
    pub bpffs: Option<PathBuf>,
    /// Stop after so many flows
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// List every disagreement
    #[arg(short, long)]
    pub verbose: bool,
    #[command(flatten)]
    pub manifests: ManifestArgs,
    #[command(flatten)]
    pub socket: SocketArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    /// Source: NS/POD, NS/WORKLOAD, node:NAME, ip:ADDR or an address
    #[arg(value_name = "FROM", required_unless_present = "from_flag")]
    pub from: Option<String>,
    /// Destination: as FROM, or svc:NS/NAME
    #[arg(value_name = "TO", required_unless_present = "to_flag")]
    pub to: Option<String>,
    /// The same as FROM
    #[arg(long = "from", id = "from_flag", value_name = "FROM", requires = "to_flag", conflicts_with_all = ["from", "to"])]
    pub from_flag: Option<String>,
    /// The same as TO
    #[arg(long = "to", id = "to_flag", value_name = "TO", requires = "from_flag")]
    pub to_flag: Option<String>,
    /// Destination port: a number or a name, TCP unless it says otherwise
    #[arg(short, long, value_name = "N|NAME[/tcp|udp|sctp]")]
    pub port: Option<String>,
    /// tcp, udp, sctp or icmp
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<String>,
    /// IPv4 or IPv6; by default the first that both ends have, IPv4 first
    #[arg(long, value_name = "FAMILY")]
    pub family: Option<String>,
    /// `reply`: FROM answers a connection that TO opened, whose port and protocol are given
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,
    /// With svc: the one backend to look at
    #[arg(long, value_name = "NS/POD")]
    pub backend: Option<String>,
    /// Namespace of names without one
    #[arg(short, long, value_name = "NS", default_value = "default")]
    pub namespace: String,
    #[command(flatten)]
    pub manifests: ManifestArgs,
    /// This node's agent, or with NODE= another node's; repeatable
    #[arg(long, value_name = "[NODE=]PATH")]
    pub socket: Vec<String>,
    /// Where the maps are pinned, read while the agent is down [default: /sys/fs/bpf/weir]
    #[arg(long, value_name = "DIR")]
    pub bpffs: Option<PathBuf>,
    /// Also run the connection's first packet through the loaded programs, and leave no trace of it
    #[arg(long)]
    pub live: bool,
    /// With --live: the packet's source port, to ask about a flow that exists [default: an unused one]
    #[arg(long, value_name = "N", requires = "live")]
    pub source_port: Option<u16>,
    /// Fail if an end's kernel could not be asked
    #[arg(long)]
    pub require_kernel: bool,
    /// Show every rule, however many lines it takes
    #[arg(short, long)]
    pub verbose: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct InstallArgs {
    /// The runtime's directory of CNI plugins, such as /opt/cni/bin
    #[arg(long, value_name = "DIR")]
    pub bin_dir: PathBuf,
    /// Mount a BPF file system here if there is none, such as /sys/fs/bpf
    #[arg(long, value_name = "DIR")]
    pub bpffs: Option<PathBuf>,
    /// The plugin to install [default: weir-cni beside this program]
    #[arg(long, value_name = "FILE")]
    pub plugin: Option<PathBuf>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct CleanupArgs {
    /// Remove, instead of only showing what there is
    #[arg(long)]
    pub yes: bool,
    /// Also while pods are attached, which lose their network
    #[arg(long)]
    pub force: bool,
    /// Weir's folder in the BPF file system
    #[arg(long, value_name = "DIR", default_value = weir_api::DEFAULT_BPFFS)]
    pub bpffs: PathBuf,
    /// The agent's state directory
    #[arg(long, value_name = "DIR", default_value = weir_api::DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
    /// The runtime's directory of CNI configurations
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// Weir's file there
    #[arg(long, value_name = "NAME", default_value = "05-weir.conflist")]
    pub cni_conf_name: String,
    /// The runtime's directory of CNI plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub bin_dir: PathBuf,
    #[command(flatten)]
    pub socket: SocketArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct CompletionArgs {
    /// Which shell
    #[arg(value_enum)]
    pub shell: Shell,
}
