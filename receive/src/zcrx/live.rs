//! Every queue that this process has registered, so that they can be closed before a NIC's settings are restored
//! while their owners still stand on the stacks of other threads.

use std::sync::{Arc, Mutex, Weak};

use devmem_provider::{Error, ErrorKind, Result};

use super::queue::InterfaceQueue;
use super::slot::lock;

static LIVE: Mutex<Live> = Mutex::new(Live { queues: Vec::new(), closed: false });

struct Live {
    queues: Vec<Weak<InterfaceQueue>>,
    /// No queue is registered any more.
    closed: bool,
}

/// Remembers a queue.
pub(super) fn register(queue: &Arc<InterfaceQueue>) -> Result<()> {
    let mut live = lock(&LIVE);
    if live.closed {
        return Err(Error::new(ErrorKind::WrongState, "register a queue with io_uring")
            .because("a signal ends this process"));
    }
    live.queues.retain(|queue| queue.strong_count() > 0);
    live.queues.push(Arc::downgrade(queue));
    Ok(())
}

/// Closes every queue of an interface that this process registered, and waits until they are free.
///
/// `namespace` is the cookie of the interface's network namespace, as interface numbers are unique only within
/// one.
pub(crate) fn release_all_queues(ifindex: u32, namespace: Option<u64>) {
    let queues: Vec<_> = lock(&LIVE).queues.iter().filter_map(Weak::upgrade).collect();
    for queue in queues {
        if queue.nic.ifindex() == ifindex && queue.nic.identity().namespace_cookie == namespace {
            // If it does not become free, the kernel's refusal of the next change will say so.
            queue.close();
        }
    }
}

/// Lets this process register no queue from now on: a signal is ending it.
pub(crate) fn refuse_queues() {
    lock(&LIVE).closed = true;
}
