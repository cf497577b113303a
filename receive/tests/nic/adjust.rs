//! Changes beyond the plan.

use std::time::Duration;

use devmem_provider::ErrorKind;
use devmem_receive::netlink::{LocalAddress, Route};
use devmem_receive::nic::{Adjustment, Nic, Prepared, restore};
use nix::errno::Errno;

use crate::harness::nic::{restored, survives_kills, unchanged};
use crate::harness::{Actor, Failure, Outcome, ensure};
use crate::namespace::{NIC, Veth};
use crate::roles::{self, plan};

/// The NIC with an IPv6 address, which the kernel drops when the interface goes down.
fn with_address() -> Result<Veth, Failure> {
    let veth = Veth::new()?;
    let address = LocalAddress {
        ifindex: Nic::open(NIC)?.ifindex(),
        address: "fd00::1".parse()?,
        prefix_length: 64,
        scope: libc::RT_SCOPE_UNIVERSE,
        flags: libc::IFA_F_NODAD,
    };
    Route::open()?.add_address(&address)?;
    let given = Nic::open(NIC)?.snapshot()?.ipv6_addresses.unwrap_or_default();
    ensure!(given.len() == 1, "{given:?}");
    Ok(veth)
}

/// One of every kind that veth can do.
pub(crate) fn adjust_everything(prepared: &Prepared) -> Outcome {
    let mut counts = prepared.nic().ethtool().channels(prepared.nic().ifindex())?.current;
    counts.rx = 4;
    prepared.adjust(Adjustment::Channels(counts))?;
    let on = !prepared.before().features["rx-gro"].active;
    prepared.adjust(Adjustment::Feature { name: "rx-gro".into(), on })?;
    prepared.adjust(Adjustment::Link { up: false })?;
    prepared.adjust(Adjustment::Mtu(1200))?;
    Ok(())
}

pub(crate) fn every_adjustment_is_made_and_put_back() -> Outcome {
    let _veth = with_address()?;
    unchanged(NIC, |nic, before| {
        let prepared = nic.prepare(&plan())?;
        adjust_everything(&prepared)?;
        let now = nic.snapshot()?;
        ensure!((now.mtu, now.up) == (Some(1200), Some(false)), "{now:?}");
        ensure!(now.receive_queues() == 4, "{now:?}");
        ensure!(now.features["rx-gro"].active != before.features["rx-gro"].active, "{now:?}");
        ensure!(now.ipv6_addresses != before.ipv6_addresses, "{now:?}");
        let report = prepared.restore()?;
        ensure!(report.is_complete() && report.steps.len() == 5, "{report}");
        Ok(())
    })
}

pub(crate) fn an_interface_keeps_its_addresses_whatever_was_adjusted_first() -> Outcome {
    let _veth = with_address()?;
    let (down, up) = (Adjustment::Link { up: false }, Adjustment::Link { up: true });
    for adjustments in [
        vec![down.clone(), up.clone()],
        vec![Adjustment::Mtu(1000), down.clone(), Adjustment::Mtu(9000), up],
        vec![down, Adjustment::Mtu(1000)],
        vec![Adjustment::Mtu(1000)],
    ] {
        unchanged(NIC, |nic, before| {
            let prepared = nic.prepare(&plan())?;
            for adjustment in &adjustments {
                prepared.adjust(adjustment.clone())?;
            }
            let now = nic.snapshot()?;
            ensure!(now.ipv6_addresses != before.ipv6_addresses, "{adjustments:?}: no address was lost");
            restored(prepared)
        })?;
    }
    Ok(())
}

pub(crate) fn a_refused_adjustment_is_told_and_leaves_the_others() -> Outcome {
    let _veth = Veth::new()?;
    unchanged(NIC, |nic, _| {
        let prepared = nic.prepare(&plan())?;
        prepared.adjust(Adjustment::Mtu(2000))?;
        let error = prepared.adjust(Adjustment::Mtu(1)).err().ok_or("an MTU of 1 byte was taken")?;
        ensure!(error.errno() == Some(Errno::EINVAL) && error.object() == Some(NIC), "{error}");
        ensure!(error.to_string().contains("mtu less than device minimum"), "{error}");
        let feature = Adjustment::Feature { name: "no-such-feature".into(), on: true };
        let error = prepared.adjust(feature).err().ok_or("a feature that nobody knows was taken")?;
        ensure!(error.kind() == ErrorKind::Unsupported, "{:?}: {error}", error.kind());
        ensure!(error.to_string().contains("bit name not found"), "{error}");
        ensure!(nic.link()?.mtu == 2000, "{}", nic.link()?.mtu);
        restored(prepared)
    })
}

pub(crate) fn adjustments_are_put_back_after_a_kill() -> Outcome {
    let _veth = with_address()?;
    unchanged(NIC, |nic, before| {
        Actor::start(roles::HOLD_ADJUSTED)?.kill()?;
        ensure!(nic.snapshot()?.mtu != before.mtu, "the kill restored it");
        let report = restore(NIC)?.ok_or("no journal was left")?;
        ensure!(report.is_complete() && report.steps.len() == 5, "{report}");
        Ok(())
    })
}

pub(crate) fn killed_at_any_moment_of_adjusting() -> Outcome {
    let _veth = with_address()?;
    survives_kills(NIC, roles::REPEAT_ADJUSTED, |round| Duration::from_micros(round * 7919 % 40_000))
}
