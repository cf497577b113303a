//! How a program becomes the guest's agent.
//!
//! Every program that links this library can be the agent of the machines that it starts: it copies
//! itself into the guest. So tests need no second program that might be missing or out of date. The
//! price is a function that runs before `main`, looks whether this is the guest, and if not, returns.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::locate::LAB_MARK;
use super::{Context, Result, in_namespace, lab_ask, mark};
use crate::protocol::{AGENT, GUEST_VARIABLE};

const LAB_ASK: &str = "lab-ask";
const IN_NAMESPACE: &str = "in-";

// The C library calls the functions of this table before `main`, with its own state and that of
// Rust's standard library (arguments, environment) set up.
#[used]
#[unsafe(link_section = ".init_array")]
static ENTRY: extern "C" fn() = entry;

extern "C" fn entry() {
    if std::env::var_os(GUEST_VARIABLE).is_none() {
        return;
    }
    let called = std::env::args_os().next().unwrap_or_default();
    if std::process::id() == 1 && called == AGENT {
        super::first_process();
    }
    let is_agent = std::fs::read_link("/proc/self/exe").is_ok_and(|path| path == Path::new(AGENT));
    let name = Path::new(&called).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !is_agent {
        return;
    }
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let code = if name == LAB_ASK {
        lab_ask::ask(&arguments)
    } else if name == LAB_MARK {
        mark::run(&arguments)
    } else if let Some(namespace) = name.strip_prefix(IN_NAMESPACE) {
        in_namespace::execute(namespace, &arguments)
    } else {
        return;
    };
    std::process::exit(code);
}

/// Makes the agent's other names: `lab-ask`, and `in-peer` for the namespace `peer`.
pub(super) fn put_links(namespaces: &[String]) -> Result<()> {
    let names = namespaces.iter().map(|namespace| format!("{IN_NAMESPACE}{namespace}"));
    for name in names.chain([LAB_ASK.to_owned()]) {
        let path = format!("/usr/local/bin/{name}");
        symlink(AGENT, &path).context(|| format!("create {path}"))?;
    }
    Ok(())
}
