//! `ETHTOOL_RESET` (include/uapi/linux/ethtool.h), which has no counterpart in netlink.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

const RESET: u32 = 0x34;
/// What belongs to this interface alone (`ETH_RESET_DEDICATED`).
pub(super) const DEDICATED: u32 = 0x0000_ffff;
/// That and what is shared with other functions (`ETH_RESET_ALL`).
pub(super) const ALL: u32 = 0xffff_ffff;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    cmd: u32,
    data: u32,
}

const _: () = assert!(size_of::<Value>() == 8);

/// Resets components of an interface. Returns those that the driver did not reset.
pub(super) fn reset(interface: &str, components: u32) -> nix::Result<u32> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut value = Value { cmd: RESET, data: components };
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut value).cast() },
    };
    if interface.len() >= request.ifr_name.len() {
        return Err(Errno::ENODEV);
    }
    for (letter, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *letter = byte.cast_signed();
    }
    // SAFETY: SIOCETHTOOL reads one `struct ifreq`, and ETHTOOL_RESET reads and writes one `struct ethtool_value`, to
    // which it points.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    Errno::result(result)?;
    Ok(value.data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use devmem_uapi_check::{Header, layouts};

    #[test]
    fn numbers_and_layouts_are_those_of_the_headers() {
        Header::new("linux/ethtool.h")
            .value("ETHTOOL_RESET", RESET)
            .value("ETH_RESET_DEDICATED", DEDICATED)
            .value("ETH_RESET_ALL", ALL)
            .values(layouts! { Value as "ethtool_value" { cmd, data } })
            .assert();
    }

    #[test]
    fn loopback_cannot_be_reset() {
        let errno = reset("lo", DEDICATED).err();
        assert!([Some(Errno::EOPNOTSUPP), Some(Errno::EPERM)].contains(&errno), "{errno:?}");
        assert_eq!(reset("a name that is much too long", ALL).err(), Some(Errno::ENODEV));
    }
}
