//! Devmem TCP: binding buffers to queues, and receiving into them.

mod bind;
#[path = "../../harness/privilege.rs"]
pub(crate) mod privilege;
mod streams;

use crate::harness::{Test, tests};

pub(crate) const TESTS: &[Test] = tests![
    bind::{
        header_split_is_off,
        a_queue_is_bound_already,
        all_queues_or_none_are_bound,
        one_buffer_may_be_bound_twice,
        there_is_no_such_queue,
        the_caller_has_no_privilege,
        the_interface_is_down,
        loopback_manages_no_queues,
        a_virtual_interface_does_no_dma,
        gve_cannot_restart_queue_0,
        the_interface_does_not_exist,
        the_descriptor_is_no_dma_buf,
        a_refused_bind_leaves_no_reference,
    },
    streams::{
        a_peek_shows_the_same_bytes_again,
        what_was_received_outlives_the_binding,
        a_small_buffer_feeds_every_queue,
    },
];
