//! Where the doorbells are: BAR 0 behind the registers, in pages that a driver hands out to programs.
//!
//! | in a page | doorbell | value |
//! |---|---|---|
//! | 8n | send queue of queue pair n | how many entries were ever posted, modulo 2^16 |
//! | 8n + 4 | receive queue of queue pair n | how many descriptors were ever posted, modulo 2^16 |
//! | 0x800 + 4n | completion queue n | completions ever taken in bits 15:0, a count of armings in 30:29, bit 31 arms |
//!
//! A driver learns these places when it creates a queue; no other layout is promised to it. In every page only the
//! doorbells of the queues that were created for it work.

/// Bytes of a page, and of the registers before the first.
pub(super) const PAGE: u64 = 0x1000;
/// Pages that there are.
pub(super) const MAXIMUM_PAGES: usize = 255;
/// Bytes of BAR 0.
pub(super) const BAR_SIZE: u32 = 0x1000 * (MAXIMUM_PAGES as u32 + 1);

const COMPLETION_QUEUES: u64 = 0x800;

/// A doorbell, by the number of its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doorbell {
    Send(u16),
    Receive(u16),
    Completion(u16),
}

impl Doorbell {
    /// The page and the doorbell at an offset of BAR 0 behind the registers.
    pub(super) fn at(offset: u64) -> Option<(u16, Doorbell)> {
        let page = u16::try_from((offset / PAGE).checked_sub(1)?).ok()?;
        let in_page = offset % PAGE;
        let doorbell = match (in_page >= COMPLETION_QUEUES, in_page % 8) {
            (_, 1..=3 | 5..=7) => return None,
            (true, _) => Doorbell::Completion(((in_page - COMPLETION_QUEUES) / 4) as u16),
            (false, 0) => Doorbell::Send((in_page / 8) as u16),
            (false, _) => Doorbell::Receive((in_page / 8) as u16),
        };
        Some((page, doorbell))
    }

    /// Its offset in BAR 0, in this page.
    pub(super) fn offset(self, page: u16) -> u32 {
        let in_page = match self {
            Doorbell::Send(pair) => u64::from(pair) * 8,
            Doorbell::Receive(pair) => u64::from(pair) * 8 + 4,
            Doorbell::Completion(queue) => COMPLETION_QUEUES + u64::from(queue) * 4,
        };
        ((u64::from(page) + 1) * PAGE + in_page) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::super::completion_queue::MAXIMUM_COMPLETION_QUEUES;
    use super::super::queue_pair::MAXIMUM_QUEUE_PAIRS;
    use super::*;

    #[test]
    fn every_doorbell_is_where_it_says() {
        let (pairs, queues) = (MAXIMUM_QUEUE_PAIRS as u16, MAXIMUM_COMPLETION_QUEUES as u16);
        for page in [0, MAXIMUM_PAGES as u16 - 1] {
            for pair in [0, 1, pairs - 1] {
                for doorbell in [Doorbell::Send(pair), Doorbell::Receive(pair)] {
                    assert_eq!(Doorbell::at(doorbell.offset(page).into()), Some((page, doorbell)));
                }
            }
            let last = Doorbell::Completion(queues - 1);
            assert_eq!(Doorbell::at(last.offset(page).into()), Some((page, last)));
            assert!(last.offset(page) < BAR_SIZE);
        }
        assert!(Doorbell::Send(pairs - 1).offset(0) < Doorbell::Completion(0).offset(0));
        assert_eq!((Doorbell::at(0x68), Doorbell::at(0x1002)), (None, None));
    }
}
