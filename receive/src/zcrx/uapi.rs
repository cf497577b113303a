//! The interface of io_uring zero-copy receive, as the kernel defines it.
//!
//! Sources: `include/uapi/linux/io_uring/zcrx.h`, `include/uapi/linux/io_uring/query.h` and
//! `include/uapi/linux/io_uring.h` of Linux 7.3. Older kernels know a part of it: members that they lack are
//! zero there, and what they cannot do is found with [`query`](super::sys::query) or by trying.

/// `IORING_REGISTER_ZCRX_IFQ`: registers a receive queue, or a shared one with [`REGISTER_IMPORT`].
pub(crate) const REGISTER_QUEUE: u32 = 32;
/// `IORING_REGISTER_QUERY`: asks what the kernel can do. Takes no ring and no privilege.
pub(crate) const REGISTER_QUERY: u32 = 35;
/// `IORING_REGISTER_ZCRX_CTRL`: does something with a registered queue.
pub(crate) const REGISTER_CONTROL: u32 = 36;

/// `IO_URING_QUERY_ZCRX`: answered with a [`QueryZcrx`].
pub(crate) const QUERY_ZCRX: u32 = 1;
/// `IO_URING_QUERY_ZCRX_EVENT`: answered with a [`QueryEvents`].
pub(crate) const QUERY_EVENTS: u32 = 3;

/// `IORING_ZCRX_AREA_DMABUF`: the area is a DMA-buf.
pub(crate) const AREA_DMABUF: u32 = 1;
/// `IORING_ZCRX_AREA_SHIFT`: offsets carry the area's number from this bit on.
pub(crate) const AREA_SHIFT: u32 = 48;
/// `ZCRX_REG_IMPORT`: the queue is one that another ring shares.
pub(crate) const REGISTER_IMPORT: u32 = 1;
/// `ZCRX_FEATURE_RX_PAGE_SIZE`: receive buffers may be larger than a page.
pub(crate) const FEATURE_BUFFER_SIZE: u32 = 1;
/// `ZCRX_FEATURE_EVENT`: events and statistics.
pub(crate) const FEATURE_EVENT: u32 = 2;
/// `ZCRX_EVENT_DESC_FLAG_STATS`: keep statistics at `statistics_offset`.
pub(crate) const EVENT_STATISTICS: u32 = 1;
/// `ZCRX_EVENT_ALLOC_FAIL`: the area had no buffer for the NIC.
pub(crate) const EVENT_ALLOCATION_FAILURE: u32 = 0;
/// `ZCRX_EVENT_COPY`: payload was copied into the area.
pub(crate) const EVENT_COPY: u32 = 1;
/// `ZCRX_CTRL_FLUSH_RQ`: takes what is in the refill ring now.
pub(crate) const CONTROL_FLUSH: u32 = 0;
/// `ZCRX_CTRL_EXPORT`: makes a descriptor by which another ring can share the queue.
pub(crate) const CONTROL_EXPORT: u32 = 1;
/// `ZCRX_CTRL_ARM_EVENT`: lets an event be told again.
pub(crate) const CONTROL_ARM_EVENT: u32 = 2;
/// `IORING_MEM_REGION_TYPE_USER`: the region's memory is the caller's.
pub(crate) const REGION_USER: u32 = 1;
/// `IORING_CQE_F_MORE`: the request goes on.
pub(crate) const COMPLETION_MORE: u32 = 2;

/// The most entries of a refill ring (`IO_RQ_MAX_ENTRIES` in `io_uring/zcrx.c`).
pub(crate) const MAXIMUM_REFILL_ENTRIES: u32 = 32768;

/// `struct io_uring_zcrx_rqe`: a buffer that is given back.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RefillEntry {
    /// Where it lies in bytes, with the area's token, which is its number from bit 48 on.
    pub offset: u64,
    /// How long it is, in bytes. Not looked at.
    pub length: u32,
    /// Zero.
    pub padding: u32,
}

/// `struct io_uring_zcrx_offsets`: where the parts of the refill ring are in its region.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RefillOffsets {
    /// The kernel's position.
    pub(crate) head: u32,
    /// The program's position.
    pub(crate) tail: u32,
    /// The entries.
    pub(crate) entries: u32,
    /// Zero.
    pub(crate) reserved: u32,
    /// Zero.
    pub(crate) reserved2: [u64; 2],
}

/// `struct io_uring_zcrx_area_reg`: the memory that is received into.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Area {
    /// Where it begins; 0 for a DMA-buf.
    pub(crate) address: u64,
    /// Its size in bytes: all of a DMA-buf.
    pub(crate) length: u64,
    /// What the kernel wants in the upper bits of offsets that are given back.
    pub(crate) token: u64,
    /// [`AREA_DMABUF`] or zero.
    pub(crate) flags: u32,
    /// The DMA-buf.
    pub(crate) dmabuf: u32,
    /// Zero.
    pub(crate) reserved: [u64; 2],
}

/// `struct io_uring_region_desc`: memory that is shared with the kernel.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Region {
    /// Where it is.
    pub(crate) address: u64,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// [`REGION_USER`].
    pub(crate) flags: u32,
    /// Zero.
    pub(crate) id: u32,
    /// Where to map it, if the kernel allocated it.
    pub(crate) map_offset: u64,
    /// Zero.
    pub(crate) reserved: [u64; 4],
}

/// `struct zcrx_event_desc`: which events are told, and where statistics are kept.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Events {
    /// What the completions of events carry.
    pub(crate) user_data: u64,
    /// A bit for each event.
    pub(crate) mask: u32,
    /// [`EVENT_STATISTICS`].
    pub(crate) flags: u32,
    /// Where the [`CopyStatistics`] are in the refill ring's region.
    pub(crate) statistics_offset: u64,
    /// Zero.
    pub(crate) reserved: [u64; 9],
}

/// `struct zcrx_stats`: payload that the kernel copied into the area.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyStatistics {
    /// How often.
    pub count: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// `struct io_uring_zcrx_ifq_reg`: a receive queue that is registered.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Queue {
    /// The interface; with [`REGISTER_IMPORT`] the descriptor of the shared queue.
    pub(crate) interface: u32,
    /// The receive queue.
    pub(crate) queue: u32,
    /// Entries of the refill ring; the kernel rounds them up.
    pub(crate) refill_entries: u32,
    /// [`REGISTER_IMPORT`] or zero.
    pub(crate) flags: u32,
    /// The [`Area`].
    pub(crate) area: u64,
    /// The [`Region`] of the refill ring.
    pub(crate) region: u64,
    /// Where the refill ring's parts are; the kernel says it.
    pub(crate) offsets: RefillOffsets,
    /// The queue's number in the ring; the kernel says it.
    pub(crate) id: u32,
    /// The size of a receive buffer in bytes, 0 for a page.
    pub(crate) buffer_bytes: u32,
    /// The [`Events`], or zero.
    pub(crate) events: u64,
    /// Zero.
    pub(crate) reserved: [u64; 2],
}

/// `struct zcrx_ctrl`: something to do with a registered queue.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Control {
    /// The queue's number in the ring.
    pub(crate) queue: u32,
    /// What to do.
    pub(crate) operation: u32,
    /// Zero.
    pub(crate) reserved: [u64; 2],
    /// [`CONTROL_EXPORT`]: the descriptor, which the kernel says; [`CONTROL_ARM_EVENT`]: the event; else zero.
    pub(crate) argument: u32,
    /// Zero.
    pub(crate) reserved2: [u32; 11],
}

/// `struct io_uring_query_hdr`: one question.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct QueryHeader {
    /// The next question, or zero.
    pub(crate) next: u64,
    /// Where the answer goes.
    pub(crate) data: u64,
    /// What is asked.
    pub(crate) operation: u32,
    /// The room for the answer in bytes; then its size.
    pub(crate) size: u32,
    /// Zero, or a negative error number.
    pub(crate) result: i32,
    /// Zero.
    pub(crate) reserved: [u32; 3],
}

/// `struct io_uring_query_zcrx`: what zero-copy receive can do.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct QueryZcrx {
    /// Flags that a registration may have.
    pub(crate) register_flags: u64,
    /// Flags that an area may have.
    pub(crate) area_flags: u64,
    /// How many control operations there are.
    pub(crate) control_operations: u32,
    /// [`FEATURE_BUFFER_SIZE`], [`FEATURE_EVENT`].
    pub(crate) features: u32,
    /// The size of the refill ring's header in bytes.
    pub(crate) refill_header_size: u32,
    /// What that header is aligned to.
    pub(crate) refill_header_alignment: u32,
    /// Zero.
    pub(crate) reserved: u64,
}

/// `struct io_uring_query_zcrx_event`: which events there are.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct QueryEvents {
    /// A bit for each event.
    pub(crate) mask: u32,
    /// The size of the statistics in bytes.
    pub(crate) statistics_size: u32,
    /// What the statistics must be aligned to.
    pub(crate) statistics_alignment: u32,
    /// Zero.
    pub(crate) reserved: u32,
    /// Zero.
    pub(crate) reserved2: [u64; 4],
}

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<RefillEntry>() == 16);
    assert!(size_of::<RefillOffsets>() == 32);
    assert!(size_of::<Area>() == 48 && offset_of!(Area, dmabuf) == 28);
    assert!(size_of::<Region>() == 64 && offset_of!(Region, map_offset) == 24);
    assert!(size_of::<Events>() == 96 && offset_of!(Events, statistics_offset) == 16);
    assert!(size_of::<CopyStatistics>() == 16);
    assert!(size_of::<Queue>() == 96 && offset_of!(Queue, id) == 64 && offset_of!(Queue, events) == 72);
    assert!(size_of::<Control>() == 72 && offset_of!(Control, argument) == 24);
    assert!(size_of::<QueryHeader>() == 40);
    assert!(size_of::<QueryZcrx>() == 40);
    assert!(size_of::<QueryEvents>() == 48);
};

#[cfg(test)]
mod tests {
    use super::*;
    use devmem_uapi_check::{Header, layouts};

    #[test]
    fn the_kernel_headers_agree() {
        Header::new("linux/io_uring.h")
            .value("IORING_REGISTER_ZCRX_IFQ", REGISTER_QUEUE)
            .value("IORING_REGISTER_QUERY", REGISTER_QUERY)
            .value("IORING_REGISTER_ZCRX_CTRL", REGISTER_CONTROL)
            .value("IORING_MEM_REGION_TYPE_USER", REGION_USER)
            .value("IORING_CQE_F_MORE", COMPLETION_MORE)
            .values(layouts! {
                Region as "io_uring_region_desc" {
                    address = "user_addr", size, flags, id, map_offset = "mmap_offset"
                }
            })
            .assert();
        Header::new("linux/io_uring/zcrx.h")
            .value("IORING_ZCRX_AREA_DMABUF", AREA_DMABUF)
            .value("IORING_ZCRX_AREA_SHIFT", AREA_SHIFT)
            .value("ZCRX_REG_IMPORT", REGISTER_IMPORT)
            .value("ZCRX_FEATURE_RX_PAGE_SIZE", FEATURE_BUFFER_SIZE)
            .value("ZCRX_FEATURE_EVENT", FEATURE_EVENT)
            .value("ZCRX_EVENT_DESC_FLAG_STATS", EVENT_STATISTICS)
            .value("ZCRX_EVENT_ALLOC_FAIL", EVENT_ALLOCATION_FAILURE)
            .value("ZCRX_EVENT_COPY", EVENT_COPY)
            .value("ZCRX_CTRL_FLUSH_RQ", CONTROL_FLUSH)
            .value("ZCRX_CTRL_EXPORT", CONTROL_EXPORT)
            .value("ZCRX_CTRL_ARM_EVENT", CONTROL_ARM_EVENT)
            .values(layouts! {
                RefillEntry as "io_uring_zcrx_rqe" { offset = "off", length = "len" }
                RefillOffsets as "io_uring_zcrx_offsets" { head, tail, entries = "rqes" }
                Area as "io_uring_zcrx_area_reg" {
                    address = "addr", length = "len", token = "rq_area_token", flags, dmabuf = "dmabuf_fd"
                }
                Events as "zcrx_event_desc" {
                    user_data, mask = "type_mask", flags, statistics_offset = "stats_offset"
                }
                CopyStatistics as "zcrx_stats" { count = "copy_count", bytes = "copy_bytes" }
                Queue as "io_uring_zcrx_ifq_reg" {
                    interface = "if_idx", queue = "if_rxq", refill_entries = "rq_entries", flags,
                    area = "area_ptr", region = "region_ptr", offsets, id = "zcrx_id",
                    buffer_bytes = "rx_buf_len", events = "event_desc"
                }
                Control as "zcrx_ctrl" { queue = "zcrx_id", operation = "op", argument = "zc_export" }
            })
            .assert();
        Header::new("linux/io_uring/query.h")
            .value("IO_URING_QUERY_ZCRX", QUERY_ZCRX)
            .value("IO_URING_QUERY_ZCRX_EVENT", QUERY_EVENTS)
            .values(layouts! {
                QueryHeader as "io_uring_query_hdr" {
                    next = "next_entry", data = "query_data", operation = "query_op", size, result
                }
                QueryZcrx as "io_uring_query_zcrx" {
                    register_flags, area_flags, control_operations = "nr_ctrl_opcodes", features,
                    refill_header_size = "rq_hdr_size", refill_header_alignment = "rq_hdr_alignment"
                }
                QueryEvents as "io_uring_query_zcrx_event" {
                    mask = "event_flags", statistics_size = "stats_size",
                    statistics_alignment = "stats_off_alignment"
                }
            })
            .assert();
    }
}
