//! Who has which frontend, where several objects want it.

use std::collections::BTreeSet;
use std::fmt;

use weir_abi::{Addr, Proto};

use super::parse::{Problem, ServiceName};
use crate::refill::Refill as _;

/// An object that has frontends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Service(ServiceName),
    /// With HostPorts.
    Pod(ServiceName),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "Service {name}"),
            Self::Pod(name) => write!(f, "Pod {name}"),
        }
    }
}

/// Where a frontend stands. Port and protocol 0 are the whole address, which a ClusterIP takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub addr: Addr,
    /// In host order.
    pub port: u16,
    pub proto: Proto,
}

impl Place {
    /// All of an address.
    pub const fn whole(addr: Addr) -> Self {
        Self {
            addr,
            port: 0,
            proto: Proto(0),
        }
    }

    fn last(addr: Addr) -> Self {
        Self {
            addr,
            port: u16::MAX,
            proto: Proto(u8::MAX),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { addr, port, proto } = self;
        let proto = match *proto {
            Proto::TCP => "TCP",
            Proto::UDP => "UDP",
            _ => "SCTP",
        };
        let ip = addr.to_ip();
        match (*port, ip.is_unspecified()) {
            (0, _) => write!(f, "{ip}"),
            (port, true) => write!(f, "port {port}/{proto}"),
            (port, false) => write!(f, "{}/{proto}", std::net::SocketAddr::new(ip, port)),
        }
    }
}

/// What a frontend is; of two kinds at one place the first has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FrontendKind {
    ClusterIp,
    LoadBalancer,
    ExternalIp,
    NodePort,
    HostPort,
}

impl FrontendKind {
    /// As the API shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalIp => "ExternalIP",
            Self::NodePort => "NodePort",
            Self::HostPort => "HostPort",
        }
    }

    /// The lesser goes before; an external IP and a load balancer's are alike.
    const fn rank(self) -> u8 {
        match self {
            Self::ClusterIp => 0,
            Self::LoadBalancer | Self::ExternalIp => 1,
            Self::NodePort => 2,
            Self::HostPort => 3,
        }
    }
}

/// A frontend that an object wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub place: Place,
    pub kind: FrontendKind,
    /// Where the object says so.
    pub field: String,
}

/// All claims to all places, the owner first.
#[derive(Debug, Default)]
pub(super) struct Claims(BTreeSet<(Place, u8, i64, Owner)>);

impl Claims {
    /// Takes an object's claims in. `created` in seconds since 1970.
    pub fn add(&mut self, owner: &Owner, created: i64, claims: &[Claim]) {
        for claim in claims {
            let entry = (claim.place, claim.kind.rank(), created, owner.clone());
            self.0.insert(entry);
        }
    }

    /// Takes them out.
    pub fn remove(&mut self, owner: &Owner, created: i64, claims: &[Claim]) {
        for claim in claims {
            let entry = (claim.place, claim.kind.rank(), created, owner.clone());
            self.0.remove(&entry);
        }
    }

    /// Takes less memory from now on.
    pub fn refill(&mut self) {
        self.0.refill();
    }

    /// Everyone whose frontends may depend on these claims.
    pub fn rivals(&self, claims: &[Claim]) -> BTreeSet<Owner> {
        let mut rivals = BTreeSet::new();
        for claim in claims {
            let addr = claim.place.addr;
            let until = match claim.place.port {
                0 => Place::last(addr),
                _ => claim.place,
            };
            rivals.extend(
                self.between(claim.place, until)
                    .map(|(_, _, owner)| owner.clone()),
            );
        }
        rivals
    }

    /// The one that keeps `owner` from having the place.
    pub fn winner(&self, owner: &Owner, claim: &Claim) -> Option<(&Owner, Lost)> {
        let whole = Place::whole(claim.place.addr);
        let (rank, _, first) = self.between(claim.place, claim.place).next()?;
        if claim.place != whole
            && let Some((_, _, address)) = self.between(whole, whole).next()
        {
            return Some((address, Lost::ClusterIp));
        }
        let why = if rank < claim.kind.rank() {
            Lost::Kind
        } else {
            Lost::Older
        };
        (first != owner).then_some((first, why))
    }

    fn between(&self, first: Place, last: Place) -> impl Iterator<Item = (u8, i64, &Owner)> {
        let least = Owner::Service(ServiceName::default());
        let from = (first, 0, i64::MIN, least);
        let here = self
            .0
            .range(from..)
            .take_while(move |(place, ..)| *place <= last);
        here.map(|(_, rank, created, owner)| (*rank, *created, owner))
    }
}

/// To what an object has lost its frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    ClusterIp,
    Kind,
    Older,
}

impl Lost {
    /// What to report of it.
    pub fn problem(self, loser: &Owner, claim: &Claim, winner: &Owner) -> Problem {
        let why = match (self, claim.kind) {
            (Self::ClusterIp, _) => "as its ClusterIP",
            (Self::Kind, _) => "which goes before HostPorts",
            (Self::Older, _) => "which is older",
        };
        Problem {
            object: loser.to_string(),
            field: claim.field.clone(),
            message: format!("{} is taken by {winner}, {why}", claim.place),
        }
    }
}
