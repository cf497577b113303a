//! Where the payload that NICs and RDMA devices wrote really went.
//!
//! Bytes are counted by the page they were written to; which buffer a page belongs to is told, before
//! or after, by [`GroundTruth::locate`]. So a buffer that moved during the traffic shows too. A byte of a
//! TCP stream counts where it was written first: what the sender sends again is counted apart.

mod stream;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;

use serde::Serialize;

use crate::bus::{Bus, Mark, Page, Residence, scan_for_marks};
use crate::control::ControlError;
use crate::ethernet::{Headers, Transport};
use crate::lock;
use stream::{Place, Streams};

/// Which payload is counted; all of it by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Only what this NIC received.
    pub(crate) nic: Option<usize>,
    /// Only packets of TCP to this port.
    pub(crate) tcp_destination_port: Option<u16>,
    /// Only what RDMA devices write.
    pub(crate) rdma_only: bool,
}

/// Counts of payload bytes.
pub(crate) struct GroundTruth {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    filter: Filter,
    buffers: Vec<String>,
    /// Which buffer a page was found to be part of.
    located: HashMap<Page, usize>,
    nics: Vec<ReceiverCounts>,
    rdma: Vec<ReceiverCounts>,
    streams: Streams,
}

#[derive(Default)]
struct ReceiverCounts {
    pages: HashMap<Page, u64>,
    header_buffer_bytes: u64,
    repeated_bytes: u64,
}

/// What [`GroundTruth::locate`] found.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Located {
    /// Pages the buffer is said to have.
    pub(crate) pages: u64,
    /// Pages of the buffer that were found.
    pub(crate) found: u64,
    /// Those found in memory of the guest.
    pub(crate) guest_ram_pages: u64,
    /// Those found in a memory window of a device.
    pub(crate) device_window_pages: u64,
    /// Those by the device whose memory they are.
    pub(crate) devices: BTreeMap<String, u64>,
    /// Further places with a mark of a page that was already found: stale copies.
    pub(crate) duplicates: u64,
}

/// Payload bytes by destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// Bytes that went to pages of located buffers.
    pub(crate) dmabuf_bytes: u64,
    /// Bytes that went to other pages.
    pub(crate) elsewhere_bytes: u64,
    /// Bytes that went to memory of the guest, located or not.
    pub(crate) guest_ram_bytes: u64,
    /// Bytes that went to memory windows of devices, located or not.
    pub(crate) device_window_bytes: u64,
    /// Those by the device whose memory they are.
    pub(crate) devices: BTreeMap<String, u64>,
    /// Payload put into header buffers, by the fault "linear"; in none of the others.
    pub(crate) header_buffer_bytes: u64,
    /// Bytes of TCP streams that had been written before, wherever; in none of the others.
    pub(crate) repeated_bytes: u64,
    /// Bytes by located buffer.
    pub(crate) buffers: BTreeMap<String, u64>,
}

/// The counts of all NICs and RDMA devices together and of each.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    pub(crate) total: Counts,
    pub(crate) nics: Vec<Counts>,
    pub(crate) rdma: Vec<Counts>,
}

/// Who wrote payload to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiver {
    Nic(usize),
    Rdma(usize),
}

/// The payload of one packet, or of one RDMA, on its way to memory.
pub(crate) struct Account {
    counted: bool,
    receiver: Receiver,
    place: Option<Place>,
    /// Where each piece of the payload went, in order; `None` is a header buffer.
    pieces: Vec<(Option<Page>, u64)>,
}

impl GroundTruth {
    pub(crate) fn new(nics: usize, rdma: usize) -> GroundTruth {
        GroundTruth { state: Mutex::new(State::new(nics, rdma, Filter::default())) }
    }

    /// Forgets counts and buffers, and counts what `filter` lets pass from now on.
    pub(crate) fn start(&self, filter: Filter) {
        let mut state = lock(&self.state);
        *state = State::new(state.nics.len(), state.rdma.len(), filter);
    }

    /// Finds the pages of a buffer by the marks the guest wrote; see `bus::locate` for their form.
    ///
    /// # Errors
    /// [`ControlError`] when no page was asked for.
    pub(crate) fn locate(
        &self,
        bus: &Bus,
        name: &str,
        nonce: &[u8; 16],
        pages: u64,
    ) -> Result<Located, ControlError> {
        if pages == 0 {
            return Err(ControlError::new("locate: a buffer has at least one page"));
        }
        let marks = scan_for_marks(bus, nonce, pages);
        let mut state = lock(&self.state);
        let buffer = state.buffers.iter().position(|known| known == name).unwrap_or_else(|| {
            state.buffers.push(name.to_owned());
            state.buffers.len() - 1
        });
        state.located.retain(|_, of| *of != buffer);
        let mut result = Located { pages, ..Located::default() };
        let mut seen = HashSet::new();
        for Mark { page, index } in marks {
            state.located.insert(page, buffer);
            if !seen.insert(index) {
                result.duplicates += 1;
                continue;
            }
            result.found += 1;
            match page.residence() {
                Residence::GuestRam => result.guest_ram_pages += 1,
                Residence::DeviceWindow => result.device_window_pages += 1,
            }
            if let Some(device) = bus.device_of(page) {
                *result.devices.entry(device).or_default() += 1;
            }
        }
        Ok(result)
    }

    /// Opens the account of a packet that `nic` received.
    pub(crate) fn open(&self, nic: usize, headers: &Headers, bytes: &[u8]) -> Account {
        let filter = lock(&self.state).filter;
        let tcp_port = (headers.transport == Transport::Tcp).then_some(headers.destination_port);
        let nic_fits = filter.nic.is_none_or(|only| only == nic);
        let port_fits = filter.tcp_destination_port.is_none_or(|only| tcp_port == Some(only));
        let place = Place::of(nic, headers, bytes);
        let receiver = Receiver::Nic(nic);
        let counted = nic_fits && port_fits && !filter.rdma_only;
        Account { counted, receiver, place, pieces: Vec::new() }
    }

    /// Opens the account of what an RDMA device writes: a message, an RDMA write of another, or its own read.
    pub(crate) fn open_rdma(&self, device: usize) -> Account {
        let filter = lock(&self.state).filter;
        let counted = filter.nic.is_none() && filter.tcp_destination_port.is_none();
        Account { counted, receiver: Receiver::Rdma(device), place: None, pieces: Vec::new() }
    }

    /// Adds what the account says to the counts.
    pub(crate) fn close(&self, account: Account) {
        if !account.counted {
            return;
        }
        let mut state = lock(&self.state);
        let State { streams, nics, rdma, .. } = &mut *state;
        let receiver = match account.receiver {
            Receiver::Nic(nic) => nics.get_mut(nic),
            Receiver::Rdma(device) => rdma.get_mut(device),
        };
        let Some(receiver) = receiver else { return };
        let new = streams.first_seen(account.place, account.pieces.iter().map(|(_, bytes)| *bytes));
        for ((page, bytes), new) in account.pieces.into_iter().zip(new) {
            match page {
                Some(page) => *receiver.pages.entry(page).or_default() += new,
                None => receiver.header_buffer_bytes += new,
            }
            receiver.repeated_bytes += bytes - new;
        }
    }

    /// The counts as of now.
    pub(crate) fn report(&self, bus: &Bus) -> Report {
        let state = lock(&self.state);
        let mut total = Counts { buffers: state.no_bytes(), ..Counts::default() };
        let mut of = |receivers: &[ReceiverCounts]| -> Vec<Counts> {
            let counts = receivers.iter().map(|receiver| state.counts(bus, receiver));
            counts.inspect(|counts| total.add_all(counts)).collect()
        };
        let (nics, rdma) = (of(&state.nics), of(&state.rdma));
        Report { total, nics, rdma }
    }
}

impl State {
    fn new(nics: usize, rdma: usize, filter: Filter) -> State {
        let mut state = State { filter, ..State::default() };
        state.nics.resize_with(nics, ReceiverCounts::default);
        state.rdma.resize_with(rdma, ReceiverCounts::default);
        state
    }

    /// Every located buffer, without bytes.
    fn no_bytes(&self) -> BTreeMap<String, u64> {
        self.buffers.iter().map(|name| (name.clone(), 0)).collect()
    }

    fn counts(&self, bus: &Bus, receiver: &ReceiverCounts) -> Counts {
        let mut counts = Counts {
            buffers: self.no_bytes(),
            header_buffer_bytes: receiver.header_buffer_bytes,
            repeated_bytes: receiver.repeated_bytes,
            ..Counts::default()
        };
        for (page, bytes) in &receiver.pages {
            let buffer = self.located.get(page).and_then(|buffer| self.buffers.get(*buffer));
            counts.add(page.residence(), buffer, *bytes);
            if let Some(device) = bus.device_of(*page) {
                *counts.devices.entry(device).or_default() += *bytes;
            }
        }
        counts
    }
}

impl Account {
    /// The next `bytes` of payload went to `page`.
    pub(crate) fn wrote(&mut self, page: Page, bytes: u64) {
        self.pieces.push((Some(page), bytes));
    }

    /// The next `bytes` of payload went to a header buffer.
    pub(crate) fn wrote_to_header_buffer(&mut self, bytes: u64) {
        self.pieces.push((None, bytes));
    }
}

impl Counts {
    fn add(&mut self, residence: Residence, buffer: Option<&String>, bytes: u64) {
        match residence {
            Residence::GuestRam => self.guest_ram_bytes += bytes,
            Residence::DeviceWindow => self.device_window_bytes += bytes,
        }
        match buffer {
            Some(name) => {
                self.dmabuf_bytes += bytes;
                *self.buffers.entry(name.clone()).or_default() += bytes;
            }
            None => self.elsewhere_bytes += bytes,
        }
    }

    fn add_all(&mut self, other: &Counts) {
        self.dmabuf_bytes += other.dmabuf_bytes;
        self.elsewhere_bytes += other.elsewhere_bytes;
        self.guest_ram_bytes += other.guest_ram_bytes;
        self.device_window_bytes += other.device_window_bytes;
        self.header_buffer_bytes += other.header_buffer_bytes;
        self.repeated_bytes += other.repeated_bytes;
        for (name, bytes) in &other.buffers {
            *self.buffers.entry(name.clone()).or_default() += bytes;
        }
        for (name, bytes) in &other.devices {
            *self.devices.entry(name.clone()).or_default() += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{PAGE_SIZE, SharedMemory};
    use crate::ethernet::samples;

    fn open(truth: &GroundTruth, nic: usize, port: u16) -> Account {
        let bytes = samples::tcp4(1, port, &[0; 8]);
        truth.open(nic, &Headers::parse(&bytes).unwrap(), &bytes)
    }

    fn mark(nonce: &[u8; 16], index: u64) -> Vec<u8> {
        [&nonce[..], &index.to_le_bytes(), &(index ^ 0x9e37_79b9_7f4a_7c15).to_le_bytes()].concat()
    }

    #[test]
    fn location_may_be_told_after_the_traffic() {
        let bus = Bus::new();
        let ram = SharedMemory::create("ram", 8 * PAGE_SIZE).unwrap();
        let space = bus.address_space();
        space.map(0, 8 * PAGE_SIZE, Some((ram.file().try_clone().unwrap(), 0)), true).unwrap();
        let window = bus.device_memory("gpu0", 2 * PAGE_SIZE).unwrap();
        bus.place_window(&window, Some(0x100000), 0..2 * PAGE_SIZE);
        let truth = GroundTruth::new(2, 1);

        let mut account = open(&truth, 1, 5201);
        for address in [PAGE_SIZE + 100, 5 * PAGE_SIZE, 0x100000] {
            space.write_telling(address, &[9; 200], |page, bytes| account.wrote(page, bytes)).unwrap();
        }
        account.wrote_to_header_buffer(16);
        truth.close(account);
        // The same packet again: nothing of it counts twice.
        let mut account = open(&truth, 1, 5201);
        space.write_telling(6 * PAGE_SIZE, &[9; 616], |page, bytes| account.wrote(page, bytes)).unwrap();
        truth.close(account);

        let nonce = [3; 16];
        space.write(PAGE_SIZE, &mark(&nonce, 0)).unwrap();
        space.write(0x100000, &mark(&nonce, 1)).unwrap();
        space.write(7 * PAGE_SIZE, &mark(&nonce, 1)).unwrap();
        let located = truth.locate(&bus, "gpu", &nonce, 3).unwrap();
        assert_eq!((located.pages, located.found, located.duplicates), (3, 2, 1));
        assert_eq!(located.guest_ram_pages + located.device_window_pages, 2);

        let report = truth.report(&bus);
        assert_eq!(report.total.dmabuf_bytes, 400);
        assert_eq!(report.total.elsewhere_bytes, 200);
        assert_eq!(report.total.guest_ram_bytes, 400);
        assert_eq!(report.total.device_window_bytes, 200);
        assert_eq!(report.total.devices, BTreeMap::from([("gpu0".to_owned(), 200)]));
        assert_eq!(report.total.header_buffer_bytes, 16);
        assert_eq!(report.total.repeated_bytes, 616);
        assert_eq!(report.total.buffers["gpu"], 400);
        assert_eq!(report.nics[0].dmabuf_bytes, 0);
        assert_eq!(report.nics[1], report.total);

        truth.start(Filter::default());
        assert_eq!(truth.report(&bus).total, Counts::default());
    }

    #[test]
    fn what_rdma_devices_write_is_counted_apart() {
        let bus = Bus::new();
        let window = bus.device_memory("gpu0", PAGE_SIZE).unwrap();
        bus.place_window(&window, Some(0), 0..PAGE_SIZE);
        let space = bus.address_space();
        let truth = GroundTruth::new(1, 2);
        let write = || {
            let mut account = truth.open_rdma(1);
            space.write_telling(0, &[1; 10], |page, bytes| account.wrote(page, bytes)).unwrap();
            truth.close(account);
        };
        write();
        write();
        let report = truth.report(&bus);
        assert_eq!((report.total.device_window_bytes, report.total.repeated_bytes), (20, 0));
        assert_eq!(report.rdma[1].devices, BTreeMap::from([("gpu0".to_owned(), 20)]));
        assert_eq!((&report.rdma[0], &report.nics[0]), (&Counts::default(), &Counts::default()));
        truth.start(Filter { nic: Some(0), ..Filter::default() });
        write();
        assert_eq!(truth.report(&bus).total, Counts::default(), "not of that NIC");
        truth.start(Filter { rdma_only: true, ..Filter::default() });
        write();
        let mut account = open(&truth, 0, 5201);
        space.write_telling(0, &[1; 10], |page, bytes| account.wrote(page, bytes)).unwrap();
        truth.close(account);
        assert_eq!(truth.report(&bus).total.device_window_bytes, 10, "not of the NIC");
    }

    #[test]
    fn only_what_the_filter_lets_pass_is_counted() {
        let bus = Bus::new();
        let window = bus.device_memory("gpu0", PAGE_SIZE).unwrap();
        bus.place_window(&window, Some(0), 0..PAGE_SIZE);
        let space = bus.address_space();
        let truth = GroundTruth::new(2, 1);
        truth.start(Filter { nic: Some(0), tcp_destination_port: Some(80), rdma_only: false });
        for (nic, port) in [(0, 80), (1, 80), (0, 81)] {
            let mut account = open(&truth, nic, port);
            space.write_telling(0, &[1; 10], |page, bytes| account.wrote(page, bytes)).unwrap();
            truth.close(account);
        }
        assert_eq!(truth.report(&bus).total.elsewhere_bytes, 10);
    }
}
