//! The tc programs.

use aya_ebpf::bindings::{TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use weir_abi::counter::Counter;
use weir_ebpf::dry_run;
use weir_ebpf::maps::count;
use weir_ebpf::outcome::Outcome;
use weir_ebpf::{overlay, path, short_way, wireguard};

/// tcx ingress on the host side of a pod's veth pair: what the pod sends.
#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    either(&ctx, short_way::from_pod(&ctx), path::from_pod)
}

/// tcx egress on the host side of a pod's veth pair: what the node's stack brings.
#[classifier]
pub fn to_pod(ctx: TcContext) -> i32 {
    action(&ctx, path::to_pod(&ctx))
}

/// tcx ingress on an uplink: what comes from other machines.
#[classifier]
pub fn from_uplink(ctx: TcContext) -> i32 {
    either(&ctx, short_way::from_uplink(&ctx), path::from_uplink)
}

/// tcx egress on an uplink: what the node itself sends. What it forwards is let go at once,
/// uncounted: it has been judged and counted where it came in.
#[classifier]
pub fn to_uplink(ctx: TcContext) -> i32 {
    // SAFETY: the context is the program's own.
    if unsafe { (*ctx.skb.skb).ingress_ifindex } != 0 {
        return TC_ACT_UNSPEC;
    }
    either(&ctx, short_way::to_uplink(&ctx), path::to_uplink)
}

/// tcx ingress on the overlay's device: what other nodes have sent through it.
#[classifier]
pub fn from_overlay(ctx: TcContext) -> i32 {
    either(&ctx, short_way::from_overlay(&ctx), path::from_overlay)
}

/// tcx egress on the overlay's device: gives each packet the node that it goes to. What goes on is
/// uncounted, as it has been counted where it came in.
#[classifier]
pub fn to_overlay(ctx: TcContext) -> i32 {
    match overlay::send(&ctx) {
        Outcome::Stack => TC_ACT_UNSPEC,
        outcome => action(&ctx, outcome),
    }
}

/// tcx ingress on WireGuard's device: what other nodes have sent through it.
#[classifier]
pub fn from_wireguard(ctx: TcContext) -> i32 {
    action(&ctx, path::from_wireguard(&ctx))
}

/// tcx egress on WireGuard's device: what has no node to go to, or none with a key, ends here. What goes
/// on is uncounted, as it has been counted where it came in.
#[classifier]
pub fn to_wireguard(ctx: TcContext) -> i32 {
    match wireguard::send(&ctx) {
        Outcome::Stack => TC_ACT_UNSPEC,
        outcome => action(&ctx, outcome),
    }
}

/// What the short way says of a packet, or else the whole one.
#[inline(always)]
fn either(ctx: &TcContext, short: u32, whole: impl FnOnce(&TcContext) -> Outcome) -> i32 {
    let outcome = match short {
        short_way::NOT_HERE => whole(ctx),
        code => Outcome::from_code(code),
    };
    action(ctx, outcome)
}

/// `TC_ACT_UNSPEC` (-1, TCX_NEXT) and never `TC_ACT_OK` for what goes on: a program after ours
/// still runs.
#[inline(always)]
fn action(ctx: &TcContext, outcome: Outcome) -> i32 {
    let (counter, action) = match outcome {
        Outcome::Stack => (Counter::ToStack as u32, TC_ACT_UNSPEC),
        Outcome::Redirected(what) => (what, TC_ACT_REDIRECT as i32),
        Outcome::Drop(reason) => (reason, TC_ACT_SHOT as i32),
    };
    if dry_run::is_on() {
        dry_run::report(ctx.skb.skb, counter);
        return action;
    }
    count(counter);
    if action == TC_ACT_SHOT as i32 {
        log_drop(ctx, counter);
    }
    action
}

/// Logs a dropped packet by the number of its counter.
#[cfg(feature = "log")]
#[inline(always)]
fn log_drop(ctx: &TcContext, reason: u32) {
    // SAFETY: the context is the program's own.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    aya_log_ebpf::debug!(ctx, "interface {}: dropped, counter {}", ifindex, reason);
}

#[cfg(not(feature = "log"))]
#[inline(always)]
fn log_drop(_: &TcContext, _: u32) {}
