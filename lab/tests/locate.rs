//! Asks the lab, from inside a guest, where the memory of a DMA-buf is.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use devmem_lab::Machine;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use serde_json::{Value, json};

const PAGES: usize = 33;
const SIZE: usize = PAGES * 4096;

fn main() {
    if std::env::var_os("DEVMEM_LAB_GUEST").is_some() {
        in_guest();
        return;
    }
    let program = std::env::current_exe().unwrap();
    let outcome = Machine::new().nic("gve").command([program.to_str().unwrap()]).run().unwrap();
    assert!(outcome.is_success(), "{}", outcome.report());
    println!("{}", outcome.stdout_text());
}

fn in_guest() {
    let mut memory = File::from(memfd_create(c"buffer", MFdFlags::MFD_ALLOW_SEALING).unwrap());
    let content: Vec<u8> = (0..SIZE).map(|index| (index % 251) as u8).collect();
    memory.write_all(&content).unwrap();
    fcntl(&memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
    let buffer = dma_buf(&memory);

    let mut lab = Lab::connect();
    let answer = lab.ask(json!({ "op": "locate", "name": "buffer" }), Some(&buffer));
    assert_eq!(answer["pages"], PAGES, "{answer}");
    assert_eq!(answer["found"], PAGES, "{answer}");
    assert_eq!(answer["guest_ram_pages"], PAGES, "{answer}");
    let mut after = Vec::new();
    memory.seek(SeekFrom::Start(0)).unwrap();
    memory.read_to_end(&mut after).unwrap();
    assert!(after == content, "the buffer has its content back");

    // A descriptor that is no DMA-buf, and a line that is no question, are errors and end nothing.
    let answer = lab.ask(json!({ "op": "locate", "name": "file" }), Some(&memory.into()));
    assert!(answer["error"].as_str().unwrap().contains("DMA-buf"), "{answer}");
    lab.stream.write_all(b"no question\n").unwrap();
    assert!(lab.answer()["error"].is_string());
    let truth = lab.ask(json!({ "op": "ground_truth" }), None);
    assert_eq!(truth["dmabuf_bytes"], 0, "{truth}");
    println!("{answer}");
}

/// `struct udmabuf_create` of include/uapi/linux/udmabuf.h.
#[repr(C)]
struct UdmabufCreate {
    memory: u32,
    flags: u32,
    offset: u64,
    size: u64,
}

mod request {
    nix::ioctl_write_ptr!(
        /// Makes a DMA-buf of memory.
        udmabuf_create,
        b'u',
        0x42,
        super::UdmabufCreate
    );
}

fn dma_buf(memory: &File) -> OwnedFd {
    let device = OpenOptions::new().read(true).write(true).open("/dev/udmabuf").unwrap();
    let memory = memory.as_raw_fd().cast_unsigned();
    let request = UdmabufCreate { memory, flags: 1, offset: 0, size: SIZE as u64 };
    // SAFETY: the request reads the structure that the reference points to, and returns a new
    // descriptor that nobody else owns.
    unsafe {
        let descriptor = request::udmabuf_create(device.as_raw_fd(), &raw const request).unwrap();
        OwnedFd::from_raw_fd(descriptor)
    }
}

struct Lab {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Lab {
    fn connect() -> Self {
        let stream = UnixStream::connect("/run/devmem-lab.sock").unwrap();
        let answers = BufReader::new(stream.try_clone().unwrap());
        Self { stream, answers }
    }

    fn ask(&mut self, question: Value, buffer: Option<&OwnedFd>) -> Value {
        let line = format!("{question}\n");
        let descriptors: Vec<i32> = buffer.iter().map(|buffer| buffer.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let control = if descriptors.is_empty() { &[][..] } else { &rights[..] };
        let parts = [IoSlice::new(line.as_bytes())];
        let address: Option<&UnixAddr> = None;
        sendmsg(self.stream.as_raw_fd(), &parts, control, MsgFlags::empty(), address).unwrap();
        self.answer()
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}
