//! Communication buffers: rings of words in the global address space, one for each direction, with a
//! descriptor each (`guc_communication_ctb_abi.h`, `guc_messages_abi.h`).

use super::super::addressing::{Address, Addressing};
use super::super::memory::Fault;

/// A descriptor: the reader's place and the writer's, in words, and what went wrong.
const HEAD: u64 = 0;
const TAIL: u64 = 4;

/// Words that a buffer may have: several times as many as drivers give it.
const LARGEST: u64 = 1 << 17;

/// The first word of a message in a buffer: how many words follow, and a number that the answer repeats.
const LENGTH: u32 = 0xff;
const FENCE: u32 = 0xffff << 16;

/// The first word of what follows.
const FROM_GUC: u32 = 1 << 31;
const KIND_SHIFT: u32 = 28;
const KIND: u32 = 0x7 << KIND_SHIFT;
const REQUEST: u32 = 0;
const EVENT: u32 = 1;
const SUCCESS: u32 = 7;
const ACTION: u32 = 0xffff;

/// The first word of an answer.
pub(super) fn success(data: u32) -> u32 {
    FROM_GUC | SUCCESS << KIND_SHIFT | data & 0x0fff_ffff
}

/// An event, as it is put into a buffer.
pub(super) fn event(action: u32, data: &[u32]) -> Vec<u32> {
    let mut words = vec![data.len() as u32 + 1, FROM_GUC | EVENT << KIND_SHIFT | action];
    words.extend_from_slice(data);
    words
}

/// A message from the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    fence: u32,
    words: Vec<u32>,
}

impl Message {
    pub(super) fn new(words: Vec<u32>) -> Message {
        Message { fence: 0, words }
    }

    /// A word; 0 beyond the end.
    pub(super) fn word(&self, index: usize) -> u32 {
        self.words.get(index).copied().unwrap_or(0)
    }

    pub(super) fn action(&self) -> u32 {
        self.word(0) & ACTION
    }

    /// Whether the driver waits for an answer.
    pub(super) fn is_request(&self) -> bool {
        self.word(0) & (FROM_GUC | KIND) == REQUEST << KIND_SHIFT
    }

    /// The answer to it, as it is put into a buffer.
    pub(super) fn response(&self) -> Vec<u32> {
        vec![self.fence | 1, success(0)]
    }
}

/// A buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Channel {
    pub(super) descriptor: u64,
    pub(super) buffer: u64,
    /// In words.
    size: u64,
}

impl Channel {
    /// Sets the size, given in bytes.
    pub(super) fn set_size(&mut self, bytes: u64) {
        self.size = (bytes / 4).min(LARGEST);
    }

    fn field(&self, field: u64) -> Address {
        Address::global(self.descriptor).plus(field)
    }

    fn word(&self, index: u64) -> Address {
        Address::global(self.buffer).plus(index % self.size * 4)
    }

    /// Head and tail, within the buffer.
    fn ends(&self, addressing: &Addressing) -> Result<(u64, u64), Fault> {
        let end = |field| Ok::<u64, Fault>(u64::from(addressing.read_word(self.field(field))?) % self.size);
        Ok((end(HEAD)?, end(TAIL)?))
    }

    /// Takes all messages out. Those that are not whole are left in.
    pub(super) fn receive(&self, addressing: &Addressing) -> Result<Vec<Message>, Fault> {
        let mut messages = Vec::new();
        if self.size == 0 {
            return Ok(messages);
        }
        let (mut head, tail) = self.ends(addressing)?;
        while head != tail {
            let available = (tail + self.size - head) % self.size;
            let header = addressing.read_word(self.word(head))?;
            let length = u64::from(header & LENGTH);
            if length >= available {
                break;
            }
            let words = (1..=length).map(|index| addressing.read_word(self.word(head + index)));
            let words = words.collect::<Result<Vec<u32>, Fault>>()?;
            // Empty ones fill the end of the buffer.
            if !words.is_empty() {
                messages.push(Message { fence: header & FENCE, words });
            }
            head = (head + 1 + length) % self.size;
        }
        addressing.write_word(self.field(HEAD), head as u32)?;
        Ok(messages)
    }

    /// Puts a message in. Tells whether there was room.
    pub(super) fn send(&self, addressing: &Addressing, message: &[u32]) -> Result<bool, Fault> {
        if self.size == 0 {
            return Ok(false);
        }
        let (head, tail) = self.ends(addressing)?;
        let room = (head + self.size - tail - 1) % self.size;
        if message.len() as u64 > room {
            return Ok(false);
        }
        for (index, word) in (tail..).zip(message) {
            addressing.write_word(self.word(index), *word)?;
        }
        let tail = (tail + message.len() as u64) % self.size;
        addressing.write_word(self.field(TAIL), tail as u32)?;
        Ok(true)
    }
}
