//! The layout of requests and answers (Virtual I/O Device 1.2, 5.7.6).

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    GetDisplayInfo,
    ResourceCreate2d,
    ResourceUnref,
    SetScanout,
    ResourceFlush,
    TransferToHost2d,
    ResourceAttachBacking,
    ResourceDetachBacking,
    GetCapsetInfo,
    GetCapset,
    GetEdid,
    ResourceAssignUuid,
    ResourceCreateBlob,
    SetScanoutBlob,
    ContextCreate,
    ContextDestroy,
    ContextAttachResource,
    ContextDetachResource,
    ResourceCreate3d,
    TransferToHost3d,
    TransferFromHost3d,
    Submit3d,
    ResourceMapBlob,
    ResourceUnmapBlob,
    UpdateCursor,
    MoveCursor,
}

use Command::*;

/// Commands by their number in the header, and the bytes that a request has at least.
const COMMANDS: [(u32, Command, usize); 26] = [
    (0x100, GetDisplayInfo, 24),
    (0x101, ResourceCreate2d, 40),
    (0x102, ResourceUnref, 32),
    (0x103, SetScanout, 48),
    (0x104, ResourceFlush, 48),
    (0x105, TransferToHost2d, 56),
    (0x106, ResourceAttachBacking, 32),
    (0x107, ResourceDetachBacking, 32),
    (0x108, GetCapsetInfo, 32),
    (0x109, GetCapset, 32),
    (0x10a, GetEdid, 32),
    (0x10b, ResourceAssignUuid, 32),
    (0x10c, ResourceCreateBlob, 56),
    (0x10d, SetScanoutBlob, 96),
    (0x200, ContextCreate, 96),
    (0x201, ContextDestroy, 24),
    (0x202, ContextAttachResource, 32),
    (0x203, ContextDetachResource, 32),
    (0x204, ResourceCreate3d, 72),
    (0x205, TransferToHost3d, 72),
    (0x206, TransferFromHost3d, 72),
    (0x207, Submit3d, 32),
    (0x208, ResourceMapBlob, 40),
    (0x209, ResourceUnmapBlob, 32),
    (0x300, UpdateCursor, 56),
    (0x301, MoveCursor, 56),
];

/// An answer without an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Success {
    NoData,
    /// No display is there.
    DisplayInfo,
    /// How a blob is to be mapped.
    MapInfo,
}

/// An answer with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Failure {
    Unspecified = 0x1200,
    OutOfMemory = 0x1201,
    InvalidScanout = 0x1202,
    InvalidResource = 0x1203,
    InvalidContext = 0x1204,
    InvalidParameter = 0x1205,
}

const OK_NO_DATA: u32 = 0x1100;
const OK_DISPLAY_INFO: u32 = 0x1101;
const OK_MAP_INFO: u32 = 0x1106;

/// Scanouts that an answer tells of, whether they are there or not, and bytes for each.
const SCANOUTS: usize = 16;
const SCANOUT_SIZE: usize = 24;
/// A blob is mapped as cached memory.
const MAP_CACHED: u32 = 1;

const HEADER_SIZE: usize = 24;
const FLAG_FENCE: u32 = 1 << 0;
const FLAG_RING: u32 = 1 << 1;

/// The memory of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlobMemory {
    /// The driver's.
    Guest,
    /// The device's.
    Device,
    /// The driver's, for something in the device.
    DeviceGuest,
}

/// Bytes of an entry that tells where a part of a resource's memory is: address, length, padding.
const ENTRY_SIZE: usize = 16;

/// A request. Numbers that are beyond its end read as zero.
#[derive(Clone, Copy)]
pub(super) struct Request<'a>(&'a [u8]);

impl<'a> Request<'a> {
    /// What the request asks for; `None` for an unknown command or one that is too short.
    pub(super) fn parse(bytes: &'a [u8]) -> (Request<'a>, Option<Command>) {
        let request = Request(bytes);
        let known =
            COMMANDS.iter().find(|(number, ..)| bytes.len() >= HEADER_SIZE && *number == request.u32(0));
        (request, known.filter(|(.., size)| bytes.len() >= *size).map(|(_, command, _)| *command))
    }

    fn u32(self, at: usize) -> u32 {
        let bytes = self.0.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes)
    }

    fn u64(self, at: usize) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at + 4)) << 32
    }

    pub(super) fn number(self) -> u32 {
        self.u32(0)
    }

    fn flags(self) -> u32 {
        self.u32(4)
    }

    pub(super) fn context(self) -> u32 {
        self.u32(16)
    }

    /// The resource that a command is about: most have it behind the header.
    pub(super) fn resource(self, command: Command) -> u32 {
        self.u32(match command {
            ResourceFlush => 40,
            TransferToHost2d | TransferToHost3d | TransferFromHost3d => {
                48 + 8 * usize::from(command != TransferToHost2d)
            }
            _ => 24,
        })
    }

    pub(super) fn blob_memory(self) -> Option<BlobMemory> {
        match self.u32(28) {
            1 => Some(BlobMemory::Guest),
            2 => Some(BlobMemory::Device),
            3 => Some(BlobMemory::DeviceGuest),
            _ => None,
        }
    }

    pub(super) fn blob_size(self) -> u64 {
        self.u64(48)
    }

    /// Where in the window a blob shall be mapped.
    pub(super) fn map_offset(self) -> u64 {
        self.u64(32)
    }

    /// The set of capabilities that a context shall have.
    pub(super) fn context_capset(self) -> u32 {
        self.u32(28) & 0xff
    }

    /// Bytes of a stream of commands.
    pub(super) fn stream_size(self) -> u32 {
        self.u32(24)
    }

    /// The parts of a resource's memory: address and bytes of each. `None` when there are fewer than said.
    pub(super) fn entries(self, command: Command) -> Option<impl Iterator<Item = (u64, u32)>> {
        let (count, start): (u32, usize) = match command {
            ResourceCreateBlob => (self.u32(36), 56),
            _ => (self.u32(28), 32),
        };
        let size = usize::try_from(count).ok()?.checked_mul(ENTRY_SIZE)?;
        self.0.get(start..start.checked_add(size)?)?;
        let at = move |index: usize| start + index * ENTRY_SIZE;
        Some((0..size / ENTRY_SIZE).map(move |index| (self.u64(at(index)), self.u32(at(index) + 8))))
    }
}

/// The answer to a request: a header that repeats the request's fence, and what comes behind it.
pub(super) fn answer(request: Request<'_>, outcome: &Result<Success, Failure>) -> Vec<u8> {
    let number = match outcome {
        Ok(Success::NoData) => OK_NO_DATA,
        Ok(Success::DisplayInfo) => OK_DISPLAY_INFO,
        Ok(Success::MapInfo) => OK_MAP_INFO,
        Err(failure) => *failure as u32,
    };
    let mut bytes = number.to_le_bytes().to_vec();
    let mut header = [0; HEADER_SIZE - 4];
    if request.flags() & FLAG_FENCE != 0 {
        // Flags, fence, context, ring.
        header[..4].copy_from_slice(&(request.flags() & (FLAG_FENCE | FLAG_RING)).to_le_bytes());
        let rest = request.0.get(8..HEADER_SIZE).unwrap_or_default();
        header[4..4 + rest.len()].copy_from_slice(rest);
    }
    bytes.extend(header);
    match outcome {
        Ok(Success::DisplayInfo) => bytes.resize(HEADER_SIZE + SCANOUTS * SCANOUT_SIZE, 0),
        Ok(Success::MapInfo) => bytes.extend([MAP_CACHED.to_le_bytes(), [0; 4]].concat()),
        Ok(Success::NoData) | Err(_) => {}
    }
    bytes
}
