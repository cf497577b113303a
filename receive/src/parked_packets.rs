//! Packets that the kernel has done with, and has not freed yet.
//!
//! A packet that is received on another CPU than its interrupt came to goes onto a list of that CPU, which frees it when
//! it handles its next packets (`skb_attempt_defer_free()` and `skb_defer_free_flush()` in the kernel's
//! net/core). On a machine without traffic that may be never: and a packet that is not freed holds the buffer it lies in.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// After how long of waiting the CPUs are asked to free their packets, and how often again.
const INTERVAL: Duration = Duration::from_millis(200);

/// When the CPUs are next asked to free their packets, for whoever waits until the kernel lets go of a buffer.
#[derive(Debug)]
pub(crate) struct ParkedPackets {
    due: Instant,
}

impl ParkedPackets {
    /// Waiting begins now: mostly nothing is parked, and nothing need be done.
    pub(crate) fn new() -> Self {
        Self { due: Instant::now() + INTERVAL }
    }

    /// Has them freed if it is time. To be called again and again while the buffer is held.
    pub(crate) fn free_if_due(&mut self) {
        if Instant::now() >= self.due {
            free();
            self.due += INTERVAL;
        }
    }
}

/// Has every CPU that this thread may run on free what it has parked, by one packet over the loopback interface on each.
///
/// CPUs that cannot be had are left out, and a loopback interface that is down leaves all as it is: nothing is
/// promised, and nothing can be done about it.
fn free() {
    let this = Pid::from_raw(0);
    let work = move || -> nix::Result<()> {
        let allowed = sched_getaffinity(this)?;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| {
            let to = socket.local_addr()?;
            Ok((socket, to))
        });
        let Ok((socket, to)) = socket else { return Ok(()) };
        for cpu in (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)) {
            let mut one = CpuSet::new();
            one.set(cpu)?;
            if sched_setaffinity(this, &one).is_ok() {
                // A packet that is lost is one that does nothing.
                let _ = socket.send_to(&[0], to);
            }
        }
        Ok(())
    };
    // A thread of its own: the affinity is the thread's.
    let thread = std::thread::Builder::new().name("free-packets".to_owned()).spawn(work);
    if let Ok(thread) = thread {
        let _ = thread.join();
    }
}
