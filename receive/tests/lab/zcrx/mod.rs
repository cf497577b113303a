//! io_uring zero-copy receive: registering queues, and receiving with rings.

mod host_memory;
mod owners;
mod receivers;
mod register;
mod setup;
mod starvation;
mod streams;

pub(crate) use owners::ROLES;

use crate::harness::{Test, tests};

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
        every_byte_in_order_in_any_batch,
        a_fragment_that_is_held_is_not_overwritten,
        a_fragment_released_twice_is_told,
        another_connections_fragment_is_not_released,
        a_full_completion_queue_loses_nothing,
        payload_in_host_memory_ends_the_stream,
        a_stream_stays_in_its_thread,
        the_link_may_go_down_and_up,
    },
    starvation::{
        an_exhausted_buffer_recovers_and_is_told,
        a_full_refill_ring_is_flushed,
        a_closed_connection_gives_its_fragments_back,
    },
    receivers::{
        streams_share_a_queue_between_threads,
        one_ring_receives_many_connections_from_two_queues,
        packets_of_another_queue_are_told,
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
