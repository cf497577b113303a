//! A NIC: whether it can receive by devmem TCP, whether traffic reaches it, and who has it.

use devmem_provider::{Error, PciAddress, Result};
use devmem_receive::ethtool::DataSplit;
use devmem_receive::netdev::QueueKind;
use devmem_receive::netlink::{Link, LocalAddress, Route};
use devmem_receive::nic::{Capabilities, Capability, Nic, Occupancy, Selector, Support};

use super::finding::{AS_ROOT, Finding, State};
use super::{Ability, Device, sysfs};

/// The drivers that have what devmem TCP takes (`queue_mgmt_ops` in `drivers/net/ethernet`, Linux 7.2).
const OTHER_NIC: &str = "use a NIC whose driver has queue management and devmem TCP: bnxt, fbnic, gve or mlx5, the newer the kernel the better";

/// The NICs to look at, and what else there is.
pub(super) struct Found {
    pub(super) examined: Vec<Nic>,
    pub(super) others: Vec<Finding>,
}

/// A NIC that was looked at.
pub(super) struct Looked {
    pub(super) device: Device,
    pub(super) pci: Option<PciAddress>,
    /// Header split is off, so that the kernel refuses every binding before it touches a queue.
    pub(super) refuses_bindings: bool,
    /// Its last receive queue, if nobody has it and it is not queue 0.
    pub(super) idle_queue: Option<u32>,
}

/// The NICs that are named, or those that stand for a device.
pub(super) fn find(named: &[String]) -> Result<Found> {
    if !named.is_empty() {
        let examined = named.iter().map(|name| Nic::open(name.as_str())).collect::<Result<_>>()?;
        return Ok(Found { examined, others: Vec::new() });
    }
    let failed = |error: devmem_receive::netlink::Error| error.during("list the NICs");
    let links = Route::open().map_err(failed)?.links().map_err(failed)?;
    let (devices, virtual_ones): (Vec<Link>, Vec<Link>) =
        links.into_iter().partition(|link| link.parent_bus.is_some());
    let mut found = Found { examined: Vec::new(), others: Vec::new() };
    for link in devices {
        match Nic::open(Selector::Name(link.name.clone())) {
            Ok(nic) => found.examined.push(nic),
            Err(error) => {
                let says = format!("{} cannot be asked what it can do", link.name);
                found.others.push(Finding::failed(State::Obstacle, link.name, says, &error));
            }
        }
    }
    if !virtual_ones.is_empty() {
        let names: Vec<_> = virtual_ones.into_iter().map(|link| link.name).collect();
        let says = format!("{}: no device is behind, so that nothing does DMA for them", names.join(", "));
        let evidence = "rtnetlink getlink tells of no device behind them";
        found.others.push(Finding::new(State::Note, "virtual interfaces", says, evidence).remedy(
            "name one with --nic to have it looked at nevertheless, such as netkit with a leased queue",
        ));
    }
    Ok(found)
}

pub(super) fn look(nic: &Nic) -> Looked {
    let identity = nic.identity();
    let mut device = Device {
        name: identity.name.clone(),
        description: match identity.pci {
            Some(_) => "network interface".to_owned(),
            None => "network interface that is no PCI function".to_owned(),
        },
        driver: identity.driver.clone(),
        driver_version: None,
        pci: identity.pci.map(|pci| pci.to_string()),
        numa_node: identity.pci.and_then(sysfs::numa_node),
        able: Ability::Unknown,
        findings: Vec::new(),
    };
    let mut looked =
        Looked { device: device.clone(), pci: identity.pci, refuses_bindings: false, idle_queue: None };
    let link = nic.link().ok();
    match nic.capabilities() {
        Ok(capabilities) => {
            device.able = ability(&capabilities);
            device.findings = told(&capabilities, nic.name(), link.as_ref());
        }
        Err(error) => {
            let says = "the kernel does not tell what it can do";
            device.findings.push(Finding::failed(State::Unknown, "capabilities", says, &error));
        }
    }
    device.findings.extend(carrier(nic.name()));
    device.findings.push(addresses(nic));
    let occupancy = occupancy(nic.name(), nic.occupancy());
    let taken = occupancy.state == State::Obstacle;
    if taken {
        device.able = Ability::No;
    }
    device.findings.push(occupancy);
    let rings = nic.snapshot().ok().and_then(|snapshot| snapshot.rings);
    looked.refuses_bindings =
        rings.is_some_and(|rings| rings.data_split == Some(DataSplit::Disabled)) && !taken;
    looked.idle_queue = idle_queue(nic);
    looked.device = device;
    looked
}

fn ability(capabilities: &Capabilities) -> Ability {
    match capabilities.can_receive() {
        Support::Yes => Ability::Yes,
        Support::No => Ability::No,
        Support::Unknown => Ability::Unknown,
    }
}

fn idle_queue(nic: &Nic) -> Option<u32> {
    let queues = nic.netdev().queues(nic.ifindex()).ok()?;
    let receive = queues.into_iter().filter(|queue| queue.kind == QueueKind::Receive);
    // Queue 0 takes what no rule takes, and gve's cannot be bound.
    receive
        .max_by_key(|queue| queue.id)
        .filter(|queue| queue.id > 0 && queue.occupied_by().is_none())
        .map(|queue| queue.id)
}

/// Every capability in its words: what is needed is an obstacle where it is missing.
fn told(capabilities: &Capabilities, name: &str, link: Option<&Link>) -> Vec<Finding> {
    use State::{Caution, Note, Obstacle};
    let no_xdp = format!("ip link set dev {name} xdp off");
    let up = format!("ip link set dev {name} up");
    let ready = match link {
        Some(link) if link.up => no_xdp.as_str(),
        _ => up.as_str(),
    };
    let more_queues = format!(
        "raise its receive queues (ethtool -L {name} combined 2) or release those that are taken; where ethtool -l \
         {name} shows a maximum of 1, whoever made this machine has to give the NIC more"
    );
    let no_filters = "use a NIC whose driver offers ntuple filters; in a cloud, flow steering may have to be turned \
                      on for the machine type";
    let of = |capability: &Capability, missing: State, yes: &str, no: &str, remedy: Option<&str>| {
        let (state, says) = match capability.support {
            Support::Yes => (State::Ok, yes),
            Support::No => (missing, no),
            Support::Unknown => (State::Unknown, "could not be found out"),
        };
        let evidence = format!("{}: {}", capability.found_by, capability.reason);
        let finding = Finding::new(state, capability.name, says, evidence);
        match (capability.support, remedy) {
            (Support::Unknown, _) => finding.remedy(AS_ROOT),
            (Support::No, Some(remedy)) => finding.remedy(remedy),
            _ => finding,
        }
    };
    let none = None;
    vec![
        of(
            &capabilities.devmem_receive,
            Obstacle,
            "its queues can be bound to DMA-bufs",
            "its queues cannot be bound to DMA-bufs",
            Some(OTHER_NIC),
        ),
        of(
            &capabilities.ready,
            Obstacle,
            "the interface is up and no XDP program is attached",
            "the interface is not as binding needs it",
            Some(ready),
        ),
        of(
            &capabilities.queues,
            Obstacle,
            "a receive queue besides queue 0 is, or can be made, free",
            "no receive queue besides queue 0 is free",
            Some(&more_queues),
        ),
        of(
            &capabilities.header_split,
            Obstacle,
            "headers and payload can go to separate buffers",
            "headers cannot be split from payload, without which no payload goes to device memory",
            Some(OTHER_NIC),
        ),
        of(
            &capabilities.flow_rules,
            Obstacle,
            "a flow can be steered to a queue",
            "no flow can be steered to a queue",
            Some(no_filters),
        ),
        of(
            &capabilities.rss,
            Caution,
            "other traffic can be kept off the bound queue",
            "other traffic cannot be kept off the bound queue, and what is not devmem TCP is lost there",
            none,
        ),
        of(
            &capabilities.header_split_threshold,
            Note,
            "small packets can be made to be split too",
            "whether small packets are split is up to the driver: their payload may come to host memory",
            none,
        ),
        of(
            &capabilities.rss_contexts,
            Note,
            "one flow's connections can be spread over several queues",
            "connections cannot be spread over several queues by a table of their own; a rule for each does it",
            none,
        ),
        of(
            &capabilities.devmem_transmit,
            Note,
            "it can also send from DMA-bufs",
            "it cannot send from DMA-bufs, which receiving does not need",
            none,
        ),
    ]
}

fn carrier(name: &str) -> Option<Finding> {
    let file = format!("/sys/class/net/{name}/operstate");
    let state = sysfs::text(&file)?;
    let evidence = format!("{file} says {state:?}");
    Some(match state.as_str() {
        "up" | "unknown" => Finding::new(State::Ok, "link", "the link is up", evidence),
        _ => Finding::new(
            State::Caution,
            "link",
            "no link: queues can be bound, but nothing will arrive",
            evidence,
        )
        .remedy(format!("look at cable, transceiver and the other end: ethtool {name}")),
    })
}

/// Counts: the addresses themselves are nobody's business.
fn addresses(nic: &Nic) -> Finding {
    const ABOUT: &str = "IP addresses";
    let listed = Route::open().and_then(|mut route| route.addresses());
    let addresses = match listed {
        Ok(addresses) => addresses,
        Err(error) => {
            let error: Error = error.during("list the IP addresses").on(nic);
            return Finding::failed(State::Unknown, ABOUT, "could not be listed", &error);
        }
    };
    count(addresses.iter().filter(|address| address.ifindex == nic.ifindex()), nic.name())
}

fn count<'a>(addresses: impl Iterator<Item = &'a LocalAddress>, name: &str) -> Finding {
    let (mut v4, mut v6, mut local) = (0_u32, 0_u32, 0_u32);
    for address in addresses {
        match address.address {
            std::net::IpAddr::V4(_) => v4 += 1,
            std::net::IpAddr::V6(address) if address.is_unicast_link_local() => local += 1,
            std::net::IpAddr::V6(_) => v6 += 1,
        }
    }
    let evidence =
        format!("rtnetlink getaddr: {v4} of IPv4, {v6} of IPv6, {local} of IPv6 for the link only");
    if v4 + v6 > 0 {
        return Finding::new(State::Ok, "IP addresses", "a peer has an address to connect to", evidence);
    }
    let says = "it has no address that a peer could connect to";
    Finding::new(State::Caution, "IP addresses", says, evidence)
        .remedy(format!("ip address add ADDRESS/PREFIX dev {name}"))
}

fn occupancy(name: &str, found: Result<Occupancy>) -> Finding {
    const ABOUT: &str = "in use";
    const READ: &str = "locks and journals of this suite and its tool";
    match found {
        Ok(Occupancy::Held { by }) => Finding::new(
            State::Obstacle,
            ABOUT,
            format!("{by} has prepared this NIC for receiving"),
            format!("{READ}: the lock is held"),
        )
        .remedy("wait for it to end, or end it"),
        Ok(Occupancy::LeftBehind { process, changes, journal }) => Finding::new(
            State::Caution,
            ABOUT,
            format!("process {process} was killed before it put this NIC back: {changes} settings are not as they \
                     were"),
            format!("{READ}: {} is there and nobody holds the lock", journal.display()),
        )
        .remedy(format!("devmem-conformance restore {name} (the next run would restore it first as well)")),
        Ok(Occupancy::Unseen { folder }) => Finding::new(
            State::Unknown,
            ABOUT,
            "whether another process has it could not be seen",
            format!("{READ}: {} may not be read", folder.display()),
        )
        .remedy(AS_ROOT),
        Ok(_) => Finding::new(State::Ok, ABOUT, "no process has prepared it, and none left it changed", READ),
        Err(error) => {
            Finding::failed(State::Obstacle, ABOUT, "what was left behind on it cannot be understood", &error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_says_what_it_lacks_and_what_helps() {
        let looked = look(&Nic::open("lo").unwrap());
        assert_eq!(looked.device.able, Ability::No);
        assert_eq!((looked.refuses_bindings, looked.idle_queue), (false, None));
        let lacking = looked.device.findings.iter().filter(|finding| finding.state == State::Obstacle);
        assert!(lacking.clone().count() >= 2, "{:?}", looked.device.findings);
        for finding in lacking {
            assert!(finding.remedy.is_some() && !finding.evidence.is_empty(), "{finding:?}");
        }
    }

    #[test]
    fn addresses_for_the_link_alone_do_not_count() {
        let address = |text: &str| LocalAddress {
            ifindex: 2,
            address: text.parse().unwrap(),
            prefix_length: 24,
            scope: 0,
            flags: 0,
        };
        let none = count([address("fe80::1")].iter(), "eth0");
        assert_eq!(none.state, State::Caution);
        assert!(none.remedy.unwrap().contains("dev eth0"));
        let some = count([address("fe80::1"), address("192.0.2.7")].iter(), "eth0");
        assert_eq!(some.state, State::Ok);
        assert!(!some.evidence.contains("192.0.2"), "{}", some.evidence);
    }

    #[test]
    fn what_a_killed_process_left_is_told_with_its_remedy() {
        let journal = std::path::PathBuf::from("/run/devmem/1-3.journal.json");
        let left = occupancy("eth0", Ok(Occupancy::LeftBehind { process: 17, changes: 4, journal }));
        assert_eq!(left.state, State::Caution);
        assert!(left.remedy.unwrap().starts_with("devmem-conformance restore eth0 "));
        let held = occupancy("eth0", Ok(Occupancy::Held { by: "process 17 (tool)".to_owned() }));
        assert_eq!(held.state, State::Obstacle);
        assert!(held.says.contains("process 17"), "{}", held.says);
    }
}
