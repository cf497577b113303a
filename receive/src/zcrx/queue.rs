//! A receive queue that is registered with io_uring.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use devmem_provider::{DmaBuf, Error, ErrorKind, Result, base_page_size};
use nix::errno::Errno;

use super::host_memory::HostMemory;
use super::live;
use super::refill_queue::RefillQueue;
use super::refill_region::RefillRegion;
use super::ring::{EVENT, Ring};
use super::slot::{Slot, lock};
use super::sys::{self, AreaMemory};
use super::uapi::{self, CopyStatistics, Events, Queue, RefillEntry, RefillOffsets};
use crate::deadline::Deadline;
use crate::netdev::QueueKind;
use crate::nic::Nic;
use crate::shared_memory::SharedMemory;

/// How often a queue that is to become free is looked at.
const POLL: Duration = Duration::from_millis(2);

/// How long closing a queue waits for it to become free: the kernel closes rings in the background.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// The least room of a refill ring, in entries.
const LEAST_ENTRIES: u64 = 256;

/// The room for completions of the ring that registers a queue, where other rings receive.
const MAIN_COMPLETIONS: usize = 2048;

/// What a queue receives into, kept as long as the queue is.
#[derive(Debug)]
pub(crate) enum Area {
    DmaBuf(DmaBuf),
    Host(Arc<HostMemory>),
}

impl Area {
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::DmaBuf(dma_buf) => dma_buf.size(),
            Self::Host(memory) => memory.size(),
        }
    }

    fn memory(&self) -> AreaMemory<'_> {
        match self {
            Self::DmaBuf(dma_buf) => AreaMemory::DmaBuf(dma_buf.as_fd(), dma_buf.size()),
            Self::Host(memory) => AreaMemory::Host(&memory.0),
        }
    }
}

/// How a queue is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Registration {
    /// Entries of the refill ring; by default as many as the area has receive buffers.
    pub(crate) refill_entries: Option<u32>,
    /// The size of a receive buffer in bytes; by default a page.
    pub(crate) buffer_bytes: Option<u32>,
    /// Rings do not share the queue, also where they can.
    pub(crate) one_ring: bool,
}

/// A receive queue that is registered with io_uring, until it is closed.
#[derive(Debug)]
pub(crate) struct InterfaceQueue {
    pub(crate) nic: Nic,
    pub(crate) number: u32,
    pub(crate) area: Area,
    buffer_bytes: u32,
    token: u64,
    refill: Mutex<RefillQueue>,
    statistics_offset: Option<usize>,
    events: bool,
    rings: Mutex<Rings>,
}

/// A ring to receive with.
#[derive(Debug)]
pub(crate) struct RingFor {
    pub(crate) slot: Arc<Slot>,
    /// The queue's number there.
    pub(crate) id: u32,
    /// Whether nobody else will use it.
    pub(crate) own: bool,
}

/// The rings that have a queue.
#[derive(Debug)]
struct Rings {
    /// The ring that registered it.
    main: Option<Arc<Slot>>,
    /// The queue's number there.
    main_id: u32,
    /// By which others share it, where the kernel lets rings share queues.
    shared: Option<OwnedFd>,
    others: Vec<Weak<Slot>>,
    closed: bool,
}

impl InterfaceQueue {
    /// Registers a queue of a NIC, which must have header split on.
    ///
    /// # Errors
    ///
    /// In the outer result, io_uring cannot be used; in the inner one, the kernel refused the queue.
    pub(crate) fn register(
        nic: &Nic,
        number: u32,
        area: Area,
        registration: Registration,
    ) -> Result<Result<Arc<Self>, Errno>> {
        let page = u32::try_from(base_page_size()).unwrap_or(4096);
        let wanted_bytes = registration.buffer_bytes.unwrap_or(page);
        let entries = registration.refill_entries.unwrap_or_else(|| {
            let buffers = area.size() / u64::from(wanted_bytes.max(1));
            let entries = buffers.clamp(LEAST_ENTRIES, uapi::MAXIMUM_REFILL_ENTRIES.into());
            u32::try_from(entries).unwrap_or(uapi::MAXIMUM_REFILL_ENTRIES)
        });
        let entries = entries.clamp(1, uapi::MAXIMUM_REFILL_ENTRIES).next_power_of_two();
        let query = sys::query_zcrx().unwrap_or_default();
        let events = sys::query_events().ok().filter(|_| query.features & uapi::FEATURE_EVENT != 0);
        let layout = Layout::of(entries, page);
        let refill = SharedMemory::allocate(layout.bytes, false)
            .map_err(|errno| Error::from_errno(errno, "allocate a refill ring"))?;
        let main = Ring::new(MAIN_COMPLETIONS)?;
        let mut queue = Queue {
            interface: nic.ifindex(),
            queue: number,
            refill_entries: entries,
            // Drivers with buffers of a page only refuse to be asked for them.
            buffer_bytes: if wanted_bytes == page { 0 } else { wanted_bytes },
            ..Queue::default()
        };
        let description = events.map(|events| Events {
            user_data: EVENT,
            mask: events.mask & (1 << uapi::EVENT_ALLOCATION_FAILURE | 1 << uapi::EVENT_COPY),
            flags: uapi::EVENT_STATISTICS,
            statistics_offset: layout.statistics as u64,
            ..Events::default()
        });
        let registered = sys::register_queue(main.as_fd(), &mut queue, area.memory(), &refill, description);
        let token = match registered {
            Ok(token) => token,
            Err(errno) => return Ok(Err(errno)),
        };
        // From here on dropping the ring closes the queue.
        let region = RefillRegion::new(refill, queue.offsets, queue.refill_entries)
            .map_err(|_| unusable_offsets(queue.offsets, queue.refill_entries))?;
        let shared = match registration.one_ring {
            true => None,
            false => sys::export_queue(main.as_fd(), queue.id).ok(),
        };
        let queue = Arc::new(Self {
            nic: nic.clone(),
            number,
            area,
            buffer_bytes: if queue.buffer_bytes == 0 { page } else { queue.buffer_bytes },
            token,
            refill: Mutex::new(RefillQueue::new(region, queue.refill_entries)),
            statistics_offset: description.map(|_| layout.statistics),
            events: description.is_some_and(|description| description.mask != 0),
            rings: Mutex::new(Rings {
                main: Some(Arc::new(Slot::new(main))),
                main_id: queue.id,
                shared,
                others: Vec::new(),
                closed: false,
            }),
        });
        live::register(&queue)?;
        Ok(Ok(queue))
    }

    /// The size of a receive buffer in bytes.
    pub(crate) fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    /// Puts the queue into a ring of its own, or hands out the main ring, if the kernel lets rings share no queues
    /// and nobody has it. Returns the queue's number there.
    pub(crate) fn ring_for(&self, completions: usize) -> Result<RingFor> {
        let mut rings = lock(&self.rings);
        if rings.closed {
            return Err(self.detached());
        }
        if rings.shared.is_some() {
            let ring = Ring::new(completions)?;
            let id = self.import_into(&rings, &ring)?;
            let slot = Arc::new(Slot::new(ring));
            rings.add(&slot);
            return Ok(RingFor { slot, id, own: true });
        }
        match &rings.main {
            // Nobody else has it: one here, and one in our hands.
            Some(main) if Arc::strong_count(main) == 1 => {
                Ok(RingFor { slot: main.clone(), id: rings.main_id, own: false })
            }
            _ => Err(Error::new(ErrorKind::Unsupported, "receive another connection")
                .on(&self.nic)
                .because(
                    "one ring receives from the queue already, and the queue is not shared between rings",
                )
                .remedy("receive all connections of a queue with one receiver")),
        }
    }

    /// Puts the queue into a ring that exists. Returns its number there.
    pub(crate) fn join(&self, slot: &Arc<Slot>) -> Result<u32> {
        let mut rings = lock(&self.rings);
        let id = match slot.ring().as_ref() {
            Some(ring) if !rings.closed => self.import_into(&rings, ring)?,
            _ => return Err(self.detached()),
        };
        rings.add(slot);
        Ok(id)
    }

    fn import_into(&self, rings: &Rings, ring: &Ring) -> Result<u32> {
        let Some(shared) = &rings.shared else {
            return Err(Error::new(ErrorKind::Unsupported, "share a queue between rings")
                .on(&self.nic)
                .because("this kernel cannot, or it was not wanted"));
        };
        sys::import_queue(ring.as_fd(), shared.as_fd()).map_err(|errno| {
            let error = Error::from_errno(errno, "share a queue between rings").on(&self.nic);
            match errno {
                Errno::EPERM => error.remedy("keep CAP_NET_ADMIN for as long as connections are added"),
                _ => error,
            }
        })
    }

    /// Gives receive buffers back, by offsets in them.
    pub(crate) fn give_back(&self, give: impl FnOnce(&mut dyn FnMut(u64))) -> bool {
        let mut refill = lock(&self.refill);
        give(&mut |offset| {
            refill.push(RefillEntry { offset: offset | self.token, length: self.buffer_bytes, padding: 0 });
        });
        refill.publish()
    }

    /// Puts an entry into the refill ring as it is.
    pub(crate) fn put_refill_entry(&self, entry: RefillEntry) {
        let mut refill = lock(&self.refill);
        refill.push(entry);
        refill.publish();
    }

    /// Lets the kernel take what is in the refill ring, by a ring that has the queue under the number `id`.
    /// Returns whether everything found room then.
    pub(crate) fn flush(&self, ring: &Ring, id: u32) -> Result<bool, Errno> {
        let mut refill = lock(&self.refill);
        sys::flush_refill(ring.as_fd(), id)?;
        Ok(refill.publish())
    }

    /// How many buffers were given back and not taken by the kernel yet, and how many the refill ring has room for.
    pub(crate) fn refill_state(&self) -> (u64, u32) {
        let refill = lock(&self.refill);
        (refill.not_taken(), refill.entries())
    }

    /// What the kernel copied, where it counts that.
    pub(crate) fn copy_statistics(&self) -> Option<CopyStatistics> {
        lock(&self.refill).copy_statistics(self.statistics_offset?)
    }

    /// The ring that events come to, and the queue's number there; `None` where the kernel has no events, or where they
    /// come to a ring that receives.
    pub(crate) fn event_ring(&self) -> Result<Option<(Arc<Slot>, u32)>> {
        let rings = lock(&self.rings);
        match &rings.main {
            Some(main) if self.events && rings.shared.is_some() => Ok(Some((main.clone(), rings.main_id))),
            Some(_) => Ok(None),
            None => Err(self.detached()),
        }
    }

    /// Closes every ring that has the queue, and waits until it is free. Returns whether it is.
    pub(crate) fn close(&self) -> bool {
        let (main, others) = {
            let mut rings = lock(&self.rings);
            rings.closed = true;
            rings.shared = None;
            (rings.main.take(), std::mem::take(&mut rings.others))
        };
        let others = others.iter().filter_map(Weak::upgrade);
        others.chain(main).for_each(|slot| slot.close());
        self.wait_until_free(CLOSE_LIMIT)
    }

    fn wait_until_free(&self, limit: Duration) -> bool {
        let deadline = Deadline::after(limit);
        // A queue that is gone is free.
        while self
            .nic
            .netdev()
            .queue(self.nic.ifindex(), QueueKind::Receive, self.number)
            .is_ok_and(|queue| queue.io_uring)
        {
            if deadline.is_over() {
                return false;
            }
            std::thread::sleep(POLL);
        }
        true
    }

    fn detached(&self) -> Error {
        detached().on(format!("{} queue {}", self.nic.name(), self.number))
    }
}

impl Rings {
    fn add(&mut self, slot: &Arc<Slot>) {
        self.others.retain(|other| other.strong_count() > 0);
        self.others.push(Arc::downgrade(slot));
    }
}

/// The area is no longer attached.
pub(crate) fn detached() -> Error {
    Error::new(ErrorKind::WrongState, "receive into device memory")
        .because("the buffer was detached from the queue")
}

fn unusable_offsets(offsets: RefillOffsets, entries: u32) -> Error {
    Error::new(ErrorKind::Protocol, "map a refill ring").because(format!(
        "the kernel places head, tail and {entries} entries at {}, {} and {}, outside of its region",
        offsets.head, offsets.tail, offsets.entries
    ))
}

/// What lies where in the region of a refill ring, which must have room for the kernel's header before the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    statistics: usize,
    bytes: usize,
}

impl Layout {
    /// The header takes a page at most (it is a cache line in fact); the statistics have the last page.
    fn of(entries: u32, page: u32) -> Self {
        let page = page as usize;
        let ring = page + entries as usize * size_of::<RefillEntry>();
        let statistics = ring.next_multiple_of(page);
        Self { statistics, bytes: statistics + page }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_lie_behind_the_entries_in_a_page_of_their_own() {
        for entries in [1, 256, 32768] {
            let layout = Layout::of(entries, 4096);
            assert!(layout.statistics >= 4096 + entries as usize * 16);
            assert!(layout.statistics.is_multiple_of(4096) && layout.bytes == layout.statistics + 4096);
        }
    }

    #[test]
    fn loopback_is_refused_and_leaves_nothing_behind() {
        let nic = Nic::open("lo").unwrap();
        let memory = Arc::new(HostMemory::allocate(1 << 20).unwrap());
        match InterfaceQueue::register(&nic, 0, Area::Host(memory), Registration::default()) {
            Ok(refused) => {
                let errno = refused.unwrap_err();
                let known = [Errno::EPERM, Errno::EOPNOTSUPP, Errno::EINVAL];
                assert!(known.contains(&errno), "{errno}");
            }
            Err(error) => println!("skipped: {error}"),
        }
    }
}
