//! BAR 2: doorbells, 32-bit and little-endian, by index.
//!
//! Which index a queue or an interrupt has is the device's choice: it tells the driver when a queue is
//! created or resources are configured. Here transmit queues come first, then receive queues, then
//! notification blocks.

use super::Gve;

/// The doorbell of a transmit queue.
pub(super) fn transmit(queue: usize) -> usize {
    queue
}

/// The doorbell of a receive queue.
pub(super) fn receive(queue_pairs: u16, queue: usize) -> usize {
    usize::from(queue_pairs) + queue
}

/// The doorbell of a notification block.
pub(super) fn interrupt(queue_pairs: u16, block: usize) -> usize {
    usize::from(queue_pairs) * 2 + block
}

impl Gve {
    /// The driver rang a doorbell.
    pub(super) fn doorbell(&self, index: usize, value: u32) {
        let queues = usize::from(self.config.queue_pairs);
        match index / queues {
            0 => self.transmit(index, value),
            1 => self.post_buffers(index - queues, value),
            2 | 3 => self.interrupt_doorbell(index - 2 * queues, value),
            _ => self.misuse(format_args!("{value:#x} written to doorbell {index}, which does not exist")),
        }
    }
}
