//! The scripts of a session, each done by a thread of its own.

use std::collections::BTreeMap;
use std::io::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::control::Control;
use super::script::{Script, Told};
use super::steps::perform;

/// No more scripts are done at the same time in a session, and by all of them together.
const SCRIPTS: usize = 64;
const SCRIPTS_OF_ALL: usize = 256;

/// The longest that is waited for a script at once, so that others are not kept waiting.
const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// How a wait for a script came out.
#[derive(Debug)]
pub(super) enum Waited {
    Ended(Told),
    NotYet,
    /// Its thread is gone and has told nothing.
    Died,
}

/// How many scripts are being done, in all sessions of this process.
static DONE_NOW: AtomicUsize = AtomicUsize::new(0);

/// One of them, until it is dropped.
#[derive(Debug)]
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let add = |count| (count < SCRIPTS_OF_ALL).then_some(count + 1);
        DONE_NOW.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add).ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        DONE_NOW.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A script that is being done.
#[derive(Debug)]
struct Work {
    control: Arc<Control>,
    ended: Receiver<Told>,
    thread: JoinHandle<()>,
}

/// The scripts of a session. Dropping it ends them.
#[derive(Debug, Default)]
pub(super) struct Scripts {
    works: BTreeMap<u32, Work>,
    /// Those that were aborted, until their threads have ended.
    aborted: Vec<Work>,
    /// How many there were.
    pub(super) started: u64,
    /// What those that have told their end have sent, in bytes.
    pub(super) written: u64,
}

impl Scripts {
    /// Starts a script, which is `number` from now on.
    pub(super) fn start(&mut self, number: u32, script: Script) -> Result<()> {
        if self.works.len() >= SCRIPTS {
            return Err(Error::other(format!("{SCRIPTS} scripts are being done already")));
        }
        if self.works.contains_key(&number) {
            return Err(Error::other(format!("there is a script {number} already")));
        }
        if let Some(excess) = script.excess() {
            return Err(Error::other(excess));
        }
        let place = Place::take().ok_or_else(|| {
            Error::other(format!("{SCRIPTS_OF_ALL} scripts are being done in all sessions"))
        })?;
        let control = Arc::new(Control::default());
        let (end, ended) = channel();
        let of_thread = Arc::clone(&control);
        let thread = std::thread::Builder::new().name("script".to_owned()).spawn(move || {
            let told = perform(&script, &of_thread);
            drop(place);
            // Nobody listens to a script that was aborted.
            let _ = end.send(told);
        })?;
        self.started += 1;
        self.works.insert(number, Work { control, ended, thread });
        Ok(())
    }

    /// Lets a script go on behind a barrier. One that has ended waits at none.
    pub(super) fn proceed(&self, number: u32) -> Result<()> {
        self.find(number)?.control.proceed();
        Ok(())
    }

    /// Waits for the end of a script, for `limit` at most and never for long.
    pub(super) fn wait(&mut self, number: u32, limit: Duration) -> Result<Waited> {
        match self.find(number)?.ended.recv_timeout(limit.min(LONGEST_WAIT)) {
            Err(RecvTimeoutError::Timeout) => Ok(Waited::NotYet),
            Ok(told) => {
                self.works.remove(&number);
                self.written += told.written;
                Ok(Waited::Ended(told))
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.works.remove(&number);
                Ok(Waited::Died)
            }
        }
    }

    /// Ends a script, wherever it is. One that has ended needs no more.
    pub(super) fn abort(&mut self, number: u32) {
        if let Some(work) = self.works.remove(&number) {
            work.control.abort();
            self.aborted.push(work);
        }
        let (ended, aborted) =
            std::mem::take(&mut self.aborted).into_iter().partition(|work| work.thread.is_finished());
        self.aborted = aborted;
        self.join(ended);
    }

    /// Ends all scripts, and waits for that.
    pub(super) fn end(&mut self) {
        self.works.values().for_each(|work| work.control.abort());
        let mut works = std::mem::take(&mut self.aborted);
        works.extend(std::mem::take(&mut self.works).into_values());
        self.join(works);
    }

    fn join(&mut self, works: Vec<Work>) {
        for work in works {
            if let Ok(told) = work.ended.recv() {
                self.written += told.written;
            }
            // One that has panicked has ended as well.
            let _ = work.thread.join();
        }
    }

    fn find(&self, number: u32) -> Result<&Work> {
        self.works.get(&number).ok_or_else(|| Error::other(format!("there is no script {number}")))
    }
}

impl Drop for Scripts {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::script::Step;
    use std::net::TcpListener;
    use std::time::Instant;

    fn script(to: &TcpListener, steps: Vec<Step>) -> Script {
        let to = to.local_addr().unwrap();
        Script { to, from_port: None, no_delay: false, maximum_segment: None, steps }
    }

    /// Waits as a runner does: again and again.
    fn ended(scripts: &mut Scripts, number: u32) -> Waited {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match scripts.wait(number, Duration::from_secs(1)).unwrap() {
                Waited::NotYet if Instant::now() < deadline => {}
                waited => return waited,
            }
        }
    }

    #[test]
    fn a_script_is_done_and_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut scripts = Scripts::default();
        let steps = vec![Step::Write { bytes: 3000, chunk: 7 }, Step::Barrier, Step::FinishWriting];
        scripts.start(3, script(&listener, steps)).unwrap();
        let (mut connection, _) = listener.accept().unwrap();
        assert!(matches!(scripts.wait(3, Duration::ZERO).unwrap(), Waited::NotYet));
        scripts.proceed(3).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut connection, &mut bytes).unwrap();
        let mut expected = vec![0; 3000];
        crate::peer::fill(0, &mut expected);
        assert_eq!(bytes, expected);
        assert!(
            matches!(ended(&mut scripts, 3), Waited::Ended(told) if told.written == 3000 && told.failure.is_none())
        );
        assert!(scripts.wait(3, Duration::ZERO).is_err());
    }

    #[test]
    fn waiting_for_a_script_is_short() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut scripts = Scripts::default();
        scripts.start(0, script(&listener, vec![Step::Barrier])).unwrap();
        let started = Instant::now();
        assert!(matches!(scripts.wait(0, Duration::from_secs(600)).unwrap(), Waited::NotYet));
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_thread_that_dies_is_no_late_script() {
        let (end, ended_receiver) = channel::<Told>();
        let mut scripts = Scripts::default();
        let thread = std::thread::spawn(move || drop(end));
        scripts.works.insert(0, Work { control: Arc::default(), ended: ended_receiver, thread });
        assert!(matches!(ended(&mut scripts, 0), Waited::Died));
    }

    #[test]
    fn there_are_only_so_many_and_each_has_its_number() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut scripts = Scripts::default();
        scripts.start(0, script(&listener, vec![Step::Barrier])).unwrap();
        assert!(scripts.start(0, script(&listener, vec![Step::Barrier])).is_err());
        for number in 1..SCRIPTS as u32 {
            scripts.start(number, script(&listener, vec![Step::Barrier])).unwrap();
        }
        let error = scripts.start(1000, script(&listener, Vec::new())).unwrap_err();
        assert!(error.to_string().contains("64 scripts"), "{error}");
        scripts.abort(5);
        scripts.start(1000, script(&listener, Vec::new())).unwrap();
        scripts.start(1001, script(&listener, vec![Step::Barrier; 5000])).unwrap_err();
    }

    #[test]
    fn what_an_aborted_script_has_sent_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut scripts = Scripts::default();
        scripts
            .start(0, script(&listener, vec![Step::Write { bytes: 500, chunk: 500 }, Step::Barrier]))
            .unwrap();
        std::io::Read::read_exact(&mut listener.accept().unwrap().0, &mut [0; 500]).unwrap();
        scripts.abort(0);
        scripts.end();
        assert_eq!((scripts.written, scripts.started), (500, 1));
    }
}
