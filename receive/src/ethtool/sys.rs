//! The `SIOCETHTOOL` requests that have no netlink counterpart.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::ioctl_uapi::{
    DrvInfo, GDRVINFO, GRXCLSRLALL, GRXCLSRLCNT, GRXCLSRULE, RSS_CONTEXT_NEW, RSS_TRANSFORMATION_UNCHANGED,
    RxFh, RxNfc, SRSSH, SRXCLSRLDEL, SRXCLSRLINS,
};
use crate::netlink::{Error, Malformed, Result};

/// A text in a fixed array, up to its first zero byte.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
}

/// A socket to send the requests by. It stays in the network namespace that it was opened in.
#[derive(Debug)]
pub(super) struct Control {
    socket: OwnedFd,
}

impl Control {
    pub(super) fn open() -> Result<Self> {
        let failed = |errno| Error::System { operation: "open a socket for ethtool requests", errno };
        let flags = SockFlag::SOCK_CLOEXEC;
        // Any family will do; a kernel without IPv4 has IPv6.
        let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)
            .or_else(|_| socket(AddressFamily::Inet6, SockType::Datagram, flags, None))
            .map_err(failed)?;
        Ok(Self { socket })
    }

    pub(super) fn driver(&self, ifindex: u32) -> Result<DrvInfo> {
        let mut info = DrvInfo {
            cmd: GDRVINFO,
            driver: [0; 32],
            version: [0; 32],
            fw_version: [0; 32],
            bus_info: [0; 32],
            erom_version: [0; 32],
            reserved2: [0; 12],
            n_priv_flags: 0,
            n_stats: 0,
            testinfo_len: 0,
            eedump_len: 0,
            regdump_len: 0,
        };
        // SAFETY: GDRVINFO reads and writes one `struct ethtool_drvinfo`, which `info` is; it is plain data.
        unsafe { self.request(ifindex, (&raw mut info).cast()) }.map_err(failed("ask for the driver"))?;
        Ok(info)
    }

    /// One of the flow rule requests that have no list: count, get, insert, remove.
    pub(super) fn flow_rule(&self, ifindex: u32, request: &mut RxNfc) -> Result<()> {
        let operation = match request.cmd {
            GRXCLSRLCNT => "count flow rules",
            GRXCLSRULE => "read a flow rule",
            SRXCLSRLINS => "insert a flow rule",
            SRXCLSRLDEL => "remove a flow rule",
            _ => return Err(failed("send an unknown flow rule request")(Errno::EINVAL)),
        };
        // SAFETY: these four requests read and write one `struct ethtool_rxnfc` without a list behind it
        // (net/ethtool/ioctl.c, ethtool_set_rxnfc and ethtool_get_rxnfc), which `request` is.
        unsafe { self.request(ifindex, (&raw mut *request).cast()) }.map_err(failed(operation))
    }

    /// The locations of at most `capacity` flow rules, and the size of the rule table as the driver tells it.
    pub(super) fn flow_rule_locations(&self, ifindex: u32, capacity: u32) -> Result<(Vec<u32>, u64)> {
        const FIRST_LOCATION: usize = std::mem::offset_of!(RxNfc, rule_locs) / 4;
        let mut request = RxNfc::new(GRXCLSRLALL);
        request.rule_cnt = capacity;
        // Whole u64 words, for the alignment of the structure that begins the buffer.
        let bytes = size_of::<RxNfc>() + 4 * capacity as usize;
        let mut buffer = vec![0u64; bytes.div_ceil(8)];
        let head: *mut RxNfc = buffer.as_mut_ptr().cast();
        // SAFETY: the buffer is at least one RxNfc long and aligned to 8 bytes.
        unsafe { head.write(request) };
        // SAFETY: GRXCLSRLALL reads one `struct ethtool_rxnfc` and writes it back followed by at most
        // `rule_cnt` locations from its member `rule_locs` on, for which the buffer has room.
        unsafe { self.request(ifindex, head.cast()) }.map_err(failed("list flow rules"))?;
        // SAFETY: the kernel has written a whole RxNfc; any bytes are a valid one.
        let reply = unsafe { head.read() };
        if reply.rule_cnt > capacity {
            return Err(Malformed("more flow rules than were asked for").into());
        }
        let word = |index: usize| {
            let pair = buffer[index / 2].to_ne_bytes();
            let half = &pair[4 * (index % 2)..][..4];
            u32::from_ne_bytes([half[0], half[1], half[2], half[3]])
        };
        let locations = (FIRST_LOCATION..FIRST_LOCATION + reply.rule_cnt as usize).map(word).collect();
        Ok((locations, reply.data))
    }

    /// Sets the table of an RSS context. An empty one resets the default context and removes any other.
    pub(super) fn set_rss_indirection(&self, ifindex: u32, context: u32, table: &[u32]) -> Result<()> {
        self.change_rss(ifindex, context, table).map_err(failed("change an RSS table")).map(drop)
    }

    /// Makes an RSS context with this table, which must be as long as the device's.
    pub(super) fn create_rss_context(&self, ifindex: u32, table: &[u32]) -> Result<u32> {
        self.change_rss(ifindex, RSS_CONTEXT_NEW, table).map_err(failed("make an RSS context"))
    }

    pub(super) fn delete_rss_context(&self, ifindex: u32, context: u32) -> Result<()> {
        self.change_rss(ifindex, context, &[]).map_err(failed("remove an RSS context")).map(drop)
    }

    /// Returns the number of the context that was changed or made.
    fn change_rss(&self, ifindex: u32, context: u32, table: &[u32]) -> nix::Result<u32> {
        const HEAD: usize = size_of::<RxFh>() / 4;
        let head = RxFh {
            cmd: SRSSH,
            rss_context: context,
            indir_size: u32::try_from(table.len()).map_err(|_| Errno::EINVAL)?,
            key_size: 0,
            hfunc: 0,
            input_xfrm: RSS_TRANSFORMATION_UNCHANGED,
            rsvd8: [0; 2],
            rsvd32: 0,
        };
        let mut buffer = vec![0u32; HEAD];
        buffer.extend_from_slice(table);
        let start: *mut RxFh = buffer.as_mut_ptr().cast();
        // SAFETY: the buffer begins with the room of one RxFh, aligned to its 4 bytes.
        unsafe { start.write(head) };
        // SAFETY: SRSSH reads one `struct ethtool_rxfh` and `indir_size` table entries behind it, which the
        // buffer holds, and writes back no more than the member rss_context.
        unsafe { self.request(ifindex, start.cast())? };
        // SAFETY: the structure was written above; any bytes are a valid one.
        Ok(unsafe { start.read() }.rss_context)
    }

    /// Sends one ethtool request.
    ///
    /// # Safety
    /// `data` must point to what the command in its first word reads and writes.
    unsafe fn request(&self, ifindex: u32, data: *mut libc::c_void) -> nix::Result<()> {
        let mut interface = self.interface(ifindex)?;
        interface.ifr_ifru.ifru_data = data.cast();
        // SAFETY: SIOCETHTOOL reads one `struct ifreq`; the caller answers for what it points to.
        unsafe { self.ioctl(libc::SIOCETHTOOL, &mut interface) }
    }

    /// An interface request with the name that belongs to a number: ethtool requests go by name.
    fn interface(&self, ifindex: u32) -> nix::Result<libc::ifreq> {
        let number = libc::c_int::try_from(ifindex).map_err(|_| Errno::ENODEV)?;
        let mut interface = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_ifindex: number },
        };
        // SAFETY: SIOCGIFNAME reads and writes one `struct ifreq`.
        unsafe { self.ioctl(libc::SIOCGIFNAME, &mut interface)? };
        Ok(interface)
    }

    /// # Safety
    /// What `request` does with the union of `interface` must be sound.
    unsafe fn ioctl(&self, request: libc::Ioctl, interface: &mut libc::ifreq) -> nix::Result<()> {
        loop {
            // SAFETY: `interface` is a whole `struct ifreq` that lives through the call; the caller answers
            // for the meaning of its union.
            let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), request, &raw mut *interface) };
            match Errno::result(result) {
                Err(Errno::EINTR) => {}
                result => return result.map(drop),
            }
        }
    }
}

fn failed(operation: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::System { operation, errno }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_becomes_its_name() {
        let control = Control::open().unwrap();
        let lo = crate::netlink::Route::open().unwrap().link_by_name("lo").unwrap();
        let name: Vec<u8> = control.interface(lo.ifindex).unwrap().ifr_name.map(i8::cast_unsigned).to_vec();
        assert_eq!(text(&name), "lo");
        for ifindex in [0x7fff_fff0, u32::MAX] {
            assert_eq!(control.interface(ifindex).err(), Some(Errno::ENODEV));
        }
    }

    #[test]
    fn loopback_has_neither_rules_nor_rss() {
        let control = Control::open().unwrap();
        let lo = crate::netlink::Route::open().unwrap().link_by_name("lo").unwrap().ifindex;
        let refused = Some(Errno::EOPNOTSUPP);
        assert_eq!(control.flow_rule(lo, &mut RxNfc::new(GRXCLSRLCNT)).unwrap_err().errno(), refused);
        assert_eq!(control.flow_rule_locations(lo, 3).unwrap_err().errno(), refused);
        let errno = control.set_rss_indirection(lo, 0, &[0]).unwrap_err().errno();
        assert!([refused, Some(Errno::EPERM)].contains(&errno), "{errno:?}");
    }

    #[test]
    fn text_ends_at_the_first_zero() {
        assert_eq!(text(b"gve\0\0x"), "gve");
        assert_eq!(text(b"full"), "full");
    }
}
