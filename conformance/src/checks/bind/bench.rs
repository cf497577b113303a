//! A NIC that is set up for binding, and what the kernel tells of its queues.

use devmem_provider::{DmaBuf, ErrorKind, Request, Result};
use devmem_receive::netdev::{PagePool, Queue, QueueKind};
use devmem_receive::nic::{Nic, Plan, Prepared, Queues};
use nix::errno::Errno;

use crate::context::Context;
use crate::path::{Attached, Holder, ReceivePath};
use crate::setup::BUFFER_BYTES;
use crate::verdict::Stop;

/// A NIC with queues to bind, which nothing is sent to.
#[derive(Debug)]
pub(super) struct Bench<'run> {
    context: &'run Context<'run>,
    path: &'run dyn ReceivePath,
    pub(super) nic: Prepared,
    pub(super) dma_buf: DmaBuf,
}

/// What the kernel tells of the memory of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    /// Who has it.
    pub(super) holder: Option<Holder>,
    /// The numbers of the page pools that give the holder's memory: new ones if a queue was restarted.
    pub(super) pools: Vec<u32>,
}

impl<'run> Bench<'run> {
    /// As many queues and a buffer for them.
    pub(super) fn new(context: &'run Context<'run>, queues: u32) -> std::result::Result<Self, Stop> {
        Self::planned(context, &Plan::without_flow(Queues::count(queues)).buffer_bytes(BUFFER_BYTES))
    }

    pub(super) fn planned(context: &'run Context<'run>, plan: &Plan) -> std::result::Result<Self, Stop> {
        let path = context.path()?;
        let dma_buf = buffer(context)?;
        let nic = context.nic()?.open()?.prepare(plan).map_err(|error| match error.kind() {
            ErrorKind::Unsupported | ErrorKind::InvalidInput => Stop::skip(&error),
            _ => error.into(),
        })?;
        Ok(Self { context, path, nic, dma_buf })
    }

    /// The queues that were set up: as many as were asked for.
    pub(super) fn queues(&self) -> &[u32] {
        self.nic.queues()
    }

    /// Another buffer of the same size.
    pub(super) fn another(&self) -> Result<DmaBuf> {
        buffer(self.context)
    }

    /// Binds queues by the path under test.
    pub(super) fn attach(&self, queues: &[u32]) -> Result<Box<dyn Attached>> {
        self.attach_to(queues, &self.dma_buf)
    }

    pub(super) fn attach_to(&self, queues: &[u32], dma_buf: &DmaBuf) -> Result<Box<dyn Attached>> {
        self.path.attach(self.nic.nic(), queues, dma_buf)
    }

    /// Who has a queue, as the kernel tells it.
    pub(super) fn holder(&self, queue: u32) -> Result<Option<Holder>> {
        Ok(Holder::of_queue(&state_of(self.nic.nic(), queue)?))
    }

    /// All that the kernel tells of a queue's memory.
    pub(super) fn state(&self, queue: u32) -> Result<State> {
        state(self.nic.nic(), queue)
    }
}

/// A buffer that feeds the receive rings of a queue.
fn buffer(context: &Context<'_>) -> Result<DmaBuf> {
    let bytes = BUFFER_BYTES.next_multiple_of(context.granularity()?.max(1));
    context.provider().allocate(&Request::bytes(bytes))?.export()
}

fn state_of(nic: &Nic, queue: u32) -> Result<Queue> {
    let told = nic.netdev().queue(nic.ifindex(), QueueKind::Receive, queue);
    told.map_err(|error| error.during("ask for the state of a queue").on(nic))
}

fn state(nic: &Nic, queue: u32) -> Result<State> {
    let told = state_of(nic, queue)?;
    let holder = Holder::of_queue(&told);
    // A registration without a number is told from others by what polls its queue.
    let is_of_queue = |pool: &&PagePool| {
        holder.is_some()
            && Holder::of_pool(pool) == holder
            && (holder != Some(Holder::IoUring) || pool.napi_id == told.napi_id)
    };
    let mut pools: Vec<u32> = match nic.netdev().page_pools() {
        Ok(pools) => pools.iter().filter(is_of_queue).map(|pool| pool.id).collect(),
        // A kernel without page pool statistics.
        Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => Vec::new(),
        Err(error) => return Err(error.during("list the page pools").on(nic)),
    };
    pools.sort_unstable();
    Ok(State { holder, pools })
}
