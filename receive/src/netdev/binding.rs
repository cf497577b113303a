//! The binding of a DMA-buf to receive queues.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nix::errno::Errno;

use super::uapi;
use crate::netlink::{AttributeIter, Error, Generic, Malformed, Result};

/// Receive queues of a NIC bound to a DMA-buf: payload that arrives on them goes into that memory.
///
/// The kernel ties a binding to the socket that asked for it, so each has a socket of its own. Dropping it
/// unbinds: the queues are restarted with ordinary memory before the drop returns. The DMA-buf itself stays
/// mapped until its last received fragment is given back.
///
/// A child made by `fork` shares the socket, and keeps the binding alive until it ends or calls `exec`.
#[derive(Debug)]
pub struct Binding {
    socket: Arc<Socket>,
    ifindex: u32,
    id: u32,
    queues: Vec<u32>,
}

/// The socket that holds a binding; `None` once [`release_all_bindings`] took it.
#[derive(Debug)]
struct Socket {
    ifindex: u32,
    namespace: Option<u64>,
    family: Mutex<Option<Generic>>,
}

/// Every binding of this process, so that they can be released before the NIC's settings are restored while
/// their owners still stand on the stacks of other threads.
static LIVE: Mutex<Live> = Mutex::new(Live { sockets: Vec::new(), closed: false });

#[derive(Debug)]
struct Live {
    sockets: Vec<Weak<Socket>>,
    /// No binding is made any more.
    closed: bool,
}

impl Binding {
    /// Binds receive queues to a DMA-buf (`bind-rx`), all or none.
    ///
    /// # Errors
    /// What the kernel refused, with its own words; net/core/netdev-genl.c, net/core/devmem.c and
    /// net/core/netdev_rx_queue.c hold the checks.
    pub fn new(ifindex: u32, queues: &[u32], dmabuf: BorrowedFd<'_>) -> Result<Self> {
        let family = Generic::open(uapi::FAMILY)?;
        let descriptor = dmabuf.as_raw_fd().cast_unsigned();
        // The socket is registered before the queues are bound, so that a binding is never overlooked.
        let namespace = family.namespace_cookie();
        let socket = Arc::new(Socket { ifindex, namespace, family: Mutex::new(Some(family)) });
        let guard = lock(&socket.family);
        register(&socket)?;
        let request = uapi::bind_rx(ifindex, queues, descriptor);
        let family = guard.as_ref().ok_or(Malformed("a binding that was released before it was made"))?;
        let reply = family.request_one(uapi::BIND_RX, &request, &uapi::DMABUF_NAMES)?;
        let id = decode_id(&reply)?;
        drop(guard);
        Ok(Self { socket, ifindex, id, queues: queues.to_vec() })
    }

    /// The kernel's number for this binding, which every received fragment carries. Never 0.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The interface whose queues are bound.
    #[must_use]
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// The bound queues.
    #[must_use]
    pub fn queues(&self) -> &[u32] {
        &self.queues
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        // Closing the socket is the only way to unbind.
        drop(lock(&self.socket.family).take());
        lock(&LIVE)
            .sockets
            .retain(|socket| socket.strong_count() > 0 && !std::ptr::eq(socket.as_ptr(), &*self.socket));
    }
}

/// Unbinds every queue of an interface that this process bound, wherever its [`Binding`] is.
///
/// `namespace` is the cookie of the interface's network namespace, as interface numbers are unique only
/// within one. The [`Binding`] values stay valid but bind nothing any more. Returns how many were released.
pub fn release_all_bindings(ifindex: u32, namespace: Option<u64>) -> usize {
    let live: Vec<_> = lock(&LIVE).sockets.iter().filter_map(Weak::upgrade).collect();
    let same = |socket: &&Arc<Socket>| socket.ifindex == ifindex && socket.namespace == namespace;
    live.iter().filter(same).filter(|socket| lock(&socket.family).take().is_some()).count()
}

/// Lets this process bind no queue from now on: a signal is ending it, and what is bound after the others were
/// released would keep the NIC's settings from being restored.
pub(crate) fn refuse_bindings() {
    lock(&LIVE).closed = true;
}

fn register(socket: &Arc<Socket>) -> Result<()> {
    let mut live = lock(&LIVE);
    if live.closed {
        return Err(Error::System {
            operation: "bind queues while a signal ends this process",
            errno: Errno::ECANCELED,
        });
    }
    live.sockets.retain(|socket| socket.strong_count() > 0);
    live.sockets.push(Arc::downgrade(socket));
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Both lists stay valid whatever a panicking holder did: each step is one push or take.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn decode_id(reply: &[u8]) -> Result<u32, Malformed> {
    for attribute in AttributeIter::new(reply) {
        let attribute = attribute?;
        if attribute.kind() == uapi::dmabuf::ID {
            return attribute.u32();
        }
    }
    Err(Malformed("a binding without its number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::fd::AsFd;

    #[test]
    fn loopback_refuses_a_binding_and_leaves_nothing_behind() {
        let file = tempfile::tempfile().unwrap();
        let lo = crate::netlink::Route::open().unwrap().link_by_name("lo").unwrap();
        let error = Binding::new(lo.ifindex, &[0], file.as_fd()).unwrap_err();
        assert!([Some(Errno::EOPNOTSUPP), Some(Errno::EPERM)].contains(&error.errno()), "{error}");
        assert_eq!(release_all_bindings(lo.ifindex, None), 0);
    }

    proptest! {
        #[test]
        fn any_reply_ends_without_panic(reply: Vec<u8>) {
            let _ = decode_id(&reply);
        }
    }
}
