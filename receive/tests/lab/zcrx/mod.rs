//! io_uring zero-copy receive: registering queues, and receiving with rings.

mod setup;
mod streams;

use crate::harness::{Test, tests};

pub(crate) const TESTS: &[Test] = tests![
    streams::{
        every_byte_in_order_in_any_batch,
    },
];
