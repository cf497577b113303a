//! Traffic control: what becomes of packets that wait to be sent (rtnetlink, tc(8)).

use std::time::Duration;

use nix::sys::socket::SockProtocol;

use super::attribute::{AttributeIter, Attributes};
use super::connection::{Connection, Request};
use super::error::{Malformed, Result};
use super::names::{AttributeName, AttributeTable};

/// The bytes of `struct tcmsg`.
const HEADER: usize = 20;
/// `TC_H_ROOT`: in place of a parent, the device itself.
const ROOT: u32 = u32::MAX;

/// The packets that netem keeps at most; what comes beyond is dropped.
const LIMIT: u32 = 10_000;
/// `struct tc_netem_qopt`: 32-bit numbers, in this order (include/uapi/linux/pkt_sched.h).
const OPTIONS: usize = 6;
const OPTION_LIMIT: usize = 1;
const OPTION_LOSS: usize = 2;
const OPTION_GAP: usize = 3;
const OPTION_DUPLICATE: usize = 4;
/// `TCA_NETEM_*`.
const NETEM_REORDER: u16 = 3;
const NETEM_LATENCY64: u16 = 10;

/// `TCA_STATS_*` (include/uapi/linux/gen_stats.h).
const STATISTICS_BASIC: u16 = 1;
const STATISTICS_QUEUE: u16 = 3;

static NAMES: AttributeTable = AttributeTable {
    attributes: &[
        AttributeName::plain(libc::TCA_KIND, "kind"),
        AttributeName::plain(libc::TCA_OPTIONS, "options"),
    ],
};

/// What netem (`sch_netem`) does to the packets that a device sends, in parts of a thousand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Netem {
    /// Packets that are dropped.
    pub loss: u16,
    /// Packets that are sent twice.
    pub duplicate: u16,
    /// Packets that are not delayed, and so overtake others.
    pub reorder: u16,
    /// How long packets are delayed.
    pub delay: Duration,
}

/// A queueing discipline of a device, and what it has counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueingDiscipline {
    /// Its kind, such as `fq_codel`.
    pub kind: String,
    /// The number that it was made with; 0 for those that the kernel made.
    pub handle: u32,
    /// Packets that it has handed to the device.
    pub packets: u32,
    /// Packets that it has dropped.
    pub dropped: u32,
}

/// A socket that speaks rtnetlink about queueing disciplines.
#[derive(Debug)]
pub struct TrafficControl {
    connection: Connection,
}

impl TrafficControl {
    /// Opens a socket of its own.
    ///
    /// # Errors
    /// No netlink socket is to be had.
    pub fn open() -> Result<Self> {
        Ok(Self { connection: Connection::open(SockProtocol::NetlinkRoute)? })
    }

    /// Puts netem before all packets that a device sends, with `major` as its handle, in place of what the kernel has
    /// chosen for the device by itself.
    ///
    /// # Errors
    /// `EEXIST`: the device has a queueing discipline that somebody chose. `ENOENT`: this kernel has no netem.
    /// `EPERM`: without `CAP_NET_ADMIN`.
    pub fn add_netem(&mut self, ifindex: u32, major: u16, netem: &Netem) -> Result<()> {
        let attributes =
            Attributes::new().string(libc::TCA_KIND, "netem").bytes(libc::TCA_OPTIONS, &options(netem));
        let header = header(ifindex, handle(major));
        let names = &NAMES;
        // Without NLM_F_REPLACE one that somebody chose is left as it is (tc_modify_qdisc() in net/sched/sch_api.c).
        let kind = libc::RTM_NEWQDISC;
        self.connection.create(Request { kind, header: &header, attributes: &attributes, names })
    }

    /// Removes what was added with this handle. The kernel then chooses for the device by itself, as it did before.
    ///
    /// # Errors
    /// `ENOENT` or `EINVAL`: there is none with this handle. `EPERM`: without `CAP_NET_ADMIN`.
    pub fn remove(&mut self, ifindex: u32, major: u16) -> Result<()> {
        let header = header(ifindex, handle(major));
        let attributes = Attributes::new();
        let (kind, names) = (libc::RTM_DELQDISC, &NAMES);
        self.connection.exchange(Request { kind, header: &header, attributes: &attributes, names }).map(drop)
    }

    /// What all packets pass that a device sends, if it has such a thing.
    ///
    /// # Errors
    /// The socket failed or a reply is malformed.
    pub fn of_device(&mut self, ifindex: u32) -> Result<Option<QueueingDiscipline>> {
        let header = header(ifindex, 0);
        let attributes = Attributes::new();
        let (kind, names) = (libc::RTM_GETQDISC, &NAMES);
        let replies =
            self.connection.dump(Request { kind, header: &header, attributes: &attributes, names })?;
        for payload in &replies.payloads {
            let (of, parent, discipline) = decode(payload)?;
            if of == ifindex && parent == ROOT {
                return Ok(Some(discipline));
            }
        }
        Ok(None)
    }
}

/// The handle with this major number.
fn handle(major: u16) -> u32 {
    u32::from(major) << 16
}

/// `struct tcmsg` for a request about what sits at a device itself.
fn header(ifindex: u32, handle: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    header[8..12].copy_from_slice(&handle.to_ne_bytes());
    header[12..16].copy_from_slice(&ROOT.to_ne_bytes());
    header
}

/// A part of a thousand as the kernel takes it: of 2³² − 1.
fn probability(parts: u16) -> u32 {
    // 1000 parts are all, so that the quotient fits.
    (u64::from(parts.min(1000)) * u64::from(u32::MAX) / 1000) as u32
}

/// `struct tc_netem_qopt`, and the attributes behind it.
fn options(netem: &Netem) -> Vec<u8> {
    let mut numbers = [0_u32; OPTIONS];
    numbers[OPTION_LIMIT] = LIMIT;
    numbers[OPTION_LOSS] = probability(netem.loss);
    numbers[OPTION_DUPLICATE] = probability(netem.duplicate);
    let nanoseconds = i64::try_from(netem.delay.as_nanos()).unwrap_or(i64::MAX);
    let mut attributes = Attributes::new().bytes(NETEM_LATENCY64, &nanoseconds.to_ne_bytes());
    if netem.reorder > 0 {
        // With a gap of 1 every packet may be one that overtakes.
        numbers[OPTION_GAP] = 1;
        let reorder = [probability(netem.reorder), 0].map(u32::to_ne_bytes).concat();
        attributes = attributes.bytes(NETEM_REORDER, &reorder);
    }
    let mut bytes = numbers.map(u32::to_ne_bytes).concat();
    bytes.extend_from_slice(attributes.as_bytes());
    bytes
}

/// The interface, the parent, and the rest.
fn decode(payload: &[u8]) -> Result<(u32, u32, QueueingDiscipline), Malformed> {
    let Some((header, attributes)) = payload.split_first_chunk::<HEADER>() else {
        return Err(Malformed("a header of traffic control that is cut off"));
    };
    let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let mut discipline = QueueingDiscipline { handle: word(8), ..QueueingDiscipline::default() };
    for attribute in AttributeIter::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            libc::TCA_KIND => discipline.kind = attribute.string(),
            libc::TCA_STATS2 => count(attribute.nested(), &mut discipline)?,
            _ => {}
        }
    }
    Ok((word(4), word(12), discipline))
}

fn count(statistics: AttributeIter<'_>, discipline: &mut QueueingDiscipline) -> Result<(), Malformed> {
    for part in statistics {
        let part = part?;
        let number = |index: usize| {
            let word = part.payload().as_chunks::<4>().0.get(index);
            word.map(|&word| u32::from_ne_bytes(word)).ok_or(Malformed("counters that are cut off"))
        };
        match part.kind() {
            // `struct gnet_stats_basic`: behind 64 bits of bytes.
            STATISTICS_BASIC => discipline.packets = number(2)?,
            // `struct gnet_stats_queue`: behind the packets and bytes that wait.
            STATISTICS_QUEUE => discipline.dropped = number(2)?,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use devmem_uapi_check::Header;
    use nix::errno::Errno;
    use nix::sched::{CloneFlags, unshare};
    use proptest::prelude::*;

    #[test]
    fn parts_of_a_thousand_are_of_all_that_there_is() {
        assert_eq!([0, 1000, 2000].map(probability), [0, u32::MAX, u32::MAX]);
        assert_eq!(probability(500), u32::MAX / 2);
    }

    #[test]
    fn numbers_and_layouts_are_those_of_the_headers() {
        let bytes = |words: usize| words as i128 * 4;
        Header::new("linux/pkt_sched.h")
            .value("TC_H_ROOT", ROOT)
            .value("TCA_NETEM_REORDER", NETEM_REORDER)
            .value("TCA_NETEM_LATENCY64", NETEM_LATENCY64)
            .value("sizeof(struct tc_netem_qopt)", bytes(OPTIONS))
            .value("offsetof(struct tc_netem_qopt, limit)", bytes(OPTION_LIMIT))
            .value("offsetof(struct tc_netem_qopt, loss)", bytes(OPTION_LOSS))
            .value("offsetof(struct tc_netem_qopt, gap)", bytes(OPTION_GAP))
            .value("offsetof(struct tc_netem_qopt, duplicate)", bytes(OPTION_DUPLICATE))
            .assert();
        Header::new("linux/gen_stats.h")
            .value("TCA_STATS_BASIC", STATISTICS_BASIC)
            .value("TCA_STATS_QUEUE", STATISTICS_QUEUE)
            .value("offsetof(struct gnet_stats_basic, packets)", bytes(2))
            .value("offsetof(struct gnet_stats_queue, drops)", bytes(2))
            .assert();
        Header::new("linux/rtnetlink.h")
            .value("sizeof(struct tcmsg)", HEADER as i128)
            .value("offsetof(struct tcmsg, tcm_ifindex)", 4)
            .value("offsetof(struct tcmsg, tcm_handle)", 8)
            .value("offsetof(struct tcmsg, tcm_parent)", 12)
            .assert();
    }

    #[test]
    fn options_are_laid_out_as_the_header_says() {
        let netem = Netem { loss: 1000, duplicate: 500, reorder: 0, delay: Duration::from_millis(2) };
        let bytes = options(&netem);
        let numbers: Vec<u32> =
            bytes.as_chunks::<4>().0.iter().map(|&word| u32::from_ne_bytes(word)).collect();
        assert_eq!(numbers[..OPTIONS], [0, LIMIT, u32::MAX, 0, u32::MAX / 2, 0]);
        let attributes: Vec<_> = AttributeIter::new(&bytes[OPTIONS * 4..]).map(Result::unwrap).collect();
        assert_eq!((attributes.len(), attributes[0].kind(), attributes[0].int()), (1, 10, Ok(2_000_000)));
        let bytes = options(&Netem { reorder: 250, ..netem });
        let attributes: Vec<_> = AttributeIter::new(&bytes[OPTIONS * 4..]).map(Result::unwrap).collect();
        assert_eq!((attributes[1].kind(), attributes[1].u32_table().unwrap().len()), (3, 2));
        assert_eq!(bytes[OPTION_GAP * 4], 1);
    }

    /// In a thread with a network namespace of its own, where one is to be had.
    fn in_a_namespace(test: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(move || match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => test(),
            Err(errno) => println!("skipped: a network namespace is not to be had: {errno}"),
        });
        thread.join().unwrap();
    }

    #[test]
    fn netem_is_added_once_and_removed() {
        in_a_namespace(|| {
            let (mut control, lo) = (TrafficControl::open().unwrap(), 1);
            let before = control.of_device(lo).unwrap();
            let netem = Netem { loss: 10, reorder: 20, delay: Duration::from_millis(1), ..Netem::default() };
            match control.add_netem(lo, 0x77, &netem) {
                Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::EPERM)) => {
                    println!("skipped: {error}");
                    return;
                }
                added => added.unwrap(),
            }
            let found = control.of_device(lo).unwrap().unwrap();
            assert_eq!((found.kind.as_str(), found.handle), ("netem", 0x77 << 16));
            assert_eq!(control.add_netem(lo, 0x77, &netem).unwrap_err().errno(), Some(Errno::EEXIST));
            assert_eq!(control.add_netem(lo, 0x78, &netem).unwrap_err().errno(), Some(Errno::EEXIST));
            assert!(control.remove(lo, 0x78).is_err());
            control.remove(lo, 0x77).unwrap();
            assert_eq!(control.of_device(lo).unwrap(), before);
        });
    }

    proptest! {
        #[test]
        fn any_reply_ends_without_panic(payload: Vec<u8>, kind in 0u16..10, bytes: Vec<u8>) {
            let _ = decode(&payload);
            let mut payload = vec![0; HEADER];
            let inner = Attributes::new().bytes(STATISTICS_BASIC, &bytes).bytes(STATISTICS_QUEUE, &bytes);
            payload.extend_from_slice(Attributes::new().bytes(kind, &bytes).nest(libc::TCA_STATS2, inner).as_bytes());
            let _ = decode(&payload);
        }
    }
}
