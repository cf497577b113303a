//! SHA-256 of pieces of a buffer, by the shader `sha256.wgsl`.

mod rounds;

use std::sync::Arc;

use devmem_provider::device_copy::{Sha256, check_piece};
use devmem_provider::{DmaBuf, Extent, Result};

use super::plan::MOST_ALIGNMENT;
use super::work::Work;
use super::{Shared, scratch};
use crate::vulkan::sys::device::QueueRole;
use crate::vulkan::sys::mapping::MappedBuffer;
use crate::vulkan::sys::memory::BoundBuffer;
use crate::vulkan::sys::pipeline::{Bindings, Window};
use rounds::{JOB_BYTES, Message, Round};

const HASH: &str = "hash bytes";

/// How many messages are hashed side by side.
const MOST_MESSAGES: usize = 4096;

/// So many messages or fewer get a workgroup each.
const FEW_MESSAGES: u32 = 8;

/// The invocations of a workgroup otherwise.
const GROUP: u32 = 64;

const STATE_BYTES: u64 = 32;

/// Where things begin in the memory that the CPU and the shader share.
const CONSTANTS: u64 = 0;
const STATES: u64 = (size_of_val(&ROUND_CONSTANTS) as u64).next_multiple_of(MOST_ALIGNMENT);
const JOBS: u64 = (STATES + MOST_MESSAGES as u64 * STATE_BYTES).next_multiple_of(MOST_ALIGNMENT);
const END: u64 = JOBS + MOST_MESSAGES as u64 * JOB_BYTES;

pub(crate) fn sha256(shared: &Arc<Shared>, buffer: &DmaBuf, pieces: &[Extent]) -> Result<Vec<Sha256>> {
    shared.check_alive(HASH)?;
    for &piece in pieces {
        check_piece(piece, buffer)?;
    }
    if pieces.is_empty() {
        return Ok(Vec::new());
    }
    let buffer = shared.import_for_shaders(buffer, HASH)?;
    sha256_of(shared, buffer, pieces)
}

/// As [`sha256`], of what shaders reach; the pieces are inside.
pub(super) fn sha256_of(
    shared: &Arc<Shared>,
    buffer: Arc<BoundBuffer>,
    pieces: &[Extent],
) -> Result<Vec<Sha256>> {
    let mut hasher = Hasher::new(shared, buffer)?;
    let mut digests = Vec::with_capacity(pieces.len());
    for group in pieces.chunks(MOST_MESSAGES) {
        hasher.hash(group, &mut digests)?;
    }
    Ok(digests)
}

struct Hasher<'shared> {
    shared: &'shared Arc<Shared>,
    work: Work<'shared>,
    memory: MappedBuffer,
    buffer: Arc<BoundBuffer>,
    /// For few messages, and for many.
    few: Option<Arc<Bindings>>,
    many: Option<Arc<Bindings>>,
}

impl<'shared> Hasher<'shared> {
    fn new(shared: &'shared Arc<Shared>, buffer: Arc<BoundBuffer>) -> Result<Self> {
        let mut memory = scratch::scratch(shared, END, scratch::FOR_SHADERS)?;
        let constants: Vec<u8> = ROUND_CONSTANTS.iter().flat_map(|word| word.to_ne_bytes()).collect();
        scratch::write(shared, &mut memory, CONSTANTS, &constants)?;
        Ok(Self {
            shared,
            work: Work::new(shared, QueueRole::Main, HASH)?,
            memory,
            buffer,
            few: None,
            many: None,
        })
    }

    fn hash(&mut self, pieces: &[Extent], digests: &mut Vec<Sha256>) -> Result<()> {
        let mut messages: Vec<Message> = pieces.iter().copied().map(Message::new).collect();
        let states: Vec<u8> =
            pieces.iter().flat_map(|_| INITIAL).flat_map(|word: u32| word.to_ne_bytes()).collect();
        scratch::write(self.shared, &mut self.memory, STATES, &states)?;
        let most_window = self.shared.device.limits().max_storage_buffer_range.into();
        let alignment = self.shared.device.limits().min_storage_buffer_offset_alignment;
        let mut jobs = Vec::new();
        while let Some(round) =
            rounds::next(&mut messages, self.buffer.size(), alignment, most_window, &mut jobs)
        {
            scratch::write(self.shared, &mut self.memory, JOBS, &jobs)?;
            self.run(round, pieces.len() as u64)?;
        }
        let mut states = states;
        scratch::read(self.shared, &self.memory, STATES, &mut states)?;
        digests.extend(states.chunks_exact(STATE_BYTES as usize).map(digest));
        Ok(())
    }

    fn run(&mut self, round: Round, messages: u64) -> Result<()> {
        let failed = |code| self.shared.failed(code, HASH);
        self.work.clear()?;
        let few = round.jobs <= FEW_MESSAGES;
        let (made, lazy, groups) = if few {
            (&mut self.few, &self.shared.sha256_few, round.jobs)
        } else {
            (&mut self.many, &self.shared.sha256_many, round.jobs.div_ceil(GROUP))
        };
        let bindings = match made {
            Some(bindings) => bindings,
            None => {
                let pipeline = self.shared.pipeline(lazy)?;
                made.insert(Arc::new(Bindings::new(&pipeline).map_err(failed)?))
            }
        };
        let memory = self.memory.buffer();
        let list = |offset, length| Window { offset, length };
        let windows = [
            (&self.buffer, round.window),
            (memory, list(JOBS, u64::from(round.jobs) * JOB_BYTES)),
            (memory, list(STATES, messages * STATE_BYTES)),
            (memory, list(CONSTANTS, size_of_val(&ROUND_CONSTANTS) as u64)),
        ];
        // Nobody else has them: what was recorded before is cleared.
        if let Some(bindings) = Arc::get_mut(bindings) {
            for (binding, (buffer, window)) in (0..).zip(windows) {
                bindings.bind(binding, buffer, window).map_err(failed)?;
            }
        }
        let buffers = [&self.buffer, &self.buffer];
        self.work.run(|recording| {
            recording.acquire(&buffers);
            recording.dispatch(bindings, &[round.jobs], groups)?;
            recording.release(&buffers);
            Ok(())
        })
    }
}

/// A state as the digest that it is at the end.
fn digest(state: &[u8]) -> Sha256 {
    let mut digest = Sha256::default();
    for (to, word) in digest.chunks_exact_mut(4).zip(state.chunks_exact(4)) {
        let word = word.try_into().map_or(0, u32::from_ne_bytes);
        to.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

/// FIPS 180-4, section 5.3.3.
#[rustfmt::skip]
const INITIAL: [u32; 8] = [
    0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
];

/// FIPS 180-4, section 4.2.2.
#[rustfmt::skip]
const ROUND_CONSTANTS: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];
