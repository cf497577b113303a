//! Putting back what belongs to the interface rather than to the device: MTU, up or down, IPv6 addresses.

use nix::errno::Errno;

use super::change::{Change, ignoring};
use super::device::Nic;
use super::snapshot::{self, Snapshot};
use crate::netlink::Result;

/// `IPV6_MIN_MTU` (include/uapi/linux/ipv6.h).
const IPV6_MTU_MIN: u32 = 1280;

/// Undoes a change of the interface, whether it was made or not.
pub(super) fn undo(nic: &Nic, before: &Snapshot, change: &Change) -> Result<()> {
    let ifindex = nic.ifindex();
    let mut route = nic.route();
    let now = route.link(ifindex)?;
    match (change, before.mtu, before.up) {
        (Change::Mtu { .. }, Some(mtu), _) if now.mtu != mtu => route.set_mtu(ifindex, mtu)?,
        (Change::Link { .. }, _, Some(up)) if now.up != up => route.set_up(ifindex, up)?,
        _ => {}
    }
    // The kernel drops IPv6 addresses when an interface goes down, unless `keep_addr_on_down` is set, and IPv6
    // altogether where the MTU is below 1280 (`addrconf_notify()`, net/ipv6/addrconf.c).
    let Some(then) = &before.ipv6_addresses else { return Ok(()) };
    let present = snapshot::ipv6_addresses(&mut route, ifindex)?;
    // With the other change still to be undone there may be no IPv6 yet; then this comes again.
    if route.link(ifindex)?.mtu < IPV6_MTU_MIN {
        return Ok(());
    }
    for address in then.difference(&present) {
        ignoring(&[Errno::EEXIST], route.add_address(&address.of(ifindex)))?;
    }
    Ok(())
}
