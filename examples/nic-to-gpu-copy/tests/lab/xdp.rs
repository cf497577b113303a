//! Attaching an XDP program to a NIC, by the `bpf()` system call.

use std::fs::File;
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::guest::Failure;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;

/// `r0 = XDP_PASS; exit`: two instructions of `struct bpf_insn`.
static PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];
static LICENSE: &std::ffi::CStr = c"GPL";

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The beginning of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program that passes every packet on. Dropping the result detaches it.
pub(crate) fn attach(interface: &str) -> Result<File, Failure> {
    let index: u32 =
        std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"))?.trim().parse()?;
    let load = Load {
        kind: BPF_PROG_TYPE_XDP,
        instruction_count: 2,
        instructions: PASS.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    let program = bpf(BPF_PROG_LOAD, &load)?;
    let create = LinkCreate {
        program: program.as_raw_fd().cast_unsigned(),
        interface: index,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_SKB_MODE,
    };
    Ok(bpf(BPF_LINK_CREATE, &create)?.into())
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> Result<OwnedFd, Failure> {
    // SAFETY: the attributes have the layout that the command expects, and are passed with their size; what
    // they point to is static.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *const T, size_of::<T>()) };
    match i32::try_from(fd) {
        // SAFETY: both commands return a new descriptor that nobody else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(format!("bpf command {command}: {}", Error::last_os_error()).into()),
    }
}
