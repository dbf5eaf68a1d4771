//! The system call itself. `union bpf_attr` and the info structures of linux/bpf.h are buffers with
//! fields at fixed offsets here: the layout is the same on every architecture, values are native.

#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

/// Commands of `enum bpf_cmd`.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum Command {
    ObjGet = 7,
    ObjGetInfoByFd = 15,
    LinkUpdate = 29,
}

/// The part of `union bpf_attr` that the commands here use; the kernel takes the rest for zero.
#[repr(C, align(8))]
pub(super) struct Attr([u8; 32]);

impl Attr {
    pub(super) fn new() -> Self {
        Self([0; 32])
    }

    /// Puts a 32-bit field at an offset.
    pub(super) fn u32(mut self, offset: usize, value: u32) -> Self {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    /// Puts a descriptor at an offset.
    pub(super) fn fd(self, offset: usize, fd: BorrowedFd<'_>) -> Self {
        self.u32(offset, fd.as_raw_fd().cast_unsigned())
    }

    /// Puts a pointer at an offset (64 bits, also where pointers are narrower).
    fn pointer(mut self, offset: usize, address: usize) -> Self {
        self.0[offset..offset + 8].copy_from_slice(&(address as u64).to_ne_bytes());
        self
    }
}

/// bpf(2) with attributes that hold no pointers.
pub(super) fn bpf(command: Command, attr: &Attr) -> io::Result<i32> {
    // SAFETY: the attributes are as long as said and outlive the call. They hold pointers only when
    // they come from the two functions below, where what they point to outlives the call as well.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as u32,
            std::ptr::from_ref(attr),
            size_of::<Attr>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(i32::try_from(result).unwrap_or(0))
    }
}

/// `BPF_OBJ_GET`: opens what is pinned at a path.
pub(super) fn obj_get(path: &std::ffi::CStr) -> io::Result<OwnedFd> {
    // pathname at 0.
    let attr = Attr::new().pointer(0, path.as_ptr().expose_provenance());
    let fd: RawFd = bpf(Command::ObjGet, &attr)?;
    // SAFETY: the kernel has just given us the descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `BPF_OBJ_GET_INFO_BY_FD` into a zeroed buffer, which may be longer or shorter than what the
/// kernel knows.
pub(super) fn obj_info(fd: BorrowedFd<'_>, info: &mut Info) -> io::Result<()> {
    // bpf_fd at 0, info_len at 4, info at 8.
    let attr = Attr::new()
        .fd(0, fd)
        .u32(4, size_of::<Info>() as u32)
        .pointer(8, std::ptr::from_mut(info).expose_provenance());
    bpf(Command::ObjGetInfoByFd, &attr).map(drop)
}

/// A buffer for `struct bpf_map_info`, `bpf_prog_info` and `bpf_link_info`.
#[repr(C, align(8))]
pub(super) struct Info([u8; 256]);

impl Info {
    pub(super) fn new() -> Self {
        Self([0; 256])
    }

    /// The 32-bit field at an offset.
    pub(super) fn u32(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[offset..offset + 4]);
        u32::from_ne_bytes(bytes)
    }

    /// The 64-bit field at an offset.
    pub(super) fn u64(&self, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[offset..offset + 8]);
        u64::from_ne_bytes(bytes)
    }

    /// `N` bytes at an offset.
    pub(super) fn bytes<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.0[offset..offset + N]);
        bytes
    }

    /// The name (16 bytes, ends with a zero) at an offset.
    pub(super) fn name(&self, offset: usize) -> String {
        let bytes = self.bytes::<16>(offset);
        let name = bytes.split(|&b| b == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }
}
