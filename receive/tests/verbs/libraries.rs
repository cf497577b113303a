//! The libraries: missing, too old, or without a provider for the device.

use std::path::Path;
use std::process::{Command, ExitCode};

use devmem_provider::ErrorKind;
use devmem_receive::rdma::Device;
use devmem_receive::rdma::verbs::{Context, VerbsFailure};

use crate::harness::{Failure, Outcome, Test, ensure, tests};

pub(crate) const TESTS: &[Test] = tests! {
    library :: { missing, too_old, without_provider },
};

/// The argument by which another process of this program opens a device, and says what came of it.
const OPEN: &str = "open-a-device";

/// Where the guest has libraries.
const FOLDER: &str = "/usr/lib/x86_64-linux-gnu";

/// Plays that process, if it is one.
pub(crate) fn play() -> Option<ExitCode> {
    (std::env::args().nth(1)? == OPEN).then(|| {
        let opened = Device::find("efa_0").and_then(|device| Context::open(&device));
        match opened {
            Ok(context) => println!("opened {context:?}"),
            Err(error) => println!("{:?} {:?} {error}", VerbsFailure::of(&error), error.kind()),
        }
        ExitCode::SUCCESS
    })
}

/// What a process says that opens a device with these libraries first.
fn open(libraries: Option<&Path>) -> Result<String, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(OPEN);
    if let Some(folder) = libraries {
        command.env("LD_LIBRARY_PATH", folder);
    }
    let output = command.output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Does something while a file is elsewhere.
fn without(file: &str, action: impl FnOnce() -> Outcome) -> Outcome {
    let hidden = "/root/hidden";
    std::fs::rename(file, hidden)?;
    let outcome = action();
    std::fs::rename(hidden, file)?;
    outcome
}

fn says(said: &str, failure: VerbsFailure, kind: ErrorKind, words: &[&str]) -> Outcome {
    ensure!(said.starts_with(&format!("Some({failure:?}) {kind:?} ")), "{said}");
    ensure!(words.iter().all(|words| said.contains(words)), "{said}");
    Ok(())
}

mod library {
    use super::*;

    pub(super) fn missing() -> Outcome {
        ensure!(open(None)?.starts_with("opened"), "{}", open(None)?);
        without(&format!("{FOLDER}/libibverbs.so.1"), || {
            let words = ["libibverbs.so.1", "install", "ibverbs-providers"];
            says(&open(None)?, VerbsFailure::NoLibrary, ErrorKind::NotFound, &words)
        })
    }

    /// A library that lacks a function: another one by that name.
    pub(super) fn too_old() -> Outcome {
        let folder = Path::new("/tmp/old");
        std::fs::create_dir_all(folder)?;
        std::fs::copy(format!("{FOLDER}/libm.so.6"), folder.join("libibverbs.so.1"))?;
        let words = ["no function ibv_", "rdma-core 34"];
        says(&open(Some(folder))?, VerbsFailure::LibraryTooOld, ErrorKind::Unsupported, &words)
    }

    pub(super) fn without_provider() -> Outcome {
        without("/etc/libibverbs.d/efa.driver", || {
            let words = ["no provider for efa", "it lists none"];
            says(&open(None)?, VerbsFailure::NoProvider, ErrorKind::Unsupported, &words)
        })
    }
}
