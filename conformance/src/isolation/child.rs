//! The side that checks.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{APART, ASSIGNMENT, COMPANION, Link, Message, Role};
use devmem_receive::nic;
use nix::sys::signal::{SigSet, Signal};

use crate::check::Check;
use crate::context::Context;
use crate::path::ReceivePath;
use crate::verdict::Stop;

/// What this process was started to check.
#[derive(Debug)]
pub(crate) struct Assignment {
    provider: String,
    path: String,
    check: String,
}

impl Assignment {
    /// The assignment of this process, if it has one.
    pub(crate) fn of_this_process() -> Option<Self> {
        let assignment = std::env::var(ASSIGNMENT).ok()?;
        let mut lines = assignment.split('\n').map(str::to_owned);
        Some(Self { provider: lines.next()?, path: lines.next()?, check: lines.next()? })
    }

    /// The receive path that it is about.
    pub(crate) fn path<'paths>(
        &self,
        paths: &'paths [Arc<dyn ReceivePath>],
    ) -> Option<&'paths dyn ReceivePath> {
        paths.iter().find(|path| path.name() == self.path).map(AsRef::as_ref)
    }

    /// Whether it is about this provider: a program may check several, one after the other.
    pub(crate) fn is_about(&self, provider: &str) -> bool {
        self.provider == provider
    }

    /// If it is the role of this name, plays it, which needs no provider, and ends the process.
    pub(crate) fn play_alone(&self, role: &str, playing: fn(&Link) -> std::io::Result<()>) {
        if self.role() == Some(role) {
            self.end_in_time();
            let played = own_link().and_then(|link| playing(&link));
            if let Err(error) = &played {
                eprintln!("{role}: {error}");
            }
            std::process::exit(if played.is_ok() { 0 } else { 1 });
        }
    }

    /// Does what it says, and ends the process.
    pub(crate) fn perform(self, checks: &[Check], roles: &[(&str, Role)], context: &Context<'_>) -> ! {
        self.end_in_time();
        if let Some(name) = self.role() {
            let played = play(name, roles, context);
            if let Err(stop) = &played {
                eprintln!("{name}: {stop}");
            }
            std::process::exit(if played.is_ok() { 0 } else { 1 });
        }
        let outcome = match checks.iter().find(|check| check.full_name() == self.check) {
            None => Err(Stop::fail(format!("this program has no check {}", self.check))),
            Some(check) => attempt(check, context),
        };
        let told = tell(&Message::from(outcome));
        // Nothing that a check left running may hold the process up, and nothing of it is wanted any more.
        std::process::exit(if told.is_ok() { 0 } else { 1 })
    }

    /// The name of the role, if it is that of a companion.
    fn role(&self) -> Option<&str> {
        // The longer one first: it begins with the other.
        self.check.strip_prefix(APART).or_else(|| self.check.strip_prefix(COMPANION))
    }

    /// Sees to it that the process does not outlive what it works for.
    fn end_in_time(&self) {
        if self.check.starts_with(APART) {
            end_with_the_link();
        } else {
            end_with_the_parent();
        }
    }
}

/// A killed run takes its processes along, each of which puts the NIC back that it has set up.
fn end_with_the_parent() {
    // Without these the process ends a little later by itself, and puts the NIC back then.
    let _ = nic::restore_on_signals();
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGTERM);
    // It may have ended before.
    if nix::unistd::getppid() == nix::unistd::Pid::from_raw(1) && std::process::id() != 1 {
        std::process::exit(1);
    }
}

/// Signals that end the others do not end this process, which has something to put back when its link is closed.
fn end_with_the_link() {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    // Threads that are started from now on hold them back as well.
    let _ = signals.thread_block();
}

/// Writes it where the parent reads: standard input, see there.
fn tell(message: &Message) -> std::io::Result<()> {
    let text = serde_json::to_vec(message)?;
    File::from(std::io::stdin().as_fd().try_clone_to_owned()?).write_all(&text)
}

/// What leads from a companion to its check: its standard input.
fn own_link() -> std::io::Result<Link> {
    Ok(Link::new(UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?)))
}

/// Plays a role until its end.
fn play(name: &str, roles: &[(&str, Role)], context: &Context<'_>) -> Result<(), Stop> {
    match roles.iter().find(|(known, _)| *known == name) {
        Some((_, role)) => role(context, &own_link()?),
        None => Err(Stop::fail(format!("there is no role {name}"))),
    }
}

fn attempt(check: &Check, context: &Context<'_>) -> crate::Outcome {
    let all = || {
        for need in check.needs {
            need.probe(context).map_err(Stop::Skip)?;
        }
        (check.run)(context)
    };
    // A panic is a finding like any other; its message is on standard error, which the parent keeps.
    catch_unwind(AssertUnwindSafe(all)).unwrap_or_else(|_| Err(Stop::fail("it panicked; see its output")))
}
