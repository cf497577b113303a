//! What a script is told while its thread does it.

use std::io::{Error, ErrorKind, Result};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// What a script is told while its thread does it.
#[derive(Debug, Default)]
pub(super) struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many barriers it may pass yet.
    passes: usize,
    is_aborted: bool,
    /// There while it is connected.
    connection: Weak<TcpStream>,
}

impl Control {
    /// Lets the script pass one barrier, now or when it gets there.
    pub(super) fn proceed(&self) {
        self.state().passes += 1;
        self.changed.notify_all();
    }

    /// Ends the script, wherever it is.
    pub(super) fn abort(&self) {
        let mut state = self.state();
        state.is_aborted = true;
        if let Some(connection) = state.connection.upgrade() {
            // One that is closed already needs no more.
            let _ = connection.shutdown(Shutdown::Both);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// An error once the script was aborted.
    pub(super) fn check(&self) -> Result<()> {
        if self.state().is_aborted { Err(aborted()) } else { Ok(()) }
    }

    /// The script is connected; aborting it closes that from now on.
    pub(super) fn connected(&self, connection: &Arc<TcpStream>) -> Result<()> {
        let mut state = self.state();
        if state.is_aborted {
            return Err(aborted());
        }
        state.connection = Arc::downgrade(connection);
        Ok(())
    }

    /// Waits for as long.
    pub(super) fn pause(&self, duration: Duration) -> Result<()> {
        self.wait(duration, |_| false).map(drop)
    }

    /// Waits until the script may pass a barrier, for `limit` at most.
    pub(super) fn wait_at_barrier(&self, limit: Duration) -> Result<()> {
        let mut state = self.wait(limit, |state| state.passes > 0)?;
        state.passes = state
            .passes
            .checked_sub(1)
            .ok_or_else(|| Error::new(ErrorKind::TimedOut, "nobody said to go on"))?;
        Ok(())
    }

    /// Waits until something holds or the time is over.
    fn wait(&self, limit: Duration, holds: impl Fn(&State) -> bool) -> Result<MutexGuard<'_, State>> {
        let goes_on = |state: &mut State| !state.is_aborted && !holds(state);
        let waited = self.changed.wait_timeout_while(self.state(), limit, goes_on);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.is_aborted { Err(aborted()) } else { Ok(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn aborted() -> Error {
    Error::new(ErrorKind::Interrupted, "the script was aborted")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::scope;

    #[test]
    fn a_barrier_is_passed_once_for_each_time_it_is_said() {
        let control = Control::default();
        control.proceed();
        control.wait_at_barrier(Duration::ZERO).unwrap();
        let error = control.wait_at_barrier(Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn aborting_ends_every_wait() {
        let control = Control::default();
        scope(|scope| {
            let waits = [
                scope.spawn(|| control.pause(Duration::from_secs(600))),
                scope.spawn(|| control.wait_at_barrier(Duration::from_secs(600))),
            ];
            control.abort();
            for wait in waits {
                assert_eq!(wait.join().unwrap().unwrap_err().kind(), ErrorKind::Interrupted);
            }
        });
        assert!(control.check().is_err());
    }
}
