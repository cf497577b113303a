//! What shall happen later: one thread that runs tasks at their time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::lock;

type Task = Box<dyn FnOnce() + Send>;

/// Runs tasks in the order of their times; tasks of one time in the order in which they came.
pub(crate) struct Clock {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    schedule: Mutex<Schedule>,
    changed: Condvar,
}

#[derive(Default)]
struct Schedule {
    entries: BinaryHeap<Entry>,
    count: u64,
    stopped: bool,
}

struct Entry {
    due: Instant,
    number: u64,
    task: Task,
}

impl Clock {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the system said when it refused a thread.
    pub(crate) fn start() -> std::io::Result<Arc<Clock>> {
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("clock".into()).spawn(move || for_thread.run())?;
        Ok(Arc::new(Clock { shared, thread: Mutex::new(Some(thread)) }))
    }

    /// Runs `task` at `due` or soon after it; never after [`Clock::stop`].
    pub(crate) fn at(&self, due: Instant, task: impl FnOnce() + Send + 'static) {
        let mut schedule = lock(&self.shared.schedule);
        if schedule.stopped {
            return;
        }
        schedule.count += 1;
        let number = schedule.count;
        schedule.entries.push(Entry { due, number, task: Box::new(task) });
        self.shared.changed.notify_one();
    }

    /// Ends the thread; tasks that are not due are dropped.
    pub(crate) fn stop(&self) {
        let mut schedule = lock(&self.shared.schedule);
        schedule.stopped = true;
        let dropped = std::mem::take(&mut schedule.entries);
        drop(schedule);
        drop(dropped);
        self.shared.changed.notify_one();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut schedule = lock(&self.schedule);
        while !schedule.stopped {
            let now = Instant::now();
            let wait = schedule.entries.peek().map(|entry| entry.due.saturating_duration_since(now));
            schedule = match wait {
                None => self.changed.wait(schedule).unwrap_or_else(|poisoned| poisoned.into_inner()),
                Some(wait) if !wait.is_zero() => {
                    let waited = self.changed.wait_timeout(schedule, wait);
                    waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0
                }
                Some(_) => {
                    let entry = schedule.entries.pop();
                    drop(schedule);
                    if let Some(entry) = entry {
                        (entry.task)();
                    }
                    lock(&self.schedule)
                }
            };
        }
    }
}

// The heap gives the greatest first: what is due earlier is greater.
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn tasks_run_in_the_order_of_their_times() {
        let clock = Clock::start().unwrap();
        let (sender, receiver) = mpsc::channel();
        let now = Instant::now();
        for (name, milliseconds) in [("c", 30), ("a", 10), ("b", 20), ("b2", 20)] {
            let sender = sender.clone();
            clock.at(now + Duration::from_millis(milliseconds), move || sender.send(name).unwrap());
        }
        let order: Vec<_> = (0..4).map(|_| receiver.recv().unwrap()).collect();
        assert_eq!(order, ["a", "b", "b2", "c"]);
        clock.stop();
        clock.at(Instant::now(), move || sender.send("late").unwrap());
        assert!(receiver.recv().is_err(), "a stopped clock drops tasks");
    }
}
