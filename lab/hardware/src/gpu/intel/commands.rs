//! The command streamer: reads commands from a ring, and from the batches that it starts, and executes them.
//!
//! Of the memory interface commands (MI) those that the drivers' own work consists of; the copy engine's are
//! in `blitter`; those of the 3D pipeline are passed over, except for what PIPE_CONTROL writes.

use super::addressing::{Address, Addressing, Space};
use super::blitter;
use super::interrupts::cause;
use super::memory::Fault;
use super::registers::Registers;

/// Memory interface commands: bits 28 to 23.
mod operation {
    pub(super) const USER_INTERRUPT: u32 = 0x02;
    pub(super) const BATCH_BUFFER_END: u32 = 0x0a;
    /// From here on commands tell their length.
    pub(super) const FIRST_WITH_LENGTH: u32 = 0x10;
    pub(super) const SEMAPHORE_WAIT: u32 = 0x1c;
    pub(super) const STORE_DATA_IMMEDIATE: u32 = 0x20;
    pub(super) const LOAD_REGISTER_IMMEDIATE: u32 = 0x22;
    pub(super) const STORE_REGISTER_MEMORY: u32 = 0x24;
    pub(super) const FLUSH: u32 = 0x26;
    pub(super) const LOAD_REGISTER_MEMORY: u32 = 0x29;
    pub(super) const LOAD_REGISTER_REGISTER: u32 = 0x2a;
    pub(super) const COPY_MEMORY_MEMORY: u32 = 0x2e;
    pub(super) const BATCH_BUFFER_START: u32 = 0x31;
}

/// The address is in the global address space; of a copy, that of the source.
const GLOBAL: u32 = 1 << 22;
/// Of a copy: the destination's address is in the global address space.
const GLOBAL_DESTINATION: u32 = 1 << 21;
/// The register is one of the engine's own, by its distance from the base.
const ENGINE_REGISTER: u32 = 1 << 19;
/// MI_LOAD_REGISTER_REG: the source register is one of the engine's own.
const ENGINE_REGISTER_SOURCE: u32 = 1 << 18;
/// Registers that commands address.
const REGISTER: u32 = 0x007f_fffc;
/// MI_BATCH_BUFFER_START: in the process's address space; and to return from.
const BATCH_PROCESS: u32 = 1 << 8;
const BATCH_SECOND_LEVEL: u32 = 1 << 22;
/// What PIPE_CONTROL begins with, without its length and flags.
const PIPE_CONTROL: u32 = 0x7a00_0000;

/// What draws and dispatches begin with: 3DPRIMITIVE, GPGPU_WALKER and, from version 12.50 on, COMPUTE_WALKER.
const SHADERS: [u32; 3] = [0x7b00_0000, 0x7105_0000, 0x7208_0000];

/// Batches within batches.
const NESTING: usize = 3;

/// How much an engine may still do before it lets others go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// Words of commands to read.
    pub(super) words: u32,
    /// Bytes to move.
    pub(super) bytes: u64,
}

impl Share {
    /// What an engine may do at one access by the driver.
    pub(super) const WHOLE: Share = Share { words: 1 << 18, bytes: 256 << 20 };

    pub(super) fn take(&mut self, words: usize, bytes: u64) {
        self.words = self.words.saturating_sub(words as u32);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn is_used_up(self) -> bool {
        self.words == 0 || self.bytes == 0
    }
}

/// Why a streamer stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The ring is empty.
    Done,
    /// A semaphore is not what the commands wait for.
    Waiting,
    /// The share is used up.
    ShareUsedUp,
    /// The commands cannot be executed.
    Faulted(Fault),
}

/// A ring of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ring {
    /// In the global address space.
    pub(super) start: u64,
    /// A whole number of pages.
    pub(super) size: u32,
    /// Where the next command is.
    pub(super) head: u32,
    /// Where the driver writes next.
    pub(super) tail: u32,
}

/// Where a context is in its commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) ring: Ring,
    /// The next command of each batch, the innermost last.
    pub(super) batches: Vec<Address>,
}

/// A context as the streamer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context {
    /// Its status page, in the global address space.
    pub(super) status_page: u64,
    /// The uppermost page table of its process.
    pub(super) root: u64,
}

/// An engine at work on a context.
pub(super) struct Streamer<'a> {
    pub(super) addressing: &'a Addressing,
    pub(super) registers: &'a mut Registers,
    /// Where the engine's registers begin.
    pub(super) base: u64,
    pub(super) context: Context,
    /// What the commands raise.
    pub(super) raised: u16,
    /// Commands that start shaders were passed over: there are none.
    pub(super) shaders: bool,
}

impl Streamer<'_> {
    /// Executes until there is a reason to stop.
    pub(super) fn run(&mut self, position: &mut Position, share: &mut Share) -> Stop {
        let mut command = Vec::new();
        loop {
            if position.batches.is_empty() && position.ring.head == position.ring.tail {
                return Stop::Done;
            }
            if share.is_used_up() {
                return Stop::ShareUsedUp;
            }
            match self.step(position, &mut command) {
                Ok(Step::Done(bytes)) => share.take(command.len(), bytes),
                Ok(Step::Waits) => return Stop::Waiting,
                Err(fault) => return Stop::Faulted(fault),
            }
        }
    }

    /// Fetches and executes one command. When it cannot be executed, the position stays before it.
    fn step(&mut self, position: &mut Position, command: &mut Vec<u32>) -> Result<Step, Fault> {
        command.clear();
        let header = self.fetch(position, 0)?;
        command.push(header);
        let length = length(header)?;
        for index in 1..length {
            command.push(self.fetch(position, index)?);
        }
        let mut next = position.clone();
        next.advance(length);
        let step = self.execute(command, &mut next)?;
        if !matches!(step, Step::Waits) {
            *position = next;
        }
        Ok(step)
    }

    /// The word at a distance from the next command.
    fn fetch(&self, position: &Position, index: u32) -> Result<u32, Fault> {
        let address = match position.batches.last() {
            Some(batch) => batch.plus(u64::from(index) * 4),
            // A ring ends where it begins, also in the midst of a command.
            None => {
                let offset = u64::from(position.ring.head) + u64::from(index) * 4;
                Address::global(position.ring.start + offset % u64::from(position.ring.size))
            }
        };
        self.addressing.read_word(address)
    }

    fn execute(&mut self, command: &[u32], next: &mut Position) -> Result<Step, Fault> {
        let words = Words(command);
        let header = words.get(0)?;
        match header >> 29 {
            0 => self.memory_interface(&words, next),
            2 => blitter::execute(self.addressing, self.process(), command).map(Step::Done),
            3 if header & 0xffff_0000 == PIPE_CONTROL => {
                self.pipe_control(&words)?;
                Ok(Step::Done(0))
            }
            _ => {
                self.shaders |= SHADERS.contains(&(header & 0xffff_0000));
                Ok(Step::Done(0))
            }
        }
    }

    fn process(&self) -> Space {
        Space::Process(self.context.root)
    }

    /// An address in two words.
    fn address(&self, words: &Words<'_>, index: usize, global: bool) -> Result<Address, Fault> {
        let at = words.long(index)? & !3;
        // The global address space has 4 GiB.
        let (space, at) = if global { (Space::Global, at & 0xffff_ffff) } else { (self.process(), at) };
        Ok(Address { space, at })
    }

    fn register(&self, word: u32, own: bool) -> u64 {
        let offset = u64::from(word & REGISTER);
        if own { self.base + (offset & 0xfff) } else { offset }
    }

    fn memory_interface(&mut self, words: &Words<'_>, next: &mut Position) -> Result<Step, Fault> {
        let header = words.get(0)?;
        let has = |flag: u32| header & flag != 0;
        match header >> 23 & 0x3f {
            operation::USER_INTERRUPT => self.raised |= cause::USER,
            operation::BATCH_BUFFER_END => {
                next.batches.pop();
            }
            operation::SEMAPHORE_WAIT if !self.semaphore(words)? => return Ok(Step::Waits),
            operation::STORE_DATA_IMMEDIATE => {
                let address = self.address(words, 1, has(GLOBAL))?;
                let data: Vec<u8> = words.from(3).iter().flat_map(|word| word.to_le_bytes()).collect();
                self.addressing.write(address, &data)?;
            }
            operation::LOAD_REGISTER_IMMEDIATE => {
                for pair in words.from(1).chunks_exact(2) {
                    self.registers.write(self.register(pair[0], has(ENGINE_REGISTER)), pair[1]);
                }
            }
            operation::STORE_REGISTER_MEMORY => {
                let value = self.registers.read(self.register(words.get(1)?, has(ENGINE_REGISTER)));
                self.addressing.write_word(self.address(words, 2, has(GLOBAL))?, value)?;
            }
            operation::LOAD_REGISTER_MEMORY => {
                let value = self.addressing.read_word(self.address(words, 2, has(GLOBAL))?)?;
                self.registers.write(self.register(words.get(1)?, has(ENGINE_REGISTER)), value);
            }
            operation::LOAD_REGISTER_REGISTER => {
                let value = self.registers.read(self.register(words.get(1)?, has(ENGINE_REGISTER_SOURCE)));
                self.registers.write(self.register(words.get(2)?, has(ENGINE_REGISTER)), value);
            }
            operation::COPY_MEMORY_MEMORY => {
                let value = self.addressing.read_word(self.address(words, 3, has(GLOBAL))?)?;
                let destination = self.address(words, 1, has(GLOBAL_DESTINATION))?;
                self.addressing.write_word(destination, value)?;
            }
            operation::FLUSH => self.flush(words)?,
            operation::BATCH_BUFFER_START => {
                let batch = self.address(words, 1, !has(BATCH_PROCESS))?;
                if !has(BATCH_SECOND_LEVEL) {
                    // A batch that starts a batch of its own level ends with it.
                    next.batches.pop();
                }
                if next.batches.len() == NESTING {
                    return Err(Fault::Nesting);
                }
                next.batches.push(batch);
            }
            // The rest is about preemption, predicates and performance counters.
            _ => {}
        }
        Ok(Step::Done(0))
    }

    /// Whether a semaphore is as the command waits for.
    fn semaphore(&mut self, words: &Words<'_>) -> Result<bool, Fault> {
        const REGISTER_POLL: u32 = 1 << 16;
        let header = words.get(0)?;
        let wanted = words.get(1)?;
        let found = if header & REGISTER_POLL != 0 {
            self.registers.read(self.register(words.get(2)?, false))
        } else {
            self.addressing.read_word(self.address(words, 2, header & GLOBAL != 0)?)?
        };
        Ok(match header >> 12 & 0x7 {
            0 => found > wanted,
            1 => found >= wanted,
            2 => found < wanted,
            3 => found <= wanted,
            4 => found == wanted,
            _ => found != wanted,
        })
    }

    /// MI_FLUSH_DW: all is flushed always; what remains is what it writes afterwards.
    fn flush(&mut self, words: &Words<'_>) -> Result<(), Fault> {
        const STORE_INDEX: u32 = 1 << 21;
        const USE_GLOBAL: u32 = 1 << 2;
        let header = words.get(0)?;
        let global = words.get(1)? & USE_GLOBAL != 0;
        let address = self.address(words, 1, global)?;
        let address = Address { at: address.at & !u64::from(USE_GLOBAL), ..address };
        let address = self.written(address, header & STORE_INDEX != 0);
        self.write_after(address, header >> 14, words.from(3))
    }

    /// PIPE_CONTROL: as [`Streamer::flush`].
    fn pipe_control(&mut self, words: &Words<'_>) -> Result<(), Fault> {
        const STORE_INDEX: u32 = 1 << 21;
        const USE_GLOBAL: u32 = 1 << 24;
        let flags = words.get(1)?;
        let address = self.address(words, 2, flags & USE_GLOBAL != 0)?;
        let address = self.written(address, flags & STORE_INDEX != 0);
        self.write_after(address, flags >> 14, words.from(4))
    }

    /// Where a flush writes; with an index it is a place in the context's status page.
    fn written(&self, address: Address, index: bool) -> Address {
        if index { Address::global(self.context.status_page + (address.at & 0xff8)) } else { address }
    }

    /// What a flush writes: nothing, data or the time.
    fn write_after(&mut self, address: Address, what: u32, data: &[u32]) -> Result<(), Fault> {
        match what & 3 {
            1 => {
                let bytes: Vec<u8> = data.iter().take(2).flat_map(|word| word.to_le_bytes()).collect();
                self.addressing.write(address, &bytes)
            }
            3 => self.addressing.write(address, &self.registers.ticks().to_le_bytes()),
            _ => Ok(()),
        }
    }
}

/// What a command led to.
enum Step {
    /// It is done, and was this many bytes of work.
    Done(u64),
    /// It waits for a semaphore.
    Waits,
}

/// Words of a command.
struct Words<'a>(&'a [u32]);

impl Words<'_> {
    fn get(&self, index: usize) -> Result<u32, Fault> {
        self.0.get(index).copied().ok_or(Fault::ShortCommand(self.0.first().copied().unwrap_or(0)))
    }

    fn long(&self, index: usize) -> Result<u64, Fault> {
        Ok(u64::from(self.get(index)?) | u64::from(self.get(index + 1)?) << 32)
    }

    fn from(&self, index: usize) -> &[u32] {
        self.0.get(index..).unwrap_or(&[])
    }
}

impl Position {
    /// Passes over a command.
    fn advance(&mut self, words: u32) {
        match self.batches.last_mut() {
            Some(batch) => *batch = batch.plus(u64::from(words) * 4),
            None => {
                let head = u64::from(self.ring.head) + u64::from(words) * 4;
                self.ring.head = (head % u64::from(self.ring.size)) as u32;
            }
        }
    }
}

/// How many words a command has.
fn length(header: u32) -> Result<u32, Fault> {
    let with = |mask: u32| (header & mask) + 2;
    Ok(match header >> 29 {
        0 => match header >> 23 & 0x3f {
            operation if operation < operation::FIRST_WITH_LENGTH => 1,
            operation::STORE_DATA_IMMEDIATE => with(0x3ff),
            operation::FLUSH => with(0x3f),
            _ => with(0xff),
        },
        2 => with(0xff),
        // Of the pipelines: common, single words, media, 3D.
        3 => match header >> 27 & 3 {
            1 => 1,
            2 => with(0xffff),
            _ => with(0xff),
        },
        _ => return Err(Fault::UnknownCommand(header)),
    })
}
