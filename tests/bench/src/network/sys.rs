//! bpf(2) for programs of a few instructions: one that sends frames, one that ends them.

#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};

const PROG_LOAD: u32 = 5;
const PROG_TEST_RUN: u32 = 10;
const LINK_CREATE: u32 = 28;
/// `BPF_F_TEST_XDP_LIVE_FRAMES`: what the program lets pass goes into the stack.
const LIVE_FRAMES: u32 = 1 << 1;
/// `BPF_TCX_INGRESS`.
const TCX_INGRESS: u32 = 46;
/// `BPF_PROG_TYPE_*`.
const SCHED_CLS: u32 = 3;
const XDP: u32 = 6;
const TC_ACT_SHOT: i32 = 2;
const XDP_PASS: i32 = 2;
const XDP_DROP: i32 = 1;
/// `BPF_FUNC_get_prandom_u32`.
const PRANDOM: i32 = 7;

/// The part of `union bpf_attr` that is used here.
#[repr(C, align(8))]
struct Attr([u8; 96]);

impl Attr {
    fn new() -> Self {
        Self([0; 96])
    }

    fn u32(mut self, offset: usize, value: u32) -> Self {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn pointer<T>(mut self, offset: usize, to: &[T]) -> Self {
        let address = to.as_ptr().expose_provenance() as u64;
        self.0[offset..offset + 8].copy_from_slice(&address.to_ne_bytes());
        self
    }

    fn call(&self, command: u32) -> io::Result<i32> {
        // SAFETY: the attributes are as long as said; the slices that they point to are borrowed by
        // the callers until after the call, and read only.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command,
                std::ptr::from_ref(self),
                size_of::<Self>(),
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(i32::try_from(result).unwrap_or(0))
    }

    fn open(&self, command: u32) -> io::Result<OwnedFd> {
        let fd = self.call(command)?;
        // SAFETY: the kernel has just given us the descriptor, and nobody else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// One instruction of `struct bpf_insn`.
fn instruction(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(code)
        | u64::from(dst | src << 4) << 8
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(immediate.cast_unsigned()) << 32
}

fn returns(value: i32) -> [u64; 2] {
    [
        instruction(0xb7, 0, 0, 0, value),
        instruction(0x95, 0, 0, 0, 0),
    ]
}

fn load(kind: u32, attach_type: u32, program: &[u64]) -> io::Result<OwnedFd> {
    let license = b"GPL\0";
    // prog_type at 0, insn_cnt at 4, insns at 8, license at 16, expected_attach_type at 68.
    Attr::new()
        .u32(0, kind)
        .u32(4, program.len() as u32)
        .pointer(8, program)
        .pointer(16, license)
        .u32(68, attach_type)
        .open(PROG_LOAD)
}

/// A hook that drops all that comes in by an interface, while this lives.
pub struct Sink {
    _link: OwnedFd,
}

impl Sink {
    /// In the caller's network namespace.
    ///
    /// # Errors
    /// The kernel's; it has no tcx before 6.6.
    pub fn attach(ifindex: u32) -> Result<Self> {
        let program = load(SCHED_CLS, TCX_INGRESS, &returns(TC_ACT_SHOT)).context("the sink")?;
        // prog_fd at 0, target_ifindex at 4, attach_type at 8.
        let link = Attr::new()
            .u32(0, program.as_raw_fd().cast_unsigned())
            .u32(4, ifindex)
            .u32(8, TCX_INGRESS)
            .open(LINK_CREATE)
            .context("attaching the sink (tcx: Linux 6.6)")?;
        Ok(Self { _link: link })
    }
}

/// Sends a frame again and again, as if it came in by an interface.
pub struct Source {
    program: OwnedFd,
    frame: Vec<u8>,
    ifindex: u32,
}

/// What differs between the frames of a source.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// Nothing.
    Same,
    /// Both ports, at random.
    Random,
}

/// Frames that are processed at a time.
const BATCH: u32 = 64;

impl Source {
    /// For an interface of the namespace that [`Source::send`] is called in. `l4` is where the frame's
    /// ports stand.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(frame: &[u8], l4: usize, ports: Ports, ifindex: u32) -> Result<Self> {
        let mut frame = frame.to_vec();
        frame.resize(frame.len().next_multiple_of(4), 0);
        let program = load(XDP, 0, &writer(&frame, l4, ports)).context("the source")?;
        Ok(Self {
            program,
            frame,
            ifindex,
        })
    }

    /// Sends `count` frames, on the caller's processor and in its namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&self, count: u32) -> Result<()> {
        let length = self.frame.len() as u32;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, length, 0, self.ifindex, 0, 0];
        // prog_fd at 0, data_size_in at 8, data_in at 16, repeat at 32, ctx_size_in at 40, ctx_in at
        // 48, flags at 64, batch_size at 72.
        let attr = Attr::new()
            .u32(0, self.program.as_raw_fd().cast_unsigned())
            .u32(8, length)
            .pointer(16, &self.frame)
            .u32(32, count)
            .u32(40, size_of_val(&context) as u32)
            .pointer(48, &context)
            .u32(64, LIVE_FRAMES)
            .u32(72, BATCH);
        attr.call(PROG_TEST_RUN).context("sending frames").map(drop)
    }
}

/// A program that writes the frame anew, as the kernel gives the same memory again with what the
/// stack has made of it, and lets it pass.
fn writer(frame: &[u8], l4: usize, ports: Ports) -> Vec<u64> {
    // The frame's headers; the rest nobody changes.
    let headers = &frame[..frame.len().min(80)];
    let word = |at: usize| {
        let bytes = [
            headers[at],
            headers[at + 1],
            headers[at + 2],
            headers[at + 3],
        ];
        i32::from_ne_bytes(bytes)
    };
    let mut program = vec![
        // r6 = data, r3 = data_end, r2 = r6 + length
        instruction(0x61, 6, 1, 0, 0),
        instruction(0x61, 3, 1, 4, 0),
        instruction(0xbf, 2, 6, 0, 0),
        instruction(0x07, 2, 0, 0, headers.len() as i32),
        // if r2 <= r3 skip the next two
        instruction(0xbd, 2, 3, 2, 0),
    ];
    program.extend(returns(XDP_DROP));
    program.extend((0..headers.len()).step_by(4).map(|at| {
        // *(u32 *)(r6 + at) = word
        instruction(0x62, 6, 0, at as i16, word(at))
    }));
    if ports == Ports::Random {
        program.push(instruction(0x85, 0, 0, 0, PRANDOM));
        // *(u16 *)(r6 + l4) = r0; r0 >>= 16; *(u16 *)(r6 + l4 + 2) = r0
        program.push(instruction(0x6b, 6, 0, l4 as i16, 0));
        program.push(instruction(0x77, 0, 0, 0, 16));
        program.push(instruction(0x6b, 6, 0, l4 as i16 + 2, 0));
    }
    program.extend(returns(XDP_PASS));
    program
}
