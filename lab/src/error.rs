//! What can go wrong on the host, told with what was tried, what the system said and what to do next.

use std::io;
use std::path::{Path, PathBuf};

/// A failure of the lab itself. A program that fails in the guest is not one of these: it is an
/// [`Outcome`](crate::Outcome).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("cannot {action}: {error}")]
    System {
        /// What was tried, on what: "create /x/y".
        action: String,
        /// What the system said.
        error: io::Error,
    },
    /// A program that the lab starts is not there.
    #[error("{program} is not installed; {remedy}")]
    MissingProgram {
        /// The program's name.
        program: String,
        /// How to get it, or how to do without it.
        remedy: String,
    },
    /// The package tools failed.
    #[error("{action} failed:\n{output}\n{remedy}")]
    Packages {
        /// What was tried.
        action: String,
        /// The tool's own words.
        output: String,
        /// What to try next.
        remedy: String,
    },
    /// A driver that the distribution does not build cannot be built for this kernel.
    #[error(
        "the driver {driver} cannot be built for the kernel {kernel}: {reason}; fetch a kernel that the mirror still offers \
         (`cargo lab kernels`, `cargo lab fetch`)"
    )]
    NoDriver {
        /// The driver's module.
        driver: &'static str,
        /// The kernel's release.
        kernel: String,
        /// What is missing.
        reason: String,
    },
    /// The machine's package configuration names no server that has the wanted suites.
    #[error(
        "no Debian mirror found in this machine's apt configuration; name one with --mirror URL (and its keys with --keyring FILE)"
    )]
    NoMirror,
    /// No kernel fits the wish.
    #[error("no kernel fits '{wanted}'; {known}")]
    NoKernel {
        /// What was asked for.
        wanted: String,
        /// What there is instead.
        known: String,
    },
    /// Something in the cache folder is not what was put there.
    #[error("the cache is damaged: {path} {reason}; `cargo lab fetch` repairs it")]
    DamagedCache {
        /// The file in question.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A program needs a shared library that was not found.
    #[error("{program} needs the library {library}, found in none of: {searched}")]
    MissingLibrary {
        /// The program or library that asks for it.
        program: PathBuf,
        /// The name it asks for.
        library: String,
        /// The folders that were searched.
        searched: String,
    },
    /// A file does not have the format that it must have.
    #[error("{path}: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An option has a value that cannot be used.
    #[error("{option}: {reason}")]
    Option {
        /// The option with its value.
        option: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// The emulated hardware could not be started.
    #[error("the emulated hardware did not start: {0}")]
    Hardware(String),
    /// The machine could not be brought to the point where it runs the command.
    #[error("{0}")]
    Machine(String),
    /// The run was interrupted by a signal.
    #[error("interrupted")]
    Interrupted,
}

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn format(path: &Path, reason: impl Into<String>) -> Self {
        Self::Format { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn option(option: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Option { option: option.into(), reason: reason.into() }
    }
}

/// Turns an error of the system into an [`Error`] that says what was tried.
pub(crate) trait Context<T> {
    /// `action` completes the sentence "cannot …".
    fn context(self, action: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::System { action: action(), error: error.into() })
    }
}
