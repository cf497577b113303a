//! What one receive brought.

use super::control_messages::{ControlMessage, ControlMessages};
use super::uapi;
use crate::stream::{Fragment, Part};

/// What one receive brought, in order.
#[derive(Debug, Clone)]
pub struct Parts<'stream> {
    pub(super) messages: ControlMessages<'stream>,
    pub(super) linear: &'stream [u8],
    /// The linear bytes came without a message.
    pub(super) unmarked: bool,
    pub(super) bytes: usize,
}

impl Parts<'_> {
    /// How many bytes this receive brought.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<'stream> Iterator for Parts<'stream> {
    type Item = Part<'stream>;

    fn next(&mut self) -> Option<Part<'stream>> {
        if std::mem::take(&mut self.unmarked) {
            return Some(Part::Linear(std::mem::take(&mut self.linear)));
        }
        loop {
            match self.messages.next()?.ok()? {
                // Nothing is to be said of zero bytes, but a token comes with them.
                ControlMessage::Fragment(message) => return Some(Part::Fragment(message.into())),
                ControlMessage::Linear(0) | ControlMessage::Other { .. } => {}
                ControlMessage::Linear(length) => {
                    let (bytes, rest) = self.linear.split_at_checked(length as usize)?;
                    self.linear = rest;
                    return Some(Part::Linear(bytes));
                }
            }
        }
    }
}

/// The fragment that a control message tells of.
impl From<uapi::DmabufMessage> for Fragment {
    fn from(message: uapi::DmabufMessage) -> Self {
        Self { offset: message.fragment_offset, length: message.fragment_size, token: message.fragment_token }
    }
}
