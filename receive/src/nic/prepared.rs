//! A NIC that is prepared, and how it gets there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use devmem_provider::{Error, ErrorKind, Result};

use super::adjustment::{self, Adjustment};
use super::apply::apply;
use super::device::Nic;
use super::journal::{Files, Journal};
use super::lock::Lock;
use super::plan::Plan;
use super::report::Report;
use super::snapshot::Snapshot;
use super::steering;
use super::transaction::Transaction;
use super::{restore, state_directory};
use crate::netdev::{self, QueueKind};
use crate::zcrx;

/// The changes to one NIC; `None` once they are undone.
type Shared = Arc<Mutex<Option<Transaction>>>;

/// How long the end by a signal may take once the changes are undone.
const END_BY_SIGNAL: Duration = Duration::from_secs(5);

/// Every prepared NIC of this process, for the end by a signal.
static LIVE: Mutex<Live> = Mutex::new(Live { transactions: Vec::new(), ending: false });

struct Live {
    transactions: Vec<Weak<Mutex<Option<Transaction>>>>,
    /// A signal ends the process: nothing may be prepared any more.
    ending: bool,
}

/// A NIC that is prepared to receive into device memory.
///
/// Dropping it restores the NIC, as [`restore`](Self::restore) does, but cannot report. Memory bindings of
/// this NIC that the process still has are released by either.
///
/// In a child made by `fork` it is inert: the NIC stays its parent's.
#[derive(Debug)]
pub struct Prepared {
    nic: Nic,
    queues: Vec<u32>,
    before: Snapshot,
    recovered: Option<Report>,
    transaction: Shared,
    owner: u32,
}

impl Prepared {
    /// The NIC.
    #[must_use]
    pub fn nic(&self) -> &Nic {
        &self.nic
    }

    /// The receive queues to bind, in ascending order.
    #[must_use]
    pub fn queues(&self) -> &[u32] {
        &self.queues
    }

    /// The settings before.
    #[must_use]
    pub fn before(&self) -> &Snapshot {
        &self.before
    }

    /// What was undone first because an earlier process had left the NIC changed.
    #[must_use]
    pub fn recovered(&self) -> Option<&Report> {
        self.recovered.as_ref()
    }

    /// Makes a change beyond the plan. It is undone with the others, in reverse, also after a kill.
    ///
    /// # Errors
    /// - [`Unsupported`](ErrorKind::Unsupported): the driver accepts a feature and does not change it;
    /// - [`WrongState`](ErrorKind::WrongState): the NIC was restored already, because a signal ends this process,
    ///   or it belongs to the process that made this one by `fork`;
    /// - otherwise the kernel's refusal, with its words.
    ///
    /// What was changed before stays.
    pub fn adjust(&self, adjustment: Adjustment) -> Result<()> {
        if self.owner != std::process::id() {
            return Err(Error::new(ErrorKind::WrongState, "adjust the NIC")
                .on(&self.nic)
                .because("another process prepared it, of which this one is a fork"));
        }
        if let Some(transaction) = lock(&self.transaction).as_mut() {
            return adjustment::adjust(&self.nic, transaction, adjustment);
        }
        Err(being_ended())
    }

    /// Undoes every change, in reverse, and compares the settings with those before.
    ///
    /// # Errors
    /// A change could not be undone: the others are all the same, and the journal is kept, so that
    /// [`restore`](super::restore()) can try again.
    pub fn restore(mut self) -> Result<Report> {
        self.undo()?.into_result()
    }

    fn undo(&mut self) -> Result<Report> {
        if self.owner != std::process::id() {
            return Ok(Report::new(self.nic.identity().clone()));
        }
        match lock(&self.transaction).take() {
            Some(mut transaction) => transaction.undo(),
            // It was undone before, or a signal came first.
            None => {
                await_end_by_signal();
                Ok(Report::new(self.nic.identity().clone()))
            }
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // What cannot be undone stays in the journal; there is nobody to tell.
        let _ = self.undo();
    }
}

/// Undoes the changes to every NIC that this process prepared, wherever the [`Prepared`] is, and lets it
/// prepare and bind no more.
pub(super) fn restore_all_of_this_process() {
    netdev::refuse_bindings();
    zcrx::refuse_queues();
    let transactions = {
        let mut live = lock(&LIVE);
        live.ending = true;
        std::mem::take(&mut live.transactions)
    };
    for shared in transactions.iter().filter_map(Weak::upgrade) {
        if let Some(mut transaction) = lock(&shared).take() {
            // What cannot be undone stays in the journal.
            let _ = transaction.undo();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A transaction that panicked midway has its journal, and undoing it is right at any point.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn prepare(nic: &Nic, plan: &Plan) -> Result<Prepared> {
    let folder = state_directory::open()?;
    let files = Files::of(&folder, nic.identity().namespace_inode, nic.ifindex());
    let mut held = Lock::take(&files.lock, nic.name())?;
    let mut recovered = None;
    if let Some(journal) = Journal::read(&files.journal)? {
        let (report, lock) = restore::recover(nic, files.clone(), held, journal)?;
        held = lock;
        recovered = Some(report.into_result()?);
    }
    check_state(nic)?;
    let before = nic.snapshot()?;
    let chosen = steering::choose(&plan.queues, &before, &occupied(nic)?).map_err(|error| error.on(nic))?;
    let queues = chosen.queues.clone();
    let transaction = Transaction::new(nic, files, held, before.clone(), queues.clone())?;
    let mut prepared = Prepared {
        nic: nic.clone(),
        queues,
        before,
        recovered,
        transaction: Arc::new(Mutex::new(Some(transaction))),
        owner: std::process::id(),
    };
    register(&prepared.transaction)?;
    let applied = match lock(&prepared.transaction).as_mut() {
        Some(transaction) => apply(nic, transaction, plan, chosen),
        None => Err(being_ended()),
    };
    match applied {
        Ok(()) => Ok(prepared),
        Err(error) => match prepared.undo().and_then(Report::into_result) {
            Ok(_) => Err(error),
            Err(undoing) => Err(error.with_source(undoing)),
        },
    }
}

fn register(shared: &Shared) -> Result<()> {
    let mut live = lock(&LIVE);
    if live.ending {
        drop(live);
        return Err(being_ended());
    }
    live.transactions.retain(|transaction| transaction.strong_count() > 0);
    live.transactions.push(Arc::downgrade(shared));
    Ok(())
}

/// If a signal is ending this process, lets it: the changes are undone, and whatever the caller would do now, such
/// as to exit with a code of its own, would hide by what the process ended. Should the signal fail to end it, the
/// caller goes on.
fn await_end_by_signal() {
    if lock(&LIVE).ending {
        std::thread::sleep(END_BY_SIGNAL);
    }
}

fn being_ended() -> Error {
    await_end_by_signal();
    Error::new(ErrorKind::WrongState, "prepare a NIC").because("a signal is ending this process")
}

/// What would make every binding fail.
fn check_state(nic: &Nic) -> Result<()> {
    let link = nic.link()?;
    let wrong = || Error::new(ErrorKind::WrongState, "prepare the NIC").on(nic);
    if !link.up {
        return Err(wrong().because("the interface is down").remedy("set it up (`ip link set ... up`)"));
    }
    if link.xdp_attached {
        return Err(wrong()
            .because("an XDP program is attached, and the kernel allows no memory provider beside it")
            .remedy("detach it (`ip link set ... xdp off`)"));
    }
    Ok(())
}

/// Who has which receive queue.
fn occupied(nic: &Nic) -> Result<BTreeMap<u32, String>> {
    let queues = nic.netdev().queues(nic.ifindex());
    let queues = queues.map_err(|error| error.during("list the queues").on(nic))?;
    let receive = queues.into_iter().filter(|queue| queue.kind == QueueKind::Receive);
    Ok(receive.filter_map(|queue| Some((queue.id, queue.occupied_by()?))).collect())
}
