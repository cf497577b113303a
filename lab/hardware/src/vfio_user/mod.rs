//! The server side of vfio-user, the protocol by which QEMU attaches a PCI function of another process
//! (QEMU: docs/interop/vfio-user.rst, protocol version 0.0).
//!
//! Only what a PCI device with BARs, memory in them, MSI or MSI-X, and DMA by shared memory needs. One client at a time; when
//! it goes away the function is reset and the next one may come.

mod commands;
mod messages;
mod sys;
mod transport;

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};

use crate::lock;
use crate::pci::Function;
use transport::Connection;

/// Serves one function on a socket, from a thread of its own.
pub(crate) struct Server {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    listener: UnixListener,
    client: Mutex<Option<UnixStream>>,
    stopping: AtomicBool,
}

impl Server {
    /// Listens on `path`, which must not exist, and serves `function` there.
    ///
    /// # Errors
    /// What the system said when it refused the socket or the thread.
    pub(crate) fn start(path: &Path, function: Function) -> io::Result<Server> {
        let listener = UnixListener::bind(path)?;
        let client = Mutex::new(None);
        let shared = Arc::new(Shared { listener, client, stopping: AtomicBool::new(false) });
        let for_thread = Arc::clone(&shared);
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let spawned = thread::Builder::new().name(name).spawn(move || for_thread.run(&function));
        let thread = spawned.inspect_err(|_| {
            let _ = std::fs::remove_file(path);
        })?;
        Ok(Server { path: path.to_owned(), shared, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Both make a blocked call of the thread return: accept(2) and recvmsg(2).
        let _ = shutdown(self.shared.listener.as_raw_fd(), Shutdown::Both);
        if let Some(client) = lock(&self.shared.client).as_ref() {
            let _ = client.shutdown(std::net::Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Shared {
    fn run(&self, function: &Function) {
        while !self.stopping.load(Ordering::SeqCst) {
            let Ok((stream, _)) = self.listener.accept() else {
                // Out of descriptors, or stopping; the first passes.
                thread::sleep(Duration::from_millis(10));
                continue;
            };
            *lock(&self.client) = stream.try_clone().ok();
            if !self.stopping.load(Ordering::SeqCst) {
                // However the connection ended, the client is gone and the next one starts afresh.
                let _ = serve(Connection::new(stream), function);
            }
            *lock(&self.client) = None;
            function.disconnected();
        }
    }
}

/// Answers commands until the client hangs up.
fn serve(mut connection: Connection, function: &Function) -> io::Result<()> {
    let mut reply = Vec::new();
    while let Some(message) = connection.receive()? {
        if message.header.is_reply() {
            continue; // no command is ever sent to the client
        }
        reply.clear();
        let outcome = commands::execute(function, &message, &mut reply);
        if !message.header.wants_no_reply() {
            match outcome {
                Ok(descriptor) => {
                    connection.send(&message.header.reply(reply.len()), &reply, descriptor)?;
                }
                Err(error) => connection.send(&message.header.error_reply(error), &[], None)?,
            }
        }
        connection.recycle(message);
    }
    Ok(())
}
