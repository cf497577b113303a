//! RDMA memory regions as the importer with peer-to-peer: emulated EFAs and GPUs in the lab, with the kernel's own
//! drivers.
//!
//! Started on the host, this program boots the lab once for each machine, with itself as the command; in the guest it
//! runs the tests for that machine.

mod contagion;
mod devices;
mod endurance;
mod forecasts;
#[expect(dead_code, unused_imports, reason = "NICs are prepared by other test programs")]
#[path = "../harness/mod.rs"]
mod harness;
mod host_memory;
mod lifetime;
mod machines;
mod pins;
mod privilege;
mod refusals;
mod setup;
mod software_device;
mod witness;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use harness::{Test, tests};
use machines::{IN_GUEST, MACHINES};

/// Where the kernel finds a way between the devices.
pub(crate) const WITH_PATH: &[Test] = tests![
    devices::{ they_are_listed, they_are_found_by_any_name, one_that_is_not_there_is_told },
    pins::{
        device_memory_stays_where_it_is,
        a_part_of_a_buffer_is_registered,
        keys_and_addresses_are_told,
        a_region_holds_the_buffer_by_itself,
    },
    refusals::{
        what_no_device_takes,
        the_kernel_agrees,
        what_this_device_does_not_offer,
        what_is_no_dma_buf,
        a_node_that_is_not_there,
        a_node_that_may_not_be_opened,
        a_refusal_leaves_nothing,
    },
    software_device::{ makes_no_regions_of_dma_bufs, ports_come_and_go_as_events },
    host_memory::{ is_registered, needs_a_limit_on_locked_memory },
    privilege::{ a_user_pins_48_mebibytes },
    forecasts::{ the_way_is_that_of_the_machine, every_provider_does_as_foretold },
    contagion::{
        an_importer_without_a_path_moves_it_for_all,
        a_pin_keeps_others_out,
        zero_copy_receive_does_the_same,
        an_attachment_without_use_counts,
        who_is_attached_is_seen_by_root_alone,
    },
    endurance::{ ten_thousand_pins_leave_nothing, pressure_does_not_move_a_pinned_buffer },
    lifetime::{
        any_order_of_dropping,
        a_killed_process_leaves_nothing,
        a_child_does_not_end_a_pin,
        an_rdma_device_that_is_unbound_waits_for_its_users,
        a_gpu_that_is_unbound_is_told,
    },
];

/// Where it finds none.
pub(crate) const WITHOUT_PATH: &[Test] = tests![
    pins::{
        device_memory_moves_and_is_seen_to,
        a_demand_is_refused_with_the_reason,
    },
    refusals::{ an_exporter_refuses },
    forecasts::{ the_way_is_that_of_the_machine, every_provider_does_as_foretold },
];

/// Whichever it is: the verdict is held against what happens.
pub(crate) const ANY_PATH: &[Test] =
    tests![forecasts::{ the_way_is_that_of_the_machine, every_provider_does_as_foretold }];

/// A card of which peers see a part of the memory.
pub(crate) const SMALL_WINDOW: &[Test] = tests![pins::{ a_window_that_is_too_small_is_told }];

fn main() -> ExitCode {
    if let Some(exit_code) = harness::play(lifetime::ROLES) {
        return exit_code;
    }
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).map(String::as_str) == Some(IN_GUEST) {
        return machines::in_guest(&arguments[2..]);
    }
    // One machine at a time.
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let trials = MACHINES.iter().map(|machine| {
        Trial::test(machine.name, move || machine.boot().map_err(|failure| failure.to_string().into()))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
