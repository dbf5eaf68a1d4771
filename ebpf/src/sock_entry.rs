//! Entry points of the cgroup hooks (Linux 5.9 has all of them, 5.18 `bpf_set_retval`).

use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use weir_ebpf::sock::{run_connect, run_getpeername, run_recvmsg, run_release, run_sendmsg};

#[cgroup_sock_addr(connect4)]
fn sock_connect4(ctx: SockAddrContext) -> i32 {
    run_connect::<false>(ctx.sock_addr)
}

#[cgroup_sock_addr(connect6)]
fn sock_connect6(ctx: SockAddrContext) -> i32 {
    run_connect::<true>(ctx.sock_addr)
}

#[cgroup_sock_addr(sendmsg4)]
fn sock_sendmsg4(ctx: SockAddrContext) -> i32 {
    run_sendmsg::<false>(ctx.sock_addr)
}

#[cgroup_sock_addr(sendmsg6)]
fn sock_sendmsg6(ctx: SockAddrContext) -> i32 {
    run_sendmsg::<true>(ctx.sock_addr)
}

#[cgroup_sock_addr(recvmsg4)]
fn sock_recvmsg4(ctx: SockAddrContext) -> i32 {
    run_recvmsg::<false>(ctx.sock_addr)
}

#[cgroup_sock_addr(recvmsg6)]
fn sock_recvmsg6(ctx: SockAddrContext) -> i32 {
    run_recvmsg::<true>(ctx.sock_addr)
}

#[cgroup_sock_addr(getpeername4)]
fn sock_getpeername4(ctx: SockAddrContext) -> i32 {
    run_getpeername::<false>(ctx.sock_addr)
}

#[cgroup_sock_addr(getpeername6)]
fn sock_getpeername6(ctx: SockAddrContext) -> i32 {
    run_getpeername::<true>(ctx.sock_addr)
}

#[cgroup_sock(sock_release)]
fn sock_release(ctx: SockContext) -> i32 {
    run_release(ctx.sock)
}
