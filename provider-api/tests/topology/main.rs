//! The verdict on machines of several kinds, each described in `machines/`.
//!
//! The expected values are what Linux 7.2 decides on such a machine, worked out by hand from
//! `drivers/pci/p2pdma.c`.

#![allow(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod recording;

use devmem_provider::ErrorKind;
use devmem_provider::topology::{
    Caution, IommuDomain, Obstacle, Permission, Question, Route, Topology, Unread, Verdict, Window,
};

use recording::{Recording, View, address};

const RYZEN: &str = include_str!("machines/ryzen-desktop.txt");
const SKYLAKE: &str = include_str!("machines/xeon-skylake.txt");
const SWITCH: &str = include_str!("machines/workstation-switch.txt");
const REDIRECT: &str = include_str!("machines/workstation-switch-redirect.txt");
const ICE_LAKE: &str = include_str!("machines/xeon-icelake-switch-iommu.txt");
const TWO_SOCKETS: &str = include_str!("machines/xeon-haswell-two-sockets.txt");
const VIRTUAL: &str = include_str!("machines/virtual-machine-q35.txt");
const INTEGRATED: &str = include_str!("machines/integrated-graphics.txt");
const CONVENTIONAL: &str = include_str!("machines/conventional-pci.txt");
const GRACE: &str = include_str!("machines/grace.txt");

fn seen(description: &str, exporter: &str, importer: &str) -> Topology {
    Recording::new(description, View::Root).topology(exporter, importer)
}

fn seen_unprivileged(description: &str, exporter: &str, importer: &str) -> Topology {
    Recording::new(description, View::Unprivileged).topology(exporter, importer)
}

fn through_host_bridge(permission: Permission) -> Verdict {
    Verdict::Reachable(Route::HostBridge { permission, redirecting: Vec::new() })
}

fn by_bus_addresses(common: &str) -> Verdict {
    Verdict::Reachable(Route::BusAddresses { common: address(common) })
}

#[test]
fn different_root_ports_of_a_ryzen_go_through_its_host_bridge() {
    let topology = seen(RYZEN, "0c:00.0", "05:00.0");
    assert_eq!(topology.verdict, through_host_bridge(Permission::Processor));
    assert_eq!((topology.common, topology.distance), (None, 8));
    // Privilege changes nothing where the rule does not depend on ACS.
    assert_eq!(seen_unprivileged(RYZEN, "0c:00.0", "05:00.0").verdict, topology.verdict);
}

#[test]
fn functions_of_one_device_are_redirected_by_the_port_above_them() {
    let redirecting = vec![address("0b:00.0")];
    let topology = seen(RYZEN, "0c:00.0", "0c:00.1");
    assert_eq!((topology.common, topology.distance), (Some(address("0b:00.0")), 2));
    let expected = Route::HostBridge { permission: Permission::Processor, redirecting };
    assert_eq!(topology.verdict, Verdict::Reachable(expected));
}

#[test]
fn a_function_reaches_itself() {
    let topology = seen(RYZEN, "0c:00.0", "0c:00.0");
    assert_eq!(topology.verdict, by_bus_addresses("0c:00.0"));
    assert_eq!(topology.distance, 0);
}

#[test]
fn stacks_of_a_skylake_are_known_by_their_first_root_port() {
    for view in [View::Root, View::Unprivileged] {
        let machine = Recording::new(SKYLAKE, view);
        for importer in ["3e:00.0", "3e:00.1", "5e:00.0"] {
            let topology = machine.topology("3d:00.0", importer);
            assert_eq!(topology.verdict, through_host_bridge(Permission::HostBridge), "{topology}");
        }
        let next_stack = machine.topology("3d:00.0", "5e:00.0").importer.host_bridge;
        assert_eq!(next_stack.name, "pci0000:5d");
        assert_eq!(next_stack.representative.map(|function| function.device), Some(0x2032));
    }
}

#[test]
fn what_is_no_root_port_does_not_stand_for_a_host_bridge() {
    let without =
        SKYLAKE.replace("0000:5d:02.0 8086:2032 060400 root-port", "0000:5d:02.0 8086:2032 060400 express");
    let topology = seen(&without, "3d:00.0", "5e:00.0");
    assert_eq!(topology.importer.host_bridge.representative, None);
    let Verdict::NotReachable(Obstacle::NoCommonBridge { unknown }) = &topology.verdict else {
        panic!("{topology}")
    };
    assert_eq!(unknown.iter().collect::<Vec<_>>(), [&topology.importer.host_bridge]);
}

#[test]
fn a_switch_without_redirection_connects_directly() {
    let topology = seen(SWITCH, "05:00.0", "06:00.0");
    assert_eq!(topology.verdict, by_bus_addresses("01:00.0"));
    assert_eq!(topology.distance, 6);
    assert_eq!(topology.cautions(), []);
}

#[test]
fn beside_the_switch_there_is_no_way() {
    let topology = seen(SWITCH, "05:00.0", "07:00.0");
    let unknown = vec![topology.exporter.host_bridge.clone()];
    assert_eq!(topology.verdict, Verdict::NotReachable(Obstacle::NoCommonBridge { unknown }));
    assert!(topology.to_string().contains("8086:4660"), "{topology}");
}

#[test]
fn a_switch_that_redirects_needs_a_known_host_bridge() {
    let topology = seen(REDIRECT, "05:00.0", "06:00.0");
    let Verdict::NotReachable(obstacle) = &topology.verdict else { panic!("{topology}") };
    let Obstacle::Redirected { redirecting, .. } = obstacle else { panic!("{topology}") };
    assert_eq!(*redirecting, [address("02:08.0"), address("02:10.0")]);
    assert!(obstacle.remedy().contains("pci=disable_acs_redir=0000:02:08.0;0000:02:10.0"), "{topology}");

    let topology = seen(ICE_LAKE, "4d:00.0", "4e:00.0");
    let redirecting = vec![address("4c:00.0"), address("4c:01.0")];
    let expected = Route::HostBridge { permission: Permission::HostBridge, redirecting };
    assert_eq!(topology.verdict, Verdict::Reachable(expected));
}

#[test]
fn redirection_of_the_exporter_alone_and_of_the_importer_alone_counts() {
    for (exporter, importer, redirecting) in
        [("4d:00.0", "50:00.0", "4c:00.0"), ("4f:00.0", "4e:00.0", "4c:01.0")]
    {
        let topology = seen(ICE_LAKE, exporter, importer);
        let redirecting = vec![address(redirecting)];
        let expected = Route::HostBridge { permission: Permission::HostBridge, redirecting };
        assert_eq!(topology.verdict, Verdict::Reachable(expected));
    }
}

#[test]
fn a_translating_iommu_is_a_caution_for_the_direct_way() {
    let topology = seen(ICE_LAKE, "4f:00.0", "50:00.0");
    assert_eq!(topology.verdict, by_bus_addresses("4b:00.0"));
    assert_eq!(topology.importer.iommu.as_ref().map(|group| &group.domain), Some(&IommuDomain::Translated));
    assert_eq!(topology.cautions(), [Caution::IommuTranslates(address("50:00.0"))]);
    let passing = ICE_LAKE.replace("group 42 DMA", "group 42 identity");
    assert_eq!(seen(&passing, "4f:00.0", "50:00.0").cautions(), []);
}

#[test]
fn host_bridges_of_two_sockets_may_be_good_only_within_one() {
    let topology = seen(TWO_SOCKETS, "05:00.0", "06:00.0");
    assert_eq!(topology.verdict, through_host_bridge(Permission::HostBridge));
    let topology = seen(TWO_SOCKETS, "05:00.0", "82:00.0");
    let host_bridges = [topology.exporter.host_bridge.clone(), topology.importer.host_bridge.clone()];
    assert_eq!(topology.verdict, Verdict::NotReachable(Obstacle::DifferentHostBridges { host_bridges }));
}

#[test]
fn a_virtual_machine_depends_on_the_processor_that_it_shows() {
    let topology = seen(VIRTUAL, "01:00.0", "02:00.0");
    assert!(matches!(topology.verdict, Verdict::NotReachable(Obstacle::NoCommonBridge { .. })), "{topology}");
    let epyc = VIRTUAL.replace("GenuineIntel 6", "AuthenticAMD 23");
    let topology = seen(&epyc, "01:00.0", "02:00.0");
    assert_eq!(topology.verdict, through_host_bridge(Permission::Processor));
    assert_eq!(topology.distance, 4);
}

#[test]
fn a_gpu_on_the_root_bus_has_no_bridge_in_common_with_anything() {
    let topology = seen(INTEGRATED, "00:02.0", "01:00.0");
    assert!(topology.exporter.bridges.is_empty());
    assert_eq!(topology.distance, 3);
    assert!(matches!(topology.verdict, Verdict::NotReachable(Obstacle::NoCommonBridge { .. })), "{topology}");
}

#[test]
fn functions_behind_one_conventional_bridge_reach_each_other() {
    let topology = seen(CONVENTIONAL, "04:00.0", "04:01.0");
    assert_eq!(topology.verdict, by_bus_addresses("03:00.0"));
    assert_eq!(topology.distance, 2);
    let topology = seen(CONVENTIONAL, "01:00.0", "04:01.0");
    assert!(matches!(topology.verdict, Verdict::NotReachable(Obstacle::NoCommonBridge { .. })), "{topology}");
}

#[test]
fn what_the_unprivileged_cannot_read_is_not_guessed() {
    let topology = seen_unprivileged(SWITCH, "05:00.0", "06:00.0");
    let Verdict::Unknown(questions) = &topology.verdict else { panic!("{topology}") };
    let functions =
        ["05:00.0", "04:00.0", "03:00.0", "02:08.0", "01:00.0", "06:00.0", "02:10.0"].map(address).into();
    assert_eq!(*questions, [Question::AccessControl { functions, why: Unread::Privilege }]);
    assert!(topology.to_string().contains("could not be read without privilege"), "{topology}");
    // What does not depend on ACS is decided all the same.
    let topology = seen_unprivileged(SWITCH, "05:00.0", "07:00.0");
    assert!(matches!(topology.verdict, Verdict::NotReachable(_)), "{topology}");
}

#[test]
fn where_both_ways_work_only_the_way_is_unknown_to_the_unprivileged() {
    let topology = seen_unprivileged(ICE_LAKE, "4d:00.0", "4e:00.0");
    let expected = Route::Either { common: address("4b:00.0"), permission: Permission::HostBridge };
    assert_eq!(topology.verdict, Verdict::Reachable(expected));
}

#[test]
fn iommu_groups_hint_at_what_could_not_be_read() {
    let hint = |description: &str, exporter, importer| {
        seen_unprivileged(description, exporter, importer).evidence().join("\n")
    };
    assert!(hint(ICE_LAKE, "4d:00.0", "4e:00.0").contains("probably ACS redirects"));
    assert!(hint(ICE_LAKE, "4f:00.0", "50:00.0").contains("probably nothing redirects"));
    assert!(!seen(ICE_LAKE, "4d:00.0", "4e:00.0").to_string().contains("probably"));
}

#[test]
fn host_bridges_that_later_kernels_know_are_not_known_to_earlier_ones() {
    let topology = seen(GRACE, "0002:03:00.0", "0003:01:00.0");
    assert_eq!(topology.verdict, through_host_bridge(Permission::HostBridge));
    let earlier = GRACE.replace("release 7.3.4", "release 7.2.12");
    let topology = seen(&earlier, "0002:03:00.0", "0003:01:00.0");
    let Verdict::NotReachable(Obstacle::NoCommonBridge { unknown }) = &topology.verdict else {
        panic!("{topology}")
    };
    assert_eq!(unknown.len(), 2);
    assert!(topology.to_string().contains("known since Linux 7.3"), "{topology}");
}

#[test]
fn a_kernel_without_peer_to_peer_finds_no_way() {
    let machine = Recording::new(SWITCH, View::Root);
    machine.write("proc/kallsyms", "0000000000000000 T pci_dev_get\n");
    let verdict = machine.topology("05:00.0", "06:00.0").verdict;
    assert_eq!(verdict, Verdict::NotReachable(Obstacle::Kernel));
    // A device that offers memory to peers proves that the kernel has it.
    machine.write("sys/devices/pci0000:00/0000:00:1c.0/p2pmem/size", "0\n");
    assert_eq!(machine.topology("05:00.0", "06:00.0").verdict, by_bus_addresses("01:00.0"));
}

#[test]
fn what_procfs_does_not_tell_is_a_question() {
    let machine = Recording::new(RYZEN, View::Root);
    machine.remove("proc/kallsyms");
    assert_eq!(machine.topology("0c:00.0", "05:00.0").verdict, Verdict::Unknown(vec![Question::Kernel]));
    machine.remove("proc/cpuinfo");
    assert_eq!(
        machine.topology("0c:00.0", "05:00.0").verdict,
        Verdict::Unknown(vec![Question::Processor, Question::Kernel])
    );
}

#[test]
fn a_sleeping_gpu_and_a_small_window_are_cautions() {
    let topology = seen(RYZEN, "0c:00.0", "05:00.0");
    let window = Window { register: 0, size: 256 << 20, prefetchable: true, wide: false, assigned: true };
    assert_eq!(
        topology.cautions(),
        [Caution::ExporterSuspended(address("0c:00.0")), Caution::SmallWindow { window, memory: 16 << 30 },]
    );
    assert!(topology.to_string().contains("peers see 256 MiB of 16 GiB"), "{topology}");
    // Where the driver tells nothing in sysfs, the provider may.
    let topology = seen(CONVENTIONAL, "01:00.0", "04:01.0");
    assert_eq!(topology.cautions(), []);
    assert_eq!(topology.with_exporter_memory(1 << 30).cautions().len(), 1);
    // Registers are no window to memory, however large they are.
    let registers = CONVENTIONAL.replace("bar2=256K", "bar2=1G");
    let window = seen(&registers, "01:00.0", "04:01.0").exporter.window().unwrap();
    assert_eq!((window.register, window.size), (0, 256 << 20));
}

#[test]
fn gpus_and_nics_are_found_by_their_class() {
    let found = |description: &str| {
        let recording = Recording::new(description, View::Unprivileged);
        (recording.machine().gpus().unwrap(), recording.machine().nics().unwrap())
    };
    assert_eq!(found(CONVENTIONAL), (vec![address("01:00.0"), address("04:00.0")], vec![address("04:01.0")]));
    let accelerator = ICE_LAKE.replace("1002:740f 038000", "1002:74a1 120000");
    assert_eq!(found(&accelerator).0, [address("4d:00.0"), address("4f:00.0")]);
    let nowhere = Recording::new("", View::Root).machine();
    assert_eq!(nowhere.gpus().unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_function_that_does_not_exist_is_named() {
    let recording = Recording::new(VIRTUAL, View::Root);
    let error = recording.machine().topology(address("01:00.0"), address("09:00.0")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.object(), Some("0000:09:00.0"));
}
