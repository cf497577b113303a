//! Devices that are taken away from the machine while memory is bound, and come back.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use devmem_provider::{Capabilities, PciAddress, Pin, Request};
use devmem_receive::nic::Nic;

use super::super::path_check;
use super::super::receive::ONE_MEBIBYTE;
use crate::check::{Check, Group};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::isolation::{Companion, Link, Role};
use crate::need::Need;
use crate::path::Attached;
use crate::pci_function::PciFunction;
use crate::peer::{Session, Step};
use crate::remembered_nic::RememberedNic;
use crate::setup::{Connection, Setup, compared, places, sends};
use crate::verdict::{Finding, Outcome, Skip, Stop};

const NEEDS: &[Need] =
    &[Need::Disruption, Need::Nic, Need::Peer, Need::Capability(Capabilities::CPU_MAPPING)];

/// A driver may take long until it drives a device that has come back.
pub(in crate::checks) const LIMIT: Duration = Duration::from_secs(120);

/// How long a device of the provider may take to come back.
pub(in crate::checks) const COMES_BACK: Duration = Duration::from_secs(60);

pub(super) const CHECKS: &[Check] = &[
    check(
        "nic_unplugged",
        "A NIC that is unplugged in the middle of a stream ends it; what was received stays, the kernel lets go of the \
         buffer, and the NIC can come back.",
        &[Fault::DropsBytes, Fault::WrongOffset, Fault::DeniesDetached],
        nic_unplugged,
    ),
    check(
        "device_unplugged",
        "The device of a bound buffer is unplugged in the middle of a stream; NIC and process live on, and it can come \
         back.",
        &[Fault::DropsBytes, Fault::WrongOffset, Fault::DeniesDetached],
        device_unplugged,
    ),
];

const fn check(
    name: &'static str,
    proves: &'static str,
    catches: &'static [Fault],
    run: fn(&Context<'_>) -> Outcome,
) -> Check {
    let check = path_check(Group::Lifetime, name, proves, NEEDS, &[ONE_MEBIBYTE], catches, run);
    Check { limit: LIMIT, ..check }
}

/// What a companion does here.
pub(in crate::checks) const FINDER: (&str, Role) = ("finder", finder);

/// Drivers of PCI functions that do not survive that their device goes while it has buffers, with what happens; tried
/// on Linux 7.2 and 7.3.
const DIES_WITH_BUFFERS: &[(&str, &str)] = &[
    ("nouveau", "nouveau_ttm_fini() frees what buffers still use, and the kernel dies when they are freed"),
    // virtio_gpu is bound a level below.
    ("virtio-pci", "virtio_gpu_release() finds buffers and commands still there, and the kernel dies"),
];

/// How long the kernel may hold a buffer of which nothing is held.
const LETS_GO: Duration = Duration::from_secs(10);

/// How long a stream waits for a NIC that is gone.
const IDLE_LIMIT: Duration = Duration::from_secs(1);

const FIRST: u64 = 256 << 10;
const WHOLE: u64 = 1 << 20;

/// A connection that has received the first part of its stream, and whose peer waits.
fn in_the_middle(context: &Context<'_>, setup: &Setup, session: &mut Session) -> Result<Connection, Stop> {
    let mut steps = vec![Step::Write { bytes: FIRST, chunk: 64 << 10 }, Step::Barrier];
    steps.extend(sends(WHOLE - FIRST));
    setup.connect(context, session, steps)
}

/// Why nothing is taken away.
pub(in crate::checks) fn spared(reason: String, found_by: &str, remedy: Option<&str>) -> Stop {
    Stop::Skip(Skip { reason, found_by: found_by.to_owned(), remedy: remedy.map(str::to_owned) })
}

fn nic_unplugged(context: &Context<'_>) -> Outcome {
    let nic = context.nic()?.open()?;
    let function = PciFunction::at(can_come_back(&nic)?);
    let remembered = RememberedNic::of(&nic)?;
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let mut connection = in_the_middle(context, &setup, &mut session)?;
    let (mut held, mut position) = (Vec::new(), 0);
    while position < FIRST {
        let pieces = connection.incoming.next()?;
        held.extend(pieces.ok_or_else(|| Stop::fail("the stream ended before its end"))?);
        position = compared(&held, 0, &setup.mapping)?;
    }
    let removed = function.remove().map_err(|error| Stop::skip(&error))?;
    ensure!(!function.is_there(), "the NIC was taken away, and the kernel still has it");
    connection.proceed()?;
    connection.incoming.limit_idle(IDLE_LIMIT);
    // There is no word from the peer any more: that is an end, or an error at the latest when nothing has come for the
    // time that the stream waits.
    while let Ok(Some(pieces)) = connection.incoming.next() {
        held.extend(pieces);
        position = compared(&held, 0, &setup.mapping)?;
        ensure!(position < WHOLE, "everything arrived from a NIC that is gone");
    }
    compared(&held, 0, &setup.mapping)?;
    // Whether the kernel still takes back what is held is of no use to a NIC that is gone.
    let _ = connection.incoming.release(&places(&held)).and_then(|()| connection.incoming.flush());
    let Setup { mapping, pin, nic: prepared, buffer, .. } = setup;
    drop(connection);
    lets_go(pin)?;
    let report = prepared.restore()?;
    ensure!(report.gone, "the NIC is gone, and is said to be put back: {report}");
    compared(&held, 0, &mapping)?;
    drop((mapping, buffer));
    removed.find_again()?;
    let nic = remembered.bring_back()?;
    let differences = remembered.differences(&nic)?;
    ensure!(differences.is_empty(), "the NIC has come back with {}", differences.join(", "));
    let again = Setup::new(context)?;
    again.transfer(context, &mut session, FIRST)?;
    Ok(Finding::Pass)
}

/// Detaches, and waits until the kernel has let go of the buffer: of a device that is gone it looks again every second
/// whether pages have come back (`page_pool_release_retry()`, net/core/page_pool.c).
fn lets_go(pin: Pin<Box<dyn Attached>>) -> Result<(), Stop> {
    let told = pin.into_attachment().detach(LETS_GO)?;
    ensure!(told, "the kernel still holds the buffer after {} s", LETS_GO.as_secs());
    Ok(())
}

/// The address of a NIC that can be unplugged without cutting off whoever runs this, and found again by it.
pub(in crate::checks) fn can_come_back(nic: &Nic) -> Result<PciAddress, Stop> {
    let address = nic
        .identity()
        .pci
        .ok_or_else(|| spared("the NIC is no PCI function".to_owned(), "the NIC's identity", None))?;
    let namespace = |process: &str| Ok::<_, Stop>(fs::metadata(format!("/proc/{process}/ns/net"))?.ino());
    if namespace("self")? != namespace("1")? {
        return Err(spared(
            "a NIC that comes back is in the first network namespace, and this is another".to_owned(),
            "the inodes of /proc/1/ns/net and /proc/self/ns/net",
            Some("run it in the first network namespace"),
        ));
    }
    if is_a_way_out(nic.name()) {
        return Err(spared(
            "a route to other networks leads over the NIC, and would not come back".to_owned(),
            "the tables of routes in /proc/net",
            Some("choose a NIC that nothing else uses"),
        ));
    }
    Ok(address)
}

/// Whether a route with a gateway leads over an interface.
fn is_a_way_out(interface: &str) -> bool {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    // Interface, destination, gateway, flags…
    let v4 = read("/proc/net/route");
    // …and in the other table the interface comes last, behind the flags.
    let v6 = read("/proc/net/ipv6_route");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let v4 = v4.lines().map(words).filter_map(|words| Some((words.first()?.clone(), words.get(3)?.clone())));
    let v6 = v6.lines().map(words).filter_map(|words| Some((words.get(9)?.clone(), words.get(8)?.clone())));
    let is_gateway = |flags: &str| {
        u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & u32::from(nix::libc::RTF_GATEWAY) != 0)
    };
    v4.chain(v6).any(|(name, flags)| name == interface && is_gateway(&flags))
}

fn device_unplugged(context: &Context<'_>) -> Outcome {
    let identity = context.provider().identity();
    let address = identity
        .pci
        .ok_or_else(|| spared("the provider is no PCI device".to_owned(), "the provider's identity", None))?;
    let function = PciFunction::at(address);
    let driver = function.driver().unwrap_or_default();
    if let Some((_, reason)) = DIES_WITH_BUFFERS.iter().find(|(dies, _)| *dies == driver) {
        return Err(spared((*reason).to_owned(), "trying it with this driver", None));
    }
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let mut connection = in_the_middle(context, &setup, &mut session)?;
    while connection.position < FIRST {
        let places = connection.read(&setup.mapping)?;
        let places = places.ok_or_else(|| Stop::fail("the stream ended before its end"))?;
        connection.incoming.release(&places)?;
    }
    connection.incoming.flush()?;
    let removed = function.remove().map_err(|error| Stop::skip(&error))?;
    ensure!(!function.is_there(), "the device was taken away, and the kernel still has it");
    connection.proceed()?;
    connection.incoming.limit_idle(IDLE_LIMIT);
    // What lies in the buffer now is nobody's promise: that there is an end is.
    while let Ok(Some(pieces)) = connection.incoming.next() {
        if connection.incoming.release(&places(&pieces)).is_err() {
            break;
        }
    }
    let Setup { mapping, pin, nic, buffer, .. } = setup;
    drop(connection);
    lets_go(pin)?;
    nic.restore()?;
    drop((mapping, buffer));
    removed.find_again()?;
    comes_back(context)?;
    Ok(Finding::Pass)
}

/// Waits until another process finds the provider again, and has memory from it.
fn comes_back(context: &Context<'_>) -> Result<(), Stop> {
    let deadline = Instant::now() + COMES_BACK;
    loop {
        let companion = Companion::start(context, FINDER.0)?;
        match companion.link().receive(&mut [0; 1]) {
            Ok(()) => return Ok(()),
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(200)),
            Err(_) => {
                let seconds = COMES_BACK.as_secs();
                return Err(Stop::fail(format!("the device has not come back after {seconds} s")));
            }
        }
    }
}

fn finder(context: &Context<'_>, link: &Link) -> Result<(), Stop> {
    context.provider().allocate(&Request::bytes(context.size()?))?.export()?;
    Ok(link.send(&[0])?)
}
