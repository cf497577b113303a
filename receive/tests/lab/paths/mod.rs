//! What holds for every receive path: the same tests for each.

mod buffers;
mod streams;

use devmem_receive::path::{Binding, Path, Queues};

use crate::harness::{Failure, Test};
use crate::machine::prepare;
use crate::setup::Setup;

const MEBIBYTE: u64 = 1 << 20;

/// A buffer that is bound to one queue.
fn setup(path: Path, buffer_bytes: u64) -> Result<Setup<Binding>, Failure> {
    let nic = prepare(1)?;
    let queues = Queues::on(path, &nic);
    Setup::of(nic, queues, buffer_bytes)
}

/// Tests by modules, each once for every path.
macro_rules! by_every_path {
    ($($module:ident :: { $($test:ident),+ $(,)? }),+ $(,)?) => {
        &[$($(
            (
                concat!(module_path!(), "::devmem_tcp::", stringify!($module), "::", stringify!($test)),
                || $module::$test(Path::DevmemTcp),
            ),
            (
                concat!(module_path!(), "::zcrx::", stringify!($module), "::", stringify!($test)),
                || $module::$test(Path::Zcrx),
            ),
        )+)+]
    };
}

pub(crate) const TESTS: &[Test] = by_every_path![
    streams::{
        every_byte_in_order_in_any_batch,
        a_fragment_that_is_held_is_not_overwritten,
        a_fragment_released_twice_is_told,
        another_connections_fragment_is_not_released,
        what_came_by_another_queue_is_refused,
        fragments_stay_within_a_page,
        the_link_may_go_down_and_up,
    },
    buffers::{
        an_exhausted_buffer_recovers_when_fragments_come_back,
        a_closed_connection_gives_its_fragments_back,
        unbinding_is_complete_once_nothing_is_held,
    },
];

pub(crate) use buffers::starved;
