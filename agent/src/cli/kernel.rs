//! What the kernel's maps say, by way of the nodes' agents or, with this node's agent down, of the
//! pinned maps.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use weir_api::client::{Client, ClientError};
use weir_api::error::Reason;
use weir_api::live::{LiveAnswer, LiveRequest};
use weir_api::verdict::{KernelVerdict, VerdictRequest};

use crate::dataplane::{Error, Live, PinnedView};

/// An answer about one end, or why there is none.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// The maps' verdict.
    Verdict(KernelVerdict),
    /// There was no one to ask, or it is no endpoint of the node asked.
    NotAsked(String),
}

/// The maps of one node.
pub(super) trait KernelView {
    /// What the maps say of a flow at one of the node's endpoints.
    fn verdict(&self, request: &VerdictRequest) -> Said;
    /// What its programs do with a packet, or why that is not known.
    fn live(&self, request: &LiveRequest) -> Result<LiveAnswer, String>;
}

/// An agent that answers on a socket.
pub(super) struct Agent(pub Client);

impl KernelView for Agent {
    fn verdict(&self, request: &VerdictRequest) -> Said {
        match self.0.verdict(request) {
            Ok(verdict) => Said::Verdict(verdict),
            Err(ClientError::Api(error)) if error.reason == Reason::NotFound => {
                Said::NotAsked(format!("{} is no endpoint there", request.endpoint))
            }
            Err(error) => Said::NotAsked(error.to_string()),
        }
    }

    fn live(&self, request: &LiveRequest) -> Result<LiveAnswer, String> {
        self.0.live(request).map_err(|error| error.to_string())
    }
}

/// What is pinned on this node, whose agent is down.
struct Pinned {
    maps: PinnedView,
    bpffs: PathBuf,
    /// Loaded when it is first asked for.
    live: RefCell<Option<Live>>,
}

impl Pinned {
    fn open(bpffs: &Path) -> Result<Self, Error> {
        Ok(Self {
            maps: PinnedView::open(bpffs)?,
            bpffs: bpffs.to_owned(),
            live: RefCell::default(),
        })
    }
}

impl KernelView for Pinned {
    fn verdict(&self, request: &VerdictRequest) -> Said {
        match self.maps.verdict(request) {
            Ok(Some(verdict)) => Said::Verdict(verdict),
            Ok(None) => Said::NotAsked(format!("{} is no endpoint here", request.endpoint)),
            Err(error) => Said::NotAsked(error.to_string()),
        }
    }

    fn live(&self, request: &LiveRequest) -> Result<LiveAnswer, String> {
        let mut live = self.live.borrow_mut();
        let live = match &mut *live {
            Some(live) => live,
            none => none.insert(Live::open(&self.bpffs).map_err(|e| e.to_string())?),
        };
        live.ask(request).map_err(|error| error.to_string())
    }
}

/// Whom to ask.
pub(super) struct Kernels {
    /// By node.
    named: BTreeMap<String, Box<dyn KernelView>>,
    /// This node's, and its name if its agent is up.
    here: Option<(Option<String>, Box<dyn KernelView>)>,
    /// Why this node's was not to be had.
    problem: Option<String>,
}

/// What the command line says of the kernel.
#[derive(Clone, Debug, Default)]
pub(super) struct Sockets {
    pub named: BTreeMap<String, PathBuf>,
    pub here: Option<PathBuf>,
}

impl Sockets {
    /// Each is `PATH` (this node's agent) or `NODE=PATH`.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut sockets = Self::default();
        for argument in arguments {
            let (node, path) = match argument.split_once('=') {
                Some((node, path)) => (Some(node), path),
                None => (None, argument.as_str()),
            };
            let path_and_node = !path.is_empty() && node != Some("");
            let taken = match node {
                _ if !path_and_node => {
                    return Err(format!(
                        "--socket {argument:?} is not of the form [NODE=]PATH"
                    ));
                }
                Some(node) => sockets.named.insert(node.to_owned(), path.into()),
                None => sockets.here.replace(path.into()),
            };
            if taken.is_some() {
                return Err(format!(
                    "--socket is given twice for {}",
                    node.unwrap_or("this node")
                ));
            }
        }
        Ok(sockets)
    }
}

impl Kernels {
    /// No kernel at all: `--manifests` without a socket.
    pub fn none() -> Self {
        Self {
            named: BTreeMap::new(),
            here: None,
            problem: None,
        }
    }

    /// The agents of `sockets`; this node's pinned maps if its agent does not answer.
    pub fn open(sockets: &Sockets, bpffs: Option<&Path>) -> Self {
        let named = sockets.named.iter().map(|(node, path)| {
            let agent: Box<dyn KernelView> = Box::new(Agent(Client::new(path)));
            (node.clone(), agent)
        });
        let mut this = Self {
            named: named.collect(),
            here: None,
            problem: None,
        };
        let default = Path::new(weir_api::DEFAULT_SOCKET);
        let client = Client::new(sockets.here.as_deref().unwrap_or(default));
        match client.status() {
            Ok(status) => this.here = Some((Some(status.node), Box::new(Agent(client)))),
            Err(error) => {
                let bpffs = bpffs.unwrap_or(Path::new(weir_api::DEFAULT_BPFFS));
                match Pinned::open(bpffs) {
                    Ok(view) => this.here = Some((None, Box::new(view))),
                    Err(pinned) => this.problem = Some(format!("{error}; {pinned}")),
                }
            }
        }
        this
    }

    /// Asks the kernel of the endpoint's node; without a `request` it says why there is none.
    pub fn ask(&self, node: Option<&str>, request: Result<&VerdictRequest, String>) -> Said {
        let place = place(node);
        let said = match (self.view(node), request) {
            (None, _) => return Said::NotAsked(place),
            (Some(_), Err(why)) => Said::NotAsked(why),
            (Some(view), Ok(request)) => view.verdict(request),
        };
        match said {
            Said::NotAsked(why) => Said::NotAsked(format!("{place}: {why}")),
            said @ Said::Verdict(_) => said,
        }
    }

    /// Runs a packet through the programs of a node.
    pub fn live(&self, node: Option<&str>, request: &LiveRequest) -> Result<LiveAnswer, String> {
        let place = place(node);
        match self.view(node) {
            None => Err(place),
            Some(view) => view.live(request).map_err(|why| format!("{place}: {why}")),
        }
    }

    /// The maps and programs of a node, if it can be asked.
    fn view(&self, node: Option<&str>) -> Option<&dyn KernelView> {
        let named = node.and_then(|n| self.named.get(n));
        let view = named.or(match &self.here {
            Some((here, view)) if node.is_none() || here.is_none() || here.as_deref() == node => {
                Some(view)
            }
            _ => None,
        });
        view.map(Box::as_ref)
    }

    /// Why this node's kernel could not be asked, if it was to be.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
}

fn place(node: Option<&str>) -> String {
    node.map_or("node unknown".to_owned(), |n| format!("node {n}"))
}
