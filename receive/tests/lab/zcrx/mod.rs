//! io_uring zero-copy receive: registering queues, and receiving with rings.

mod host_memory;
mod owners;
mod receivers;
mod register;
mod starvation;
mod streams;

pub(crate) use owners::ROLES;

use devmem_receive::zcrx::{Binding, Zcrx};

use crate::harness::{Failure, Test, tests};
use crate::machine::prepare;
use crate::setup::Setup;

/// A buffer whose queue is registered.
fn setup(buffer_bytes: u64) -> Result<Setup<Binding>, Failure> {
    setup_with(buffer_bytes, |importer| importer)
}

/// Registers it in another way.
fn setup_with(buffer_bytes: u64, how: impl FnOnce(Zcrx) -> Zcrx) -> Result<Setup<Binding>, Failure> {
    let nic = prepare(1)?;
    let importer = how(Zcrx::on(&nic));
    Setup::of(nic, importer, buffer_bytes)
}

pub(crate) const TESTS: &[Test] = tests![
    register::{
        this_kernel_can_do_everything,
        header_split_is_off,
        a_queue_is_registered_already,
        the_other_path_has_the_queue,
        a_buffer_takes_one_queue,
        there_is_no_such_queue,
        the_caller_has_no_privilege,
        the_interface_is_down,
        loopback_manages_no_queues,
        gve_cannot_restart_queue_0,
        gve_has_buffers_of_a_page,
        a_refused_registration_leaves_no_reference,
    },
    streams::{
        a_full_completion_queue_loses_nothing,
        payload_in_host_memory_ends_the_stream,
        a_stream_stays_in_its_thread,
    },
    starvation::{
        an_exhausted_buffer_is_told,
        a_full_refill_ring_is_flushed,
    },
    receivers::{
        streams_share_a_queue_between_threads,
        one_ring_receives_many_connections_from_two_queues,
        one_ring_is_for_one_after_the_other,
    },
    host_memory::{
        every_byte_arrives_without_a_copy,
        payload_that_arrived_elsewhere_is_copied_and_counted,
    },
    owners::{
        unbinding_is_complete_with_fragments_held,
        dropping_the_binding_ends_a_stream_that_waits,
        restoring_ends_a_stream_that_waits,
        killed_while_a_queue_is_registered,
        a_signal_frees_the_queue_of_a_stream_that_waits,
    },
];
