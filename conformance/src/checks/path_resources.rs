//! What receiving leaves behind.

use std::collections::BTreeSet;
use std::time::Duration;

use devmem_receive::nic::Nic;

use super::pin::{ONE_BUFFER, settled};
use super::receive::{NEEDS, ONE_MEBIBYTE};
use super::resources::{available, descriptors};
use crate::check::{Check, Group};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::need::Need;
use crate::path::Holder;
use crate::setup::{Setup, pin};
use crate::verdict::{Finding, Outcome, Stop};

/// How often is bound: each takes the NIC a restart of the queue.
const BINDS: usize = 50;

/// How many connections are received.
const CONNECTIONS: usize = 50;

/// What the machine's free memory may differ by without anybody having lost it, in bytes.
const NOISE: u64 = 64 << 20;

const LIMIT: Duration = Duration::from_secs(120);

pub(super) const CHECKS: &[Check] = &[
    Check {
        group: Group::Resources,
        name: "binds_leave_nothing",
        proves: "Fifty times binding and detaching leave no descriptor, page pool, binding or memory.",
        needs: &[Need::Nic, Need::Proc],
        after: &[ONE_BUFFER],
        limit: LIMIT,
        catches: &[Fault::LeakedDescriptor, Fault::LeaksBinding],
        run: binds_leave_nothing,
    },
    Check {
        group: Group::Resources,
        name: "connections_leave_nothing",
        proves: "Fifty connections leave no descriptor, and no page of the buffer away from the NIC.",
        needs: NEEDS,
        after: &[ONE_MEBIBYTE],
        limit: LIMIT,
        catches: &[Fault::KeepsConnection, Fault::DropsBytes],
        run: connections_leave_nothing,
    },
];

/// What the kernel and this process have of bound memory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Use {
    descriptors: usize,
    bound_queues: usize,
    /// The kernel's numbers of page pools in bound memory.
    page_pools: BTreeSet<u32>,
}

impl Use {
    fn now(nic: &Nic) -> Result<Self, Stop> {
        let asked = |error: devmem_receive::netlink::Error| error.during("ask what is bound").on(nic);
        let queues = nic.netdev().queues(nic.ifindex()).map_err(asked)?;
        let pools = match nic.netdev().page_pools() {
            Ok(pools) => pools,
            // A kernel that does not tell.
            Err(error) if error.errno() == Some(nix::errno::Errno::EOPNOTSUPP) => Vec::new(),
            Err(error) => return Err(asked(error).into()),
        };
        Ok(Self {
            descriptors: descriptors()?,
            bound_queues: queues.iter().filter(|queue| Holder::of_queue(queue).is_some()).count(),
            page_pools: pools
                .iter()
                .filter(|pool| Holder::of_pool(pool).is_some())
                .map(|pool| pool.id)
                .collect(),
        })
    }

    /// A page pool that was there may go meanwhile: that of a process that has ended.
    fn is_as(&self, before: &Self) -> bool {
        (self.descriptors, self.bound_queues) == (before.descriptors, before.bound_queues)
            && self.page_pools.is_subset(&before.page_pools)
    }
}

/// Stops unless what is in use comes to be what it was before, soon.
fn is_as_before(nic: &Nic, before: &Use) -> Result<(), Stop> {
    let mut now = before.clone();
    let settled = settled(
        || {
            now = Use::now(nic)?;
            Ok(now.is_as(before))
        },
        "",
    );
    settled.map_err(|_| Stop::fail(format!("in use before: {before:?}, and afterwards: {now:?}")))
}

fn binds_leave_nothing(context: &Context<'_>) -> Outcome {
    let Setup { mapping, pin: first, nic, buffer, .. } = Setup::new(context)?;
    drop((mapping, first));
    let before = Use::now(nic.nic())?;
    let free = available()?;
    for _ in 0..BINDS {
        drop(pin(context, &nic, nic.queues(), &*buffer)?);
    }
    is_as_before(nic.nic(), &before)?;
    let lost = free.saturating_sub(available()?);
    ensure!(lost < NOISE, "{lost} bytes of system memory are gone");
    nic.restore()?;
    Ok(Finding::Pass)
}

fn connections_leave_nothing(context: &Context<'_>) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    setup.transfer(context, &mut session, 4096)?;
    let before = Use::now(setup.nic.nic())?;
    for _ in 0..CONNECTIONS {
        setup.transfer(context, &mut session, 64 << 10)?;
    }
    is_as_before(setup.nic.nic(), &before)?;
    let told = setup.pin.into_attachment().detach(Duration::from_secs(5))?;
    ensure!(told, "the kernel still holds the buffer when all connections are closed");
    Ok(Finding::Pass)
}
