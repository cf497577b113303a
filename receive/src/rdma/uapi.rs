//! `/dev/infiniband/uverbs*`: one ioctl whose argument is a list of attributes.
//!
//! Sources: `include/uapi/rdma/rdma_user_ioctl_cmds.h`, `ib_user_ioctl_cmds.h`, `ib_user_ioctl_verbs.h` and
//! `ib_user_verbs.h` of Linux 7.3; `drivers/infiniband/core/uverbs_ioctl.c` says how attributes are read.

/// `RDMA_VERBS_IOCTL`: `_IOWR(0x1b, 1, struct ib_uverbs_ioctl_hdr)`.
pub(crate) const VERBS_IOCTL: u64 = 0xc018_1b01;

/// `struct ib_uverbs_ioctl_hdr`, which the attributes follow.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Header {
    /// Of header and attributes together, in bytes.
    pub(crate) length: u16,
    pub(crate) object_id: u16,
    pub(crate) method_id: u16,
    pub(crate) num_attrs: u16,
    pub(crate) reserved1: u64,
    /// `enum rdma_driver_id`: must be the device's.
    pub(crate) driver_id: u32,
    pub(crate) reserved2: u32,
}

/// `struct ib_uverbs_attr`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attribute {
    pub(crate) attr_id: u16,
    /// Of what is read or written, in bytes; 0 for handles and descriptors.
    pub(crate) len: u16,
    pub(crate) flags: u16,
    pub(crate) attr_data: u16,
    /// What is read, if it has at most 8 bytes; else its address. For what is written its address. For handles and
    /// descriptors themselves, also those that the kernel makes.
    pub(crate) data: u64,
}

/// The kernel refuses the call if it does not know the attribute.
pub(crate) const ATTR_F_MANDATORY: u16 = 1 << 0;

/// `enum uverbs_default_objects`.
pub(crate) mod object {
    pub(crate) const DEVICE: u16 = 0;
    pub(crate) const PD: u16 = 1;
    pub(crate) const MR: u16 = 7;
    pub(crate) const ASYNC_EVENT: u16 = 16;
}

/// The methods of the objects.
pub(crate) mod method {
    pub(crate) const INVOKE_WRITE: u16 = 0;
    pub(crate) const GET_CONTEXT: u16 = 3;
    pub(crate) const PD_DESTROY: u16 = 0;
    pub(crate) const MR_DESTROY: u16 = 1;
    pub(crate) const REG_DMABUF_MR: u16 = 4;
    pub(crate) const ASYNC_EVENT_ALLOC: u16 = 0;
    /// One that no object has: `UVERBS_API_METHOD_KEY_NUM_CORE` of `uverbs_ioctl.h` is less.
    pub(crate) const NONE: u16 = 0xfff;
}

/// The attributes of the methods.
pub(crate) mod attr {
    /// What a driver's own library adds to any method, and what it gets.
    pub(crate) const UHW_IN: u16 = 0x1000;
    pub(crate) const UHW_OUT: u16 = 0x1001;

    pub(crate) const CORE_IN: u16 = 0;
    pub(crate) const CORE_OUT: u16 = 1;
    pub(crate) const WRITE_CMD: u16 = 2;

    pub(crate) const DESTROY_PD_HANDLE: u16 = 0;
    pub(crate) const DESTROY_MR_HANDLE: u16 = 0;
    pub(crate) const ASYNC_EVENT_ALLOC_FD_HANDLE: u16 = 0;

    pub(crate) const REG_DMABUF_MR_HANDLE: u16 = 0;
    pub(crate) const REG_DMABUF_MR_PD_HANDLE: u16 = 1;
    pub(crate) const REG_DMABUF_MR_OFFSET: u16 = 2;
    pub(crate) const REG_DMABUF_MR_LENGTH: u16 = 3;
    pub(crate) const REG_DMABUF_MR_IOVA: u16 = 4;
    pub(crate) const REG_DMABUF_MR_FD: u16 = 5;
    pub(crate) const REG_DMABUF_MR_ACCESS_FLAGS: u16 = 6;
    pub(crate) const REG_DMABUF_MR_RESP_LKEY: u16 = 7;
    pub(crate) const REG_DMABUF_MR_RESP_RKEY: u16 = 8;
}

/// `enum ib_uverbs_write_cmds`: commands that are older than methods, and called by
/// [`INVOKE_WRITE`](method::INVOKE_WRITE).
pub(crate) mod command {
    pub(crate) const ALLOC_PD: u64 = 3;
    pub(crate) const REG_MR: u64 = 9;
}

/// `enum ib_uverbs_access_flags`.
pub(crate) const ACCESS_LOCAL_WRITE: u32 = 1 << 0;
pub(crate) const ACCESS_REMOTE_WRITE: u32 = 1 << 1;
pub(crate) const ACCESS_REMOTE_READ: u32 = 1 << 2;
pub(crate) const ACCESS_REMOTE_ATOMIC: u32 = 1 << 3;
pub(crate) const ACCESS_RELAXED_ORDERING: u32 = 1 << 20;

/// `enum rdma_driver_id`, as far as something is known of the driver.
pub(crate) mod driver {
    pub(crate) const MLX5: u32 = 1;
    pub(crate) const IRDMA: u32 = 9;
    pub(crate) const EFA: u32 = 17;
}

/// More numbers of drivers than any kernel has.
pub(crate) const DRIVER_IDS: std::ops::Range<u32> = 0..64;

/// The size of `struct ib_uverbs_alloc_pd` in bytes, all of which this way of calling ignores.
pub(crate) const ALLOC_PD_BYTES: usize = 8;

/// The size of `struct ib_uverbs_alloc_pd_resp` in bytes: the handle.
pub(crate) const ALLOC_PD_RESP_BYTES: usize = 4;

/// `struct ib_uverbs_reg_mr`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RegMr {
    pub(crate) response: u64,
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) hca_va: u64,
    pub(crate) pd_handle: u32,
    pub(crate) access_flags: u32,
}

impl RegMr {
    /// As the kernel reads it.
    pub(crate) fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let Self { response, start, length, hca_va, pd_handle, access_flags } = self;
        let mut bytes = [0; size_of::<Self>()];
        let longs = [response, start, length, hca_va].map(u64::to_ne_bytes);
        let words = [pd_handle, access_flags].map(u32::to_ne_bytes);
        bytes[..32].copy_from_slice(longs.as_flattened());
        bytes[32..].copy_from_slice(words.as_flattened());
        bytes
    }
}

/// `struct ib_uverbs_reg_mr_resp`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RegMrResp {
    pub(crate) mr_handle: u32,
    pub(crate) lkey: u32,
    pub(crate) rkey: u32,
}

impl RegMrResp {
    /// As the kernel writes it.
    pub(crate) fn from_bytes(bytes: [u8; size_of::<Self>()]) -> Self {
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self { mr_handle: word(0), lkey: word(4), rkey: word(8) }
    }
}

/// `struct ib_uverbs_async_event_desc`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AsyncEventDesc {
    /// What the event is about: a queue's user handle, or a port's number.
    pub(crate) element: u64,
    /// `enum ib_event_type`.
    pub(crate) event_type: u32,
    pub(crate) reserved: u32,
}

impl AsyncEventDesc {
    /// As the kernel writes it.
    pub(crate) fn from_bytes(bytes: [u8; size_of::<Self>()]) -> Self {
        let (words, _) = bytes.as_chunks::<4>();
        let [low, high, event_type, reserved] = [0, 1, 2, 3].map(|at| words[at]);
        let mut element = [0; 8];
        element[..4].copy_from_slice(&low);
        element[4..].copy_from_slice(&high);
        Self {
            element: u64::from_ne_bytes(element),
            event_type: u32::from_ne_bytes(event_type),
            reserved: u32::from_ne_bytes(reserved),
        }
    }
}

/// `enum ib_event_type` of `include/rdma/ib_verbs.h`, which no exported header has; part of the interface all the same,
/// as `enum ibv_event_type` of libibverbs.
pub(crate) mod event {
    pub(crate) const CQ_ERR: u32 = 0;
    pub(crate) const QP_FATAL: u32 = 1;
    pub(crate) const QP_REQ_ERR: u32 = 2;
    pub(crate) const QP_ACCESS_ERR: u32 = 3;
    pub(crate) const DEVICE_FATAL: u32 = 8;
    pub(crate) const PORT_ACTIVE: u32 = 9;
    pub(crate) const PORT_ERR: u32 = 10;
    pub(crate) const LID_CHANGE: u32 = 11;
    pub(crate) const PKEY_CHANGE: u32 = 12;
    pub(crate) const GID_CHANGE: u32 = 18;
}

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Header>() == 24);
    assert!(offset_of!(Header, driver_id) == 16);
    assert!(VERBS_IOCTL == 3 << 30 | (size_of::<Header>() as u64) << 16 | 0x1b << 8 | 1);
    assert!(size_of::<Attribute>() == 16);
    assert!(offset_of!(Attribute, data) == 8);
    assert!(size_of::<RegMr>() == 40);
    assert!(offset_of!(RegMr, pd_handle) == 32);
    assert!(size_of::<RegMrResp>() == 12);
    assert!(size_of::<AsyncEventDesc>() == 16);
};

#[cfg(test)]
mod tests {
    use super::*;
    use devmem_uapi_check::{Header as CHeader, constants, layouts};

    #[test]
    fn the_ioctl_is_that_of_the_headers() {
        CHeader::new("rdma/rdma_user_ioctl_cmds.h")
            .value("RDMA_VERBS_IOCTL", VERBS_IOCTL)
            .value("UVERBS_ATTR_F_MANDATORY", ATTR_F_MANDATORY)
            .values(layouts! {
                Header as "ib_uverbs_ioctl_hdr" { length, object_id, method_id, num_attrs, reserved1, driver_id, reserved2 }
                Attribute as "ib_uverbs_attr" { attr_id, len, flags, attr_data, data }
            })
            .assert();
    }

    #[test]
    fn objects_methods_and_attributes_are_those_of_the_headers() {
        CHeader::new("rdma/ib_user_ioctl_cmds.h")
            .values(constants!("UVERBS_OBJECT_", super::object: DEVICE, PD, MR, ASYNC_EVENT))
            .values(constants!("UVERBS_METHOD_", super::method: INVOKE_WRITE, GET_CONTEXT, PD_DESTROY, MR_DESTROY,
                REG_DMABUF_MR, ASYNC_EVENT_ALLOC))
            .values(constants!("UVERBS_ATTR_", super::attr: UHW_IN, UHW_OUT, CORE_IN, CORE_OUT, WRITE_CMD,
                DESTROY_PD_HANDLE, DESTROY_MR_HANDLE, ASYNC_EVENT_ALLOC_FD_HANDLE, REG_DMABUF_MR_HANDLE,
                REG_DMABUF_MR_PD_HANDLE, REG_DMABUF_MR_OFFSET, REG_DMABUF_MR_LENGTH, REG_DMABUF_MR_IOVA,
                REG_DMABUF_MR_FD, REG_DMABUF_MR_ACCESS_FLAGS, REG_DMABUF_MR_RESP_LKEY, REG_DMABUF_MR_RESP_RKEY))
            .assert();
    }

    #[test]
    fn flags_and_drivers_are_those_of_the_headers() {
        CHeader::new("rdma/ib_user_ioctl_verbs.h")
            .value("IB_UVERBS_ACCESS_LOCAL_WRITE", ACCESS_LOCAL_WRITE)
            .value("IB_UVERBS_ACCESS_REMOTE_WRITE", ACCESS_REMOTE_WRITE)
            .value("IB_UVERBS_ACCESS_REMOTE_READ", ACCESS_REMOTE_READ)
            .value("IB_UVERBS_ACCESS_REMOTE_ATOMIC", ACCESS_REMOTE_ATOMIC)
            .value("IB_UVERBS_ACCESS_RELAXED_ORDERING", ACCESS_RELAXED_ORDERING)
            .values(constants!("RDMA_DRIVER_", super::driver: MLX5, IRDMA, EFA))
            .assert();
    }

    #[test]
    fn structures_are_read_and_written_in_order() {
        let region = RegMr { response: 1, start: 2, length: 3, hca_va: 4, pd_handle: 5, access_flags: 6 };
        let bytes = region.to_bytes();
        let long = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        use std::mem::offset_of;
        assert_eq!(long(offset_of!(RegMr, start)), 2);
        assert_eq!(long(offset_of!(RegMr, length)), 3);
        assert_eq!(long(offset_of!(RegMr, hca_va)), 4);
        assert_eq!((word(offset_of!(RegMr, pd_handle)), word(offset_of!(RegMr, access_flags))), (5, 6));
        let words = [7u32, 8, 9, 10].map(u32::to_ne_bytes);
        let event = AsyncEventDesc::from_bytes(words.as_flattened().try_into().unwrap());
        assert_eq!((event.event_type, event.reserved), (9, 10));
        assert_eq!(event.element.to_ne_bytes(), words[..2].as_flattened());
        let answer = RegMrResp::from_bytes(words[..3].as_flattened().try_into().unwrap());
        assert_eq!((answer.mr_handle, answer.lkey, answer.rkey), (7, 8, 9));
    }

    #[test]
    fn commands_are_those_of_the_headers() {
        CHeader::new("rdma/ib_user_verbs.h")
            .values(constants!("IB_USER_VERBS_CMD_", super::command: ALLOC_PD, REG_MR))
            .value("sizeof(struct ib_uverbs_alloc_pd)", ALLOC_PD_BYTES as i128)
            .value("sizeof(struct ib_uverbs_alloc_pd_resp)", ALLOC_PD_RESP_BYTES as i128)
            .values(layouts! {
                RegMr as "ib_uverbs_reg_mr" { response, start, length, hca_va, pd_handle, access_flags }
                RegMrResp as "ib_uverbs_reg_mr_resp" { mr_handle, lkey, rkey }
                AsyncEventDesc as "ib_uverbs_async_event_desc" { element, event_type }
            })
            .assert();
    }
}
