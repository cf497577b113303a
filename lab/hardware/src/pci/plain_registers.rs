//! Registers that read as what was last written to them.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::misuse::MisuseLog;

/// Registers that are told of as unknown; further ones pass in silence.
const TOLD: usize = 4096;

/// A register file of 32-bit words in which nothing has an effect: what a driver finds in registers that a
/// model does not know. With tracing on it tells of each register once, so that the next one to
/// understand can be found.
pub(crate) struct PlainRegisters {
    device: String,
    log: Arc<MisuseLog>,
    words: Vec<u32>,
    told: BTreeSet<(u64, bool)>,
}

impl PlainRegisters {
    /// `size` bytes of registers that read as 0.
    pub(crate) fn new(device: &str, size: u64, log: Arc<MisuseLog>) -> PlainRegisters {
        let words = vec![0; usize::try_from(size / 4).unwrap_or(0)];
        PlainRegisters { device: device.to_owned(), log, words, told: BTreeSet::new() }
    }

    /// The word at a byte offset; 0 beyond the end.
    pub(crate) fn get(&self, offset: u64) -> u32 {
        self.index(offset).map_or(0, |index| self.words[index])
    }

    /// Replaces the word at a byte offset; beyond the end nothing happens.
    pub(crate) fn set(&mut self, offset: u64, value: u32) {
        if let Some(index) = self.index(offset) {
            self.words[index] = value;
        }
    }

    /// The driver reads a register that the model does not know.
    pub(crate) fn read_unknown(&mut self, offset: u64) -> u32 {
        let value = self.get(offset);
        if self.is_news(offset, false) {
            self.log.trace(&self.device, format_args!("unknown register {offset:#x} read as {value:#x}"));
        }
        value
    }

    /// The driver writes a register that the model does not know.
    pub(crate) fn write_unknown(&mut self, offset: u64, value: u32) {
        if self.is_news(offset, true) {
            self.log.trace(&self.device, format_args!("unknown register {offset:#x} written: {value:#x}"));
        }
        self.set(offset, value);
    }

    /// All words back to 0.
    pub(crate) fn clear(&mut self) {
        self.words = vec![0; self.words.len()];
    }

    fn index(&self, offset: u64) -> Option<usize> {
        usize::try_from(offset / 4).ok().filter(|index| *index < self.words.len())
    }

    fn is_news(&mut self, offset: u64, write: bool) -> bool {
        self.log.traces() && self.told.len() < TOLD && self.told.insert((offset, write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_as_written_and_nothing_is_beyond_the_end() {
        let mut registers = PlainRegisters::new("gpu", 16, Arc::new(MisuseLog::new(false)));
        registers.write_unknown(12, 7);
        registers.write_unknown(16, 8);
        registers.set(u64::MAX, 9);
        assert_eq!((registers.get(12), registers.read_unknown(16)), (7, 0));
        registers.clear();
        assert_eq!(registers.get(12), 0);
    }
}
