//! Puts the tc programs on devices: by pinned tcx links where the kernel has them, else by clsact
//! filters at a fixed place. Ours stands first, so that no other program decides before policy.

use crate::causes::chain;
use std::{
    mem,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::programs::{
    LinkOrder, ProgramInfo, SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};

use nix::net::if_::if_nametoindex;

use super::{
    Error, links,
    pins::{self, Pins},
};

/// Priority of our clsact filters: the first that tc has.
pub(super) const PRIORITY: u16 = 1;
/// Handle of our clsact filters.
pub(super) const HANDLE: TcHandle = TcHandle::new(0, 1);

/// One hook of one device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hook {
    /// The device.
    pub ifindex: u32,
    /// Its name.
    pub ifname: String,
    /// What it is for Weir: `ep`, `up`, `ov` or `wg`.
    pub role: Role,
    /// Packets that come in from the device (a pod's egress), or leave by it.
    pub side: Side,
}

/// What a device is for Weir.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Host side of a pod's veth pair.
    Endpoint,
    /// Towards other machines.
    Uplink,
    /// The overlay's device, towards other nodes.
    Overlay,
    /// WireGuard's, in its place.
    Wireguard,
}

/// A side of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// tc ingress.
    In,
    /// tc egress.
    Out,
}

impl Hook {
    /// The program that belongs here.
    pub fn program(&self) -> &'static str {
        match (self.role, self.side) {
            (Role::Endpoint, Side::In) => "from_pod",
            (Role::Endpoint, Side::Out) => "to_pod",
            (Role::Uplink, Side::In) => "from_uplink",
            (Role::Uplink, Side::Out) => "to_uplink",
            (Role::Overlay, Side::In) => "from_overlay",
            (Role::Overlay, Side::Out) => "to_overlay",
            (Role::Wireguard, Side::In) => "from_wireguard",
            (Role::Wireguard, Side::Out) => "to_wireguard",
        }
    }

    /// The link's name: `ep-7-in`.
    pub fn link(&self) -> String {
        let role = match self.role {
            Role::Endpoint => "ep",
            Role::Uplink => "up",
            Role::Overlay => "ov",
            Role::Wireguard => "wg",
        };
        let side = match self.side {
            Side::In => "in",
            Side::Out => "out",
        };
        format!("{role}-{}-{side}", self.ifindex)
    }

    fn attach_type(&self) -> TcAttachType {
        match self.side {
            Side::In => TcAttachType::Ingress,
            Side::Out => TcAttachType::Egress,
        }
    }

    fn failed(&self, message: String) -> Error {
        Error::Attach {
            program: self.program().to_owned(),
            target: format!("device {} (index {})", self.ifname, self.ifindex),
            message,
        }
    }
}

/// What [`Attacher::ensure`] found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// It was in place.
    Already,
    /// It was attached, or its program replaced.
    Changed,
}

/// Attaches programs to devices.
pub struct Attacher {
    /// How many links [`Attacher::ensure`] has changed.
    changed: AtomicU64,
    pins: Pins,
    /// Whether the kernel has tcx.
    tcx: bool,
}

impl Attacher {
    /// `tcx`: see [`super::Features::tcx`].
    pub fn new(pins: &Pins, tcx: bool) -> Self {
        Self {
            changed: AtomicU64::new(0),
            pins: pins.clone(),
            tcx,
        }
    }

    /// Whether the object has the program of a hook at all.
    pub fn has_program(&self, hook: &Hook) -> bool {
        self.pins.prog(hook.program()).exists()
    }

    /// Sees to it that the current program is attached to the hook.
    ///
    /// # Errors
    /// The device is gone, or the kernel refuses.
    pub fn ensure(&self, hook: &Hook) -> Result<Attached, Error> {
        let path = self.pins.prog(hook.program());
        let mut program =
            SchedClassifier::from_pin(&path).map_err(|e| Error::pin(&path, chain(&e)))?;
        let attached = if self.tcx {
            self.ensure_tcx(hook, &mut program)
        } else {
            ensure_clsact(hook, &mut program)
        }?;
        if attached == Attached::Changed {
            self.changed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(attached)
    }

    /// How many links were attached, or given another program, so far.
    pub fn changed(&self) -> u64 {
        self.changed.load(Ordering::Relaxed)
    }

    fn ensure_tcx(&self, hook: &Hook, program: &mut SchedClassifier) -> Result<Attached, Error> {
        let failed = |e: &dyn std::error::Error| hook.failed(chain(e));
        let id = program.info().map_err(|e| failed(&e))?.id();
        let pin = self.pins.link(&hook.link());
        if pin.exists() {
            let link: FdLink = PinnedLink::from_pin(&pin).map_err(|e| failed(&e))?.into();
            let attached = link.info().map_err(|e| failed(&e))?.program_id();
            if position(hook, attached)?.is_some() {
                if attached == id {
                    return Ok(Attached::Already);
                }
                let link = SchedClassifierLink::try_from(link).map_err(|e| failed(&e))?;
                let link = program.attach_to_link(link).map_err(|e| failed(&e))?;
                // Closes our descriptor only: the pin keeps the link.
                drop(program.take_link(link).map_err(|e| failed(&e))?);
                return Ok(Attached::Changed);
            }
            // The link of a device that is gone and whose index has come again.
            pins::unpin(&pin)?;
        }
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        let link = program
            .attach_with_options(&hook.ifname, hook.attach_type(), first)
            .and_then(|id| program.take_link(id))
            .map_err(|e| failed(&e))?;
        let link = FdLink::try_from(link).map_err(|e| failed(&e))?;
        link.pin(&pin).map_err(|e| Error::pin(&pin, chain(&e)))?;
        Ok(Attached::Changed)
    }

    /// Gives every pinned link, those of cgroups too, the current program of its name. Nothing is
    /// attached that was not.
    ///
    /// # Errors
    /// A pin cannot be read; the kernel refuses a program.
    pub fn refresh(&self) -> Result<(), Error> {
        let changed = links::refresh(&self.pins)?;
        self.changed.fetch_add(changed, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the current program is attached, and first.
    ///
    /// # Errors
    /// It is not, naming what stands there instead.
    pub fn check(&self, hook: &Hook) -> Result<(), Error> {
        if !self.tcx {
            // Nothing can stand before priority 1; presence is what `ensure` has just written.
            return Ok(());
        }
        let path = self.pins.prog(hook.program());
        let id = ProgramInfo::from_pin(&path)
            .map_err(|e| Error::pin(&path, chain(&e)))?
            .id();
        match position(hook, id)? {
            Some(0) => Ok(()),
            Some(n) => Err(hook.failed(format!(
                "{n} foreign program(s) stand before it and can bypass policy: `bpftool net show dev {}` names them; detach them or attach them after ours",
                hook.ifname
            ))),
            None => Err(hook.failed("it is not attached: something has removed it".into())),
        }
    }

    /// Names of all pinned links of devices, sorted.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn pinned(&self) -> Result<Vec<String>, Error> {
        let mut names = pins::names(&self.pins.links())?;
        names.retain(|n| ["ep-", "up-", "ov-"].iter().any(|role| n.starts_with(role)));
        Ok(names)
    }

    /// Takes a program off a device, or removes the pin of one that is gone.
    ///
    /// # Errors
    /// The pin cannot be removed.
    pub fn detach(&self, link: &str) -> Result<(), Error> {
        pins::unpin(&self.pins.link(link))
    }

    /// Takes the clsact filter off a hook, where that is how programs are attached.
    ///
    /// # Errors
    /// The kernel's; a device that is gone is fine.
    pub fn detach_hook(&self, hook: &Hook) -> Result<(), Error> {
        let there = if_nametoindex(hook.ifname.as_str()) == Ok(hook.ifindex);
        if self.tcx || !there {
            return self.detach(&hook.link());
        }
        match SchedClassifierLink::attached(
            &hook.ifname,
            hook.attach_type(),
            PRIORITY,
            HANDLE,
            None,
        ) {
            // Dropping a link detaches it.
            Ok(link) => drop(link),
            Err(e) => return Err(hook.failed(e.to_string())),
        }
        Ok(())
    }
}

/// How many programs run before ours on the hook; `None` if ours is not there.
fn position(hook: &Hook, id: u32) -> Result<Option<usize>, Error> {
    let (_, programs) = SchedClassifier::query_tcx(&hook.ifname, hook.attach_type())
        .map_err(|e| hook.failed(chain(&e)))?;
    Ok(programs.iter().position(|p| p.id() == id))
}

/// Replaces the filter in place; where there is none, makes it.
fn ensure_clsact(hook: &Hook, program: &mut SchedClassifier) -> Result<Attached, Error> {
    let failed = |e: &dyn std::error::Error| hook.failed(chain(e));
    match tc::qdisc_add_clsact(&hook.ifname) {
        Ok(()) => {}
        // The qdisc is there.
        Err(TcError::NetlinkError(e)) if e.raw_os_error() == Some(libc::EEXIST) => {}
        Err(e) => return Err(failed(&e)),
    }
    let link =
        SchedClassifierLink::attached(&hook.ifname, hook.attach_type(), PRIORITY, HANDLE, None)
            .map_err(|e| failed(&e))?;
    let replaced = program.attach_to_link(link);
    let id = match replaced {
        Ok(id) => id,
        Err(_) => {
            let options = NlOptions {
                priority: PRIORITY,
                handle: HANDLE,
                classid: None,
            };
            program
                .attach_with_options(
                    &hook.ifname,
                    hook.attach_type(),
                    TcAttachOptions::Netlink(options),
                )
                .map_err(|e| failed(&e))?
        }
    };
    // Dropping a netlink link would detach the filter, which is to outlive the agent.
    mem::forget(program.take_link(id).map_err(|e| failed(&e))?);
    Ok(Attached::Changed)
}
