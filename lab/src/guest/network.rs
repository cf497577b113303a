//! The guest's network: the first emulated card where the command is, each further one in a namespace of
//! its own, so that packets between two of them travel through the cards.
//!
//! | card | namespace | device | addresses |
//! |---|---|---|---|
//! | 0 | the first | `eth0` | 10.77.0.1/24, fd77::1/64 |
//! | 1 | `peer` | `eth1` | 10.77.0.2/24, fd77::2/64 |
//! | 2 | `peer2` | `eth2` | 10.77.0.3/24, fd77::3/64 |

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns, unshare};

use super::netlink::Netlink;
use super::{Context, Result};

/// Where namespaces have names, for `ip netns` and for [`super::in_namespace`].
pub(super) const NAMESPACES: &str = "/run/netns";

const DEVICES: &str = "/sys/class/net";

/// Brings everything up and returns the names of the namespaces.
pub(super) fn set_up(cards: usize) -> Result<Vec<String>> {
    let netlink = Netlink::open().context(|| "open a netlink socket".into())?;
    bring_up_loopback(&netlink)?;
    name_in_order(&netlink, &wait_for_devices(cards)?)?;
    let mut namespaces = Vec::new();
    let mut waiting: Vec<(Netlink, u32)> = Vec::new();
    for card in 0..cards {
        let device = format!("eth{card}");
        if card == 0 {
            let index = configure(&netlink, &device, card)?;
            waiting.push((Netlink::open().context(|| "open a netlink socket".into())?, index));
            continue;
        }
        let name = if card == 1 { "peer".to_owned() } else { format!("peer{card}") };
        let namespace = create_namespace(&name)?;
        let index = if_nametoindex(device.as_str()).context(|| format!("find {device}"))?;
        netlink.move_to(index, namespace.as_fd()).context(|| format!("move {device} to {name}"))?;
        let configured = in_thread(|| {
            setns(&namespace, CloneFlags::CLONE_NEWNET).context(|| format!("enter {name}"))?;
            let netlink = Netlink::open().context(|| "open a netlink socket".into())?;
            bring_up_loopback(&netlink)?;
            let index = configure(&netlink, &device, card)?;
            Ok((netlink, index))
        })?;
        waiting.push(configured);
        namespaces.push(name);
    }
    wait_for_links(&waiting);
    Ok(namespaces)
}

fn bring_up_loopback(netlink: &Netlink) -> Result<()> {
    let index = if_nametoindex("lo").context(|| "find the loopback device".into())?;
    netlink.bring_up(index).context(|| "bring up the loopback device".into())
}

fn configure(netlink: &Netlink, device: &str, card: usize) -> Result<u32> {
    let index = if_nametoindex(device).context(|| format!("find {device}"))?;
    let host = u8::try_from(card + 1).context(|| format!("find an address for {device}"))?;
    let v4 = IpAddr::V4(Ipv4Addr::new(10, 77, 0, host));
    let v6 = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, host.into()));
    // The address first: nothing is then received before the device is complete.
    netlink.add_address(index, v4, 24).context(|| format!("give {v4} to {device}"))?;
    netlink.bring_up(index).context(|| format!("bring up {device}"))?;
    netlink.add_address(index, v6, 64).context(|| format!("give {v6} to {device}"))?;
    Ok(index)
}

/// Waits until the cards have a link, so that the command's first packet is not lost. One that gets none
/// is no failure: a command may be there to see that.
fn wait_for_links(devices: &[(Netlink, u32)]) {
    let deadline = Instant::now() + Duration::from_secs(3);
    for (netlink, index) in devices {
        while !netlink.is_running(*index).unwrap_or(true) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The devices of PCI cards, in the order of their addresses: those that drivers have bound to.
fn devices() -> Vec<(String, String)> {
    let mut devices: Vec<(String, String)> = fs::read_dir(DEVICES)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let path = fs::canonicalize(entry.path().join("device")).ok()?;
            let address = path.file_name()?.to_str()?.to_owned();
            let bus = fs::canonicalize(path.join("subsystem")).ok()?;
            (bus.file_name()? == "pci").then(|| Some((address, entry.file_name().to_str()?.to_owned())))?
        })
        .collect();
    devices.sort();
    devices
}

fn wait_for_devices(cards: usize) -> Result<Vec<(String, String)>> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let found = devices();
        if found.len() >= cards {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(format!(
                "the kernel's drivers made {} network devices for {cards} emulated cards; the kernel's log (--kernel-log) tells why",
                found.len()
            ));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Makes sure that the names follow the order of the cards, whatever the kernel chose.
fn name_in_order(netlink: &Netlink, devices: &[(String, String)]) -> Result<()> {
    let wrong: Vec<(u32, String)> = devices
        .iter()
        .enumerate()
        .map(|(card, (_, name))| (format!("eth{card}"), name))
        .filter(|(wanted, name)| wanted != *name)
        .map(|(wanted, name)| Ok((if_nametoindex(name.as_str()).context(|| format!("find {name}"))?, wanted)))
        .collect::<Result<_>>()?;
    for (index, _) in &wrong {
        netlink.rename(*index, &format!("moving{index}")).context(|| format!("rename device {index}"))?;
    }
    for (index, wanted) in &wrong {
        netlink.rename(*index, wanted).context(|| format!("rename device {index} to {wanted}"))?;
    }
    Ok(())
}

fn create_namespace(name: &str) -> Result<File> {
    let path = Path::new(NAMESPACES).join(name);
    fs::create_dir_all(NAMESPACES).context(|| format!("create {NAMESPACES}"))?;
    File::create(&path).context(|| format!("create {}", path.display()))?;
    in_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).context(|| format!("create the namespace {name}"))?;
        let nothing: Option<&str> = None;
        mount(Some("/proc/thread-self/ns/net"), &path, nothing, MsFlags::MS_BIND, nothing)
            .context(|| format!("mount the namespace {name}"))
    })?;
    File::open(&path).context(|| format!("open {}", path.display()))
}

/// Runs something in a thread of its own, which may change its namespace without changing anybody
/// else's.
fn in_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|_| Err("a thread failed".into())))
}
