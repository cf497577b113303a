//! `bpf(2)`: loading a program and attaching it by a link (include/uapi/linux/bpf.h).

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;

const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;

const PROG_TYPE_XDP: u32 = 6;
/// The attach type of a link.
const XDP: u32 = 37;
/// The program takes packets in several pieces (`BPF_F_XDP_HAS_FRAGS`).
const XDP_HAS_FRAGS: u32 = 1 << 5;
/// Generic XDP (`XDP_FLAGS_SKB_MODE`, include/uapi/linux/if_link.h).
const SKB_MODE: u32 = 1 << 1;

/// `struct bpf_insn`: operation, registers (destination in the low half), offset, immediate value.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// `BPF_ALU64 | BPF_MOV | BPF_K` and `BPF_JMP | BPF_EXIT`.
const MOVE: u8 = 0xb7;
const EXIT: u8 = 0x95;
/// `enum xdp_action`.
const XDP_PASS: i32 = 2;

/// `return XDP_PASS`.
pub(super) const PASS: [Instruction; 2] = [
    Instruction { code: MOVE, registers: 0, offset: 0, immediate: XDP_PASS },
    Instruction { code: EXIT, registers: 0, offset: 0, immediate: 0 },
];

/// The members of `union bpf_attr` for `BPF_PROG_LOAD`, as far as the flags. The kernel takes what is missing for zero.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The members of `union bpf_attr` for `BPF_LINK_CREATE`, as far as the flags.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

const _: () = assert!(size_of::<Instruction>() == 8);
const _: () = assert!(size_of::<ProgLoad>() == 48 && std::mem::offset_of!(ProgLoad, prog_flags) == 44);
const _: () = assert!(size_of::<LinkCreate>() == 16);

pub(super) fn load(program: &[Instruction]) -> nix::Result<OwnedFd> {
    let attributes = ProgLoad {
        prog_type: PROG_TYPE_XDP,
        insn_cnt: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        insns: program.as_ptr().addr() as u64,
        license: c"Dual MIT/GPL".as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: XDP_HAS_FRAGS,
    };
    // SAFETY: the attributes are those of the command; the instructions and the license that they point to live
    // through the call, and the kernel reads them only. The descriptor that it returns is new.
    unsafe { descriptor(PROG_LOAD, &attributes) }
}

pub(super) fn attach(program: &OwnedFd, ifindex: u32) -> nix::Result<OwnedFd> {
    let attributes = LinkCreate {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_ifindex: ifindex,
        attach_type: XDP,
        flags: SKB_MODE,
    };
    // SAFETY: the attributes are those of the command, and hold numbers alone. The descriptor that it returns is new.
    unsafe { descriptor(LINK_CREATE, &attributes) }
}

/// # Safety
///
/// `attributes` must be those of a command that returns a new descriptor, and what they point to must live.
unsafe fn descriptor<T>(command: libc::c_long, attributes: &T) -> nix::Result<OwnedFd> {
    // SAFETY: the kernel reads and writes no more of the attributes than their size; the caller answers for the rest.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    let number = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows its number. It is closed on `exec`.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use devmem_uapi_check::{Header, layouts};
    use std::mem::offset_of;

    #[test]
    fn numbers_and_layouts_are_those_of_the_headers() {
        let member = |name: &str, offset: usize| {
            (format!("offsetof(union bpf_attr, {name})"), i128::try_from(offset).unwrap())
        };
        Header::new("linux/bpf.h")
            .value("BPF_PROG_LOAD", PROG_LOAD)
            .value("BPF_LINK_CREATE", LINK_CREATE)
            .value("BPF_PROG_TYPE_XDP", PROG_TYPE_XDP)
            .value("BPF_XDP", XDP)
            .value("BPF_F_XDP_HAS_FRAGS", XDP_HAS_FRAGS)
            .value("XDP_PASS", XDP_PASS)
            .value("BPF_ALU64 | BPF_MOV | BPF_K", MOVE)
            .value("BPF_JMP | BPF_EXIT", EXIT)
            .values(layouts! { Instruction as "bpf_insn" { code, offset = "off", immediate = "imm" } })
            .values([
                member("prog_type", offset_of!(ProgLoad, prog_type)),
                member("insn_cnt", offset_of!(ProgLoad, insn_cnt)),
                member("insns", offset_of!(ProgLoad, insns)),
                member("license", offset_of!(ProgLoad, license)),
                member("prog_flags", offset_of!(ProgLoad, prog_flags)),
                member("link_create.prog_fd", offset_of!(LinkCreate, prog_fd)),
                member("link_create.target_ifindex", offset_of!(LinkCreate, target_ifindex)),
                member("link_create.attach_type", offset_of!(LinkCreate, attach_type)),
                member("link_create.flags", offset_of!(LinkCreate, flags)),
            ])
            .assert();
        Header::new("linux/if_link.h").value("XDP_FLAGS_SKB_MODE", SKB_MODE).assert();
    }
}
