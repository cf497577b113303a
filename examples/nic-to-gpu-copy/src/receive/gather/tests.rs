//! A NIC that writes to a page as soon as it is given back, and a device that reads what it copies as late as it
//! can.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use devmem_provider::device_copy::{Gather, Ticket, Worker, check_gather};
use devmem_provider::dma_buf::SyncFile;
use devmem_provider::{
    Buffer, Capabilities, DeviceKind, DmaBuf, Error, ErrorKind, Extent, Heap, Identity, Placement, Provider,
    Request, Residency, ResidencyEvidence, Result as ProviderResult,
};

use super::destination::{Destination, Room};
use super::{Held, Share, StripeGather};
use crate::transfer::Header;

const PAGE: usize = 4096;
const LIMIT: Duration = Duration::from_secs(1);

/// Hands out buffers that nobody touches.
#[derive(Debug)]
struct Nothing(Identity);

#[derive(Debug)]
struct NoBuffer(u64);

impl Nothing {
    fn new() -> Self {
        Self(Identity {
            name: "nothing".to_owned(),
            backend: "nothing",
            description: "no device".to_owned(),
            kind: DeviceKind::Software,
            driver: "none".to_owned(),
            driver_version: None,
            node: "/dev/null".into(),
            pci: None,
            numa_node: None,
        })
    }
}

impl Provider for Nothing {
    fn identity(&self) -> &Identity {
        &self.0
    }

    fn heaps(&self) -> ProviderResult<Vec<Heap>> {
        Ok(vec![Heap {
            name: "nothing".to_owned(),
            placement: Placement::System,
            size: Some(1 << 40),
            used: None,
            cpu_visible: None,
            maximum_allocation: None,
            granularity: 65536,
        }])
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }

    fn allocate(&self, request: &Request) -> ProviderResult<Box<dyn Buffer>> {
        request.check_size(&self.heaps()?[0])?;
        Ok(Box::new(NoBuffer(request.size())))
    }
}

impl Buffer for NoBuffer {
    fn size(&self) -> u64 {
        self.0
    }

    fn export(&self) -> ProviderResult<DmaBuf> {
        let file = File::open("/dev/null").map_err(|error| Error::from_io(error, "open /dev/null"))?;
        Ok(DmaBuf::from_exporter(file.into(), self.0))
    }

    fn residency(&self) -> ProviderResult<ResidencyEvidence> {
        Ok(ResidencyEvidence { residency: Residency::Unknown, region: None, evidence: "nowhere".to_owned() })
    }
}

fn destination(bytes: u64) -> Destination {
    let header = Header::split([0; 16], bytes, 1, None)[0];
    Destination::allocate(&Nothing::new(), Room { limit: u64::MAX, placement: None }, &header).unwrap()
}

/// What NIC and device share.
#[derive(Debug, Default)]
struct Memory {
    source: Vec<u8>,
    destination: Vec<u8>,
}

/// Copies a batch only when it is asked for completion more often than it has patience for, or waited for.
#[derive(Debug)]
struct LateGather {
    memory: Arc<Mutex<Memory>>,
    batches: VecDeque<(Vec<Extent>, u64)>,
    completed: u64,
    submitted: u64,
    asked: u64,
    patience: u64,
    /// The batch with which the device is lost.
    lost_at: u64,
}

impl LateGather {
    fn complete_one(&mut self) -> ProviderResult<()> {
        if self.completed + 1 >= self.lost_at {
            return Err(Error::new(ErrorKind::Gone, "copy on the device").because("the device is lost"));
        }
        let Some((pieces, mut target)) = self.batches.pop_front() else { return Ok(()) };
        let memory = &mut *self.memory.lock().unwrap();
        for piece in pieces {
            let bytes = &memory.source[piece.offset as usize..][..piece.length as usize];
            memory.destination[target as usize..][..bytes.len()].copy_from_slice(bytes);
            target += piece.length;
        }
        self.completed += 1;
        Ok(())
    }
}

impl Gather for LateGather {
    fn submit_after(
        &mut self,
        _fence: Option<&SyncFile>,
        fragments: &[Extent],
        offset: u64,
    ) -> ProviderResult<Ticket> {
        let memory = self.memory.lock().unwrap();
        let (source, destination) = (memory.source.len() as u64, memory.destination.len() as u64);
        check_gather(fragments, source, offset, destination, false)?;
        self.batches.push_back((fragments.to_vec(), offset));
        self.submitted += 1;
        Ok(Ticket::new(self.submitted))
    }

    fn completed(&mut self) -> ProviderResult<Ticket> {
        self.asked += 1;
        if self.asked.is_multiple_of(self.patience) {
            self.complete_one()?;
        }
        Ok(Ticket::new(self.completed))
    }

    fn wait(&mut self, ticket: Ticket, _limit: Duration) -> ProviderResult<bool> {
        while self.completed < ticket.number() {
            self.complete_one()?;
        }
        Ok(true)
    }

    fn sync_file(&mut self, _ticket: Ticket) -> ProviderResult<SyncFile> {
        Err(Error::new(ErrorKind::Unsupported, "make a fence"))
    }
}

/// A piece of the stream in a page of the buffer.
#[derive(Debug, Clone, Copy)]
struct Fragment {
    page: usize,
    start: usize,
    length: usize,
}

/// A NIC with a buffer.
struct Nic {
    memory: Arc<Mutex<Memory>>,
    free: VecDeque<usize>,
    /// The pages in the order in which they were given back.
    released: Vec<usize>,
    most_held: usize,
    pages: usize,
}

impl Nic {
    fn new(pages: usize, file_bytes: usize) -> Self {
        let memory = Memory { source: vec![0xee; pages * PAGE], destination: vec![0; file_bytes] };
        Self {
            memory: Arc::new(Mutex::new(memory)),
            free: (0..pages).collect(),
            released: Vec::new(),
            most_held: 0,
            pages,
        }
    }

    fn write(&mut self, start: usize, bytes: &[u8]) -> Fragment {
        let page = self.free.pop_front().expect("the NIC has a page left");
        self.memory.lock().unwrap().source[page * PAGE + start..][..bytes.len()].copy_from_slice(bytes);
        self.most_held = self.most_held.max(self.pages - self.free.len());
        Fragment { page, start, length: bytes.len() }
    }

    /// Takes a page back, and writes something else there at once.
    fn take_back(&mut self, fragment: Fragment) {
        self.memory.lock().unwrap().source[fragment.page * PAGE..][..PAGE].fill(0xee);
        self.free.push_back(fragment.page);
        self.released.push(fragment.page);
    }

    fn gather(&self, patience: u64, lost_at: u64) -> Box<dyn Gather> {
        Box::new(LateGather {
            memory: Arc::clone(&self.memory),
            batches: VecDeque::new(),
            completed: 0,
            submitted: 0,
            asked: 0,
            patience,
            lost_at,
        })
    }
}

fn file(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| ((at * 2_654_435_761) >> 7) as u8).collect()
}

/// Receives a file through a buffer of so many pages, in receives as large as the share allows.
fn transfer(nic: &mut Nic, file: &[u8], patience: u64, lost_at: u64) -> Result<u64> {
    let destination = destination(file.len() as u64);
    let mut gathering = StripeGather::new(Some(nic.gather(patience, lost_at)), Worker::Device, &destination);
    let mut held = Held::new(true);
    let share = Share::with_copies((nic.pages * PAGE) as u64, 1);
    let mut done = 0;
    while done < file.len() {
        let mut batch = 0;
        while done < file.len() && batch < share.batch_bytes {
            // Neither at the beginning of a page nor whole ones.
            let length = (1448 + done % 700).min(file.len() - done);
            let fragment = nic.write(done % 13, &file[done..][..length]);
            let place = (fragment.page * PAGE + fragment.start) as u64;
            gathering.add(Extent::new(place, fragment.length as u64), done as u64)?;
            held.push(fragment);
            done += length;
            batch += PAGE;
        }
        held.close(gathering.submit()?);
        held.release_completed(Some(&mut gathering), share, LIMIT, |fragments| {
            fragments.for_each(|fragment| nic.take_back(fragment));
            Ok(())
        })?;
    }
    let placed = gathering.finish(LIMIT)?;
    held.take_all().for_each(|fragment| nic.take_back(fragment));
    assert_eq!((placed.by_device, placed.by_cpu), (file.len() as u64, 0));
    Ok(placed.batches)
}

#[test]
fn a_page_goes_back_only_when_its_copy_is_completed() {
    let file = file(1 << 20);
    for (pages, patience) in [(128, 1), (128, 2), (128, 7), (256, u64::MAX), (64, u64::MAX)] {
        let mut nic = Nic::new(pages, file.len());
        transfer(&mut nic, &file, patience, u64::MAX).unwrap();
        assert!(nic.memory.lock().unwrap().destination == file, "{pages} pages, patience {patience}");
        assert_eq!(nic.free.len(), pages, "pages are lost");
    }
}

#[test]
fn half_of_the_buffer_is_left_for_the_nic() {
    let file = file(4 << 20);
    for pages in [128, 256, 1024] {
        let mut nic = Nic::new(pages, file.len());
        let batches = transfer(&mut nic, &file, u64::MAX, u64::MAX).unwrap();
        assert!(nic.most_held <= pages / 2, "{} of {pages} pages were held", nic.most_held);
        // Late copies are waited for only when they must be.
        assert!(nic.most_held > pages / 4 && batches > 2, "{} of {pages} pages", nic.most_held);
    }
}

#[test]
fn pages_go_back_in_the_order_of_their_arrival() {
    let file = file(1 << 20);
    let mut nic = Nic::new(256, file.len());
    transfer(&mut nic, &file, 3, u64::MAX).unwrap();
    let expected: Vec<usize> = (0..nic.released.len()).map(|number| number % 256).collect();
    assert_eq!(nic.released, expected);
}

#[test]
fn a_device_that_is_lost_midway_ends_the_transfer() {
    let file = file(1 << 20);
    for (patience, lost_at) in [(1, 1), (2, 3), (u64::MAX, 2), (u64::MAX, 4)] {
        let mut nic = Nic::new(128, file.len());
        let error = transfer(&mut nic, &file, patience, lost_at).unwrap_err();
        assert!(format!("{error:#}").contains("the device is lost"), "{error:#}");
        assert!(nic.released.len() < file.len() / PAGE);
    }
}

#[test]
fn payload_that_does_not_follow_is_another_batch() {
    let nic = Nic::new(16, 4 * PAGE);
    let destination = destination(4 * PAGE as u64);
    let mut gathering = StripeGather::new(Some(nic.gather(1, u64::MAX)), Worker::Device, &destination);
    let page = PAGE as u64;
    // Between the second and the third lies what arrived elsewhere.
    gathering.add(Extent::new(0, page), 0).unwrap();
    gathering.add(Extent::new(page, 10), page).unwrap();
    gathering.add(Extent::new(2 * page, 10), page + 20).unwrap();
    assert_eq!(gathering.submit().unwrap(), Ticket::new(2));
    // Nothing new, nothing to wait for.
    assert_eq!(gathering.submit().unwrap(), Ticket::new(2));
    let placed = gathering.finish(LIMIT).unwrap();
    assert_eq!((placed.by_device, placed.batches), (page + 20, 2));
}

#[test]
fn fragments_without_copies_go_back_at_once() {
    let mut held = Held::new(false);
    held.push('a');
    held.push('b');
    held.close(Ticket::NONE);
    let mut released = String::new();
    let share = Share::without_copies(1 << 20, 1);
    held.release_completed(None, share, LIMIT, |fragments| {
        released.extend(fragments);
        Ok(())
    })
    .unwrap();
    assert_eq!(released, "ab");
}

#[test]
fn room_is_bounded_and_rounded() {
    let allocate = |bytes, limit| {
        let header = Header::split([0; 16], bytes, 1, None)[0];
        Destination::allocate(&Nothing::new(), Room { limit, placement: None }, &header)
            .map(|destination| destination.dma_buf().size())
            .map_err(|error| format!("{error:#}"))
    };
    assert_eq!(allocate(0, 1 << 30), Ok(65536));
    assert_eq!(allocate(65537, 1 << 30), Ok(131_072));
    assert!(allocate((1 << 30) + 1, 1 << 30).unwrap_err().contains("--gather-limit"));
    assert!(allocate(1 << 50, u64::MAX).unwrap_err().contains("size of the whole heap"));
    assert!(allocate(u64::MAX, u64::MAX).unwrap_err().contains("no buffer is that large"));
}

#[test]
fn shares_leave_half_of_the_buffer() {
    for (bytes, connections) in [(64 << 20, 1), (64 << 20, 8), (1 << 20, 1), (16 << 30, 1), (1 << 40, 32)] {
        let share = Share::with_copies(bytes, connections);
        let taken = share.batch_bytes as u64 + (share.held_fragments * PAGE) as u64;
        assert!(taken <= bytes / 2 / connections as u64, "{bytes} {connections}: {share:?}");
        assert!(share.batch_bytes <= 4 << 20, "{share:?}");
    }
    // A buffer that is too small for all gets nobody stuck.
    assert_eq!(Share::with_copies(1 << 20, 64), Share { batch_bytes: 16 * PAGE, held_fragments: 0 });
}
