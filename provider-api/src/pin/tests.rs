use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use nix::errno::Errno;

use super::*;
use crate::error::{Error, ErrorKind};
use crate::identity::{DeviceKind, Identity};
use crate::importer::{Attachment, DynImporter, PeerToPeer};
use crate::pci::PciAddress;

/// A buffer that an attachment moves, as told by the test.
#[derive(Debug)]
struct FakeBuffer {
    identity: Option<Identity>,
    residencies: Mutex<Vec<ResidencyEvidence>>,
}

/// What attaches, or is refused.
struct FakeImporter {
    peer_to_peer: PeerToPeer,
    refusal: Option<Errno>,
    attached: Arc<()>,
}

#[derive(Debug)]
struct FakeAttachment(#[expect(dead_code, reason = "counts those that are held")] Arc<()>);

impl Attachment for FakeAttachment {}

impl Buffer for FakeBuffer {
    fn size(&self) -> u64 {
        4096
    }

    fn exporter(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    fn export(&self) -> Result<DmaBuf> {
        Ok(DmaBuf::stand_in(self.size()))
    }

    fn residency(&self) -> Result<ResidencyEvidence> {
        Ok(self.residencies.lock().unwrap().remove(0))
    }
}

impl Importer for FakeImporter {
    type Attachment = FakeAttachment;

    fn describe(&self) -> String {
        "devmem TCP on eth1 queue 1".to_owned()
    }

    fn peer_to_peer(&self) -> PeerToPeer {
        self.peer_to_peer
    }

    fn device(&self) -> Option<PciAddress> {
        Some("0000:06:00.0".parse().unwrap())
    }

    fn attach(&mut self, _: &DmaBuf) -> Result<FakeAttachment> {
        match self.refusal {
            Some(errno) => {
                Err(Error::from_errno(errno, "bind").on("eth1").kernel_said("Failed to bind dmabuf"))
            }
            None => Ok(FakeAttachment(Arc::clone(&self.attached))),
        }
    }
}

fn importer(peer_to_peer: PeerToPeer) -> FakeImporter {
    FakeImporter { peer_to_peer, refusal: None, attached: Arc::default() }
}

fn seen(residency: Residency, region: &str) -> ResidencyEvidence {
    ResidencyEvidence { residency, region: Some(region.to_owned()), evidence: format!("fdinfo: {region}") }
}

fn amdgpu_buffer(before: ResidencyEvidence, after: ResidencyEvidence) -> FakeBuffer {
    let identity = Identity {
        name: "amdgpu".to_owned(),
        backend: "amdgpu",
        description: "Radeon".to_owned(),
        kind: DeviceKind::Discrete,
        driver: "amdgpu".to_owned(),
        driver_version: None,
        node: PathBuf::from("/dev/dri/renderD128"),
        pci: Some("0000:03:00.0".parse().unwrap()),
        numa_node: None,
    };
    FakeBuffer { identity: Some(identity), residencies: Mutex::new(vec![before, after]) }
}

fn demoted() -> FakeBuffer {
    amdgpu_buffer(seen(Residency::DeviceLocal, "vram"), seen(Residency::System, "gtt"))
}

/// A machine of which nothing can be seen.
fn nowhere() -> Machine {
    Machine::recorded("/nonexistent")
}

/// A machine with the GPU and the NIC of these tests below root ports of their own.
fn desktop(processor: &str) -> (tempfile::TempDir, Machine) {
    let root = tempfile::TempDir::new().unwrap();
    let write = |path: String, content: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    write("proc/cpuinfo".to_owned(), processor);
    write("proc/kallsyms".to_owned(), "0 T pci_p2pdma_distance_many\n");
    let links = root.path().join("sys/bus/pci/devices");
    std::fs::create_dir_all(&links).unwrap();
    for way in ["0000:00:00.0", "0000:00:01.0/0000:03:00.0", "0000:00:02.0/0000:06:00.0"] {
        let mut folder = "devices/pci0000:00".to_owned();
        for address in way.split('/') {
            folder = format!("{folder}/{address}");
            for (attribute, value) in [("vendor", "0x8086"), ("device", "0x29c0"), ("class", "0x060400")] {
                write(format!("sys/{folder}/{attribute}"), value);
            }
            let _ = std::os::unix::fs::symlink(format!("../../../{folder}"), links.join(address));
        }
    }
    let machine = Machine::recorded(root.path());
    (root, machine)
}

#[test]
fn a_demotion_by_an_importer_without_peer_to_peer_names_all_who_are_concerned() {
    let mut importer = importer(PeerToPeer::Never);
    let error = Pin::on(&nowhere(), &mut importer, &demoted(), Require::DeviceLocal).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongResidency);
    assert_eq!(
        error.to_string(),
        "cannot keep the buffer in device-local memory on devmem TCP on eth1 queue 1: amdgpu at 0000:03:00.0 \
         moved the buffer from vram (device-local memory) to gtt (system memory) because devmem TCP on eth1 \
         queue 1 attaches without peer-to-peer (fdinfo: gtt); use an importer that takes peer-to-peer \
         addresses, or drop the requirement"
    );
    assert_eq!(Arc::strong_count(&importer.attached), 1, "it is detached again");
}

#[test]
fn memory_that_stays_on_the_device_is_pinned_whatever_the_importer_takes() {
    let window = || seen(Residency::DeviceLocal, "host-visible");
    let buffer = amdgpu_buffer(window(), window());
    let mut importer = importer(PeerToPeer::Never);
    let pin = Pin::on(&nowhere(), &mut importer, &buffer, Require::DeviceLocal).unwrap();
    assert_eq!(pin.residency(), &window());
    assert_eq!(pin.to_string(), "device-local (host-visible) (fdinfo: host-visible)");
}

#[test]
fn without_requirement_a_demotion_is_told_by_the_pin() {
    let mut importer = importer(PeerToPeer::Never);
    let pin = Pin::on(&nowhere(), &mut importer, &demoted(), Require::Anywhere).unwrap();
    assert_eq!(
        pin.to_string(),
        "system (gtt) (was device-local (vram)): amdgpu at 0000:03:00.0 moved it when devmem TCP on eth1 \
         queue 1 attached"
    );
}

#[test]
fn memory_that_was_never_on_the_device_is_not_said_to_have_moved() {
    let gtt = || seen(Residency::System, "gtt");
    let buffer = amdgpu_buffer(gtt(), gtt());
    let error =
        Pin::on(&nowhere(), &mut importer(PeerToPeer::Never), &buffer, Require::DeviceLocal).unwrap_err();
    assert!(error.to_string().contains("left it in gtt"), "{error}");
    assert!(!error.to_string().contains("moved"), "{error}");
}

#[test]
fn a_place_that_nobody_tells_does_not_meet_the_requirement() {
    let unknown = ResidencyEvidence {
        residency: Residency::Unknown,
        region: None,
        evidence: "no way to look".to_owned(),
    };
    let mut buffer = amdgpu_buffer(seen(Residency::DeviceLocal, "vram"), unknown);
    buffer.identity = None;
    let error =
        Pin::on(&nowhere(), &mut importer(PeerToPeer::Never), &buffer, Require::DeviceLocal).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongResidency);
    assert!(error.to_string().contains("its exporter does not tell where the buffer is"), "{error}");
}

#[test]
fn an_earlier_place_that_nobody_told_is_not_invented() {
    let buffer = amdgpu_buffer(seen(Residency::Unknown, "?"), seen(Residency::System, "gtt"));
    let error =
        Pin::on(&nowhere(), &mut importer(PeerToPeer::Never), &buffer, Require::DeviceLocal).unwrap_err();
    assert!(error.to_string().contains("did not tell where it was before"), "{error}");
    assert!(!error.to_string().contains("moved"), "{error}");
}

#[test]
fn with_peer_to_peer_the_topology_says_why_memory_moved() {
    let refused = |machine: &Machine| {
        Pin::on(machine, &mut importer(PeerToPeer::WhereReachable), &demoted(), Require::DeviceLocal)
            .unwrap_err()
            .to_string()
    };
    let (_folder, machine) = desktop("vendor_id\t: GenuineIntel\ncpu family\t: 6\n");
    let error = refused(&machine);
    assert!(error.contains("because the kernel finds no way between them"), "{error}");
    assert!(error.contains("8086:29c0"), "{error}");
    assert!(error.contains("put both below one PCIe switch"), "{error}");

    let (_folder, machine) = desktop("vendor_id\t: AuthenticAMD\ncpu family\t: 25\n");
    let error = refused(&machine);
    assert!(error.contains("although devmem TCP on eth1 queue 1 takes peer-to-peer"), "{error}");
    assert!(error.contains("reachable through the host bridge"), "{error}");

    let (_folder, machine) = desktop("");
    assert!(refused(&machine).contains("is unknown: which processor"), "{}", refused(&machine));
    assert!(refused(&nowhere()).contains("or the exporter offers none"), "{}", refused(&nowhere()));
}

#[test]
fn a_refusal_by_the_exporter_is_explained_where_device_memory_is_required() {
    let mut importer = importer(PeerToPeer::Never);
    importer.refusal = Some(Errno::EOPNOTSUPP);
    let refused = |importer: &mut dyn DynImporter, require| {
        Pin::on(&nowhere(), importer, &demoted(), require).unwrap_err()
    };
    let error = refused(&mut importer, Require::DeviceLocal);
    assert_eq!((error.kind(), error.errno()), (ErrorKind::Unsupported, Some(Errno::EOPNOTSUPP)));
    assert_eq!(
        error.to_string(),
        "cannot bind on eth1: amdgpu at 0000:03:00.0 refuses to share the buffer, which is in vram \
         (device-local memory) and may not move, because devmem TCP on eth1 queue 1 attaches without \
         peer-to-peer: the kernel said \"Failed to bind dmabuf\" (EOPNOTSUPP, Operation not supported on \
         transport endpoint); use an importer that takes peer-to-peer addresses, or drop the requirement and \
         allocate memory that may move to system memory"
    );
    // Without the requirement, and for failures that are the importer's own, its words stand.
    assert_eq!(refused(&mut importer, Require::Anywhere).reason(), None);
    importer.refusal = Some(Errno::EBUSY);
    assert_eq!(refused(&mut importer, Require::DeviceLocal).reason(), None);
}

#[test]
fn who_is_attached_beside_is_named_as_the_one_who_may_have_moved_it() {
    let (buffer, importer) = (demoted(), importer(PeerToPeer::WhereReachable));
    let parties = Parties::of(&buffer, &importer);
    let [before, after] = [seen(Residency::DeviceLocal, "vram"), seen(Residency::System, "gtt")];
    let error = |others: &[&str], before: &ResidencyEvidence| {
        let others = Attached::Devices(others.iter().map(|&name| name.to_owned()).collect());
        parties.wrong_residency(before, &after, &nowhere(), &others)
    };
    assert!(error(&["0000:07:00.0"], &before).to_string().contains("able to move it for all: 0000:07:00.0"));
    assert!(!error(&[], &before).to_string().contains("attached to it as well"));
    let left = error(&["vgem"], &after);
    assert_eq!(
        left.remedy_text(),
        Some("release the other importers of the buffer, or drop the requirement")
    );
    assert!(left.to_string().contains("able to move it for all: vgem"), "{left}");
}
