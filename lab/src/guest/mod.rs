//! The agent: the first process in the guest. It sets the machine up, runs the command, carries its
//! input and output, answers programs that ask where their bytes went, and stops the machine.
//!
//! The agent is the very program that starts the machine, put into the guest as `/init`; see [`entry`].

mod command;
mod entry;
mod in_namespace;
mod lab_ask;
mod locate;
mod mark;
mod mounts;
mod netlink;
mod network;
mod port;
mod questions;
mod sys;

pub(crate) use sys::EXIT_PORT;

use std::ffi::CString;
use std::fs;
use std::sync::Arc;

use crate::protocol::description::{KernelModule, Run};
use crate::protocol::message::{Exit, FromGuest};
use crate::protocol::{DESCRIPTION, MODULE_FOLDER};
use port::Port;

/// What went wrong in the guest, in words for the person at the host.
type Result<T> = std::result::Result<T, String>;

trait Context<T> {
    /// `action` completes the sentence "cannot …".
    fn context(self, action: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: std::fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| format!("cannot {}: {error}", action()))
    }
}

/// Runs the machine from its start to its end.
fn first_process() -> ! {
    if let Err(reason) = set_up_and_run() {
        // Without a port, the kernel's console is what the host reads.
        eprintln!("devmem-lab: {reason}");
    }
    sys::stop_machine()
}

fn set_up_and_run() -> Result<()> {
    mounts::mount_all()?;
    sys::ignore_broken_pipes();
    let port = Port::open()?;
    let outcome = work(&port);
    match outcome {
        Ok(exit) => port.send(&FromGuest::Ended(exit))?,
        Err(reason) => port.send(&FromGuest::Failed(reason))?,
    }
    port.wait_for_stop();
    Ok(())
}

fn work(port: &Arc<Port>) -> Result<Exit> {
    let text = fs::read(DESCRIPTION).context(|| format!("read {DESCRIPTION}"))?;
    let run: Run = serde_json::from_slice(&text).context(|| format!("understand {DESCRIPTION}"))?;
    for module in &run.modules {
        load_module(module)?;
    }
    let namespaces = network::set_up(run.network_cards)?;
    entry::put_links(&namespaces)?;
    questions::serve(Arc::clone(port))?;
    port.send(&FromGuest::Ready)?;
    let exit = command::run(&run, port)?;
    for path in &run.bring_back {
        port.send_file(path)?;
    }
    Ok(exit)
}

fn load_module(KernelModule { name, parameters }: &KernelModule) -> Result<()> {
    let path = format!("{MODULE_FOLDER}/{name}");
    let file = fs::File::open(&path).context(|| format!("open {path}"))?;
    let text = CString::new(parameters.as_str()).context(|| format!("pass parameters to {name}"))?;
    match nix::kmod::finit_module(&file, &text, nix::kmod::ModuleInitFlags::empty()) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(error) => Err(format!("cannot load the kernel module {name} {parameters}: {error}")),
    }
}
