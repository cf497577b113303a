//! The terminal that the program runs in.

use std::io::stdin;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// The terminal passes every key on as it is, until this is dropped.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    terminal: OwnedFd,
    before: Termios,
}

impl RawTerminal {
    /// Changes the terminal of standard input.
    pub(crate) fn enter() -> Result<Self> {
        let terminal = stdin().as_fd().try_clone_to_owned().context("cannot use standard input")?;
        let before =
            tcgetattr(&terminal).context("standard input is no terminal (`cargo lab run` needs none)")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&terminal, SetArg::TCSANOW, &raw).context("cannot change the terminal")?;
        Ok(Self { terminal, before })
    }

    /// The terminal, to read from.
    pub(crate) fn input(&self) -> Result<OwnedFd> {
        self.terminal.try_clone().context("cannot use the terminal")
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}
