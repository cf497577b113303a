//! A receive path with one fault.

use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use devmem_provider::{DmaBuf, Error, ErrorKind, PeerToPeer, Result};
use devmem_receive::devmem::StreamOptions;
use devmem_receive::ethtool::DEFAULT_CONTEXT;
use devmem_receive::nic::Nic;

use super::Fault;
use super::incoming::{FaultyIncoming, FaultyRawSocket};
use super::rings::{FaultyRegistered, FaultyRings};
use super::sys::make_inheritable;
use crate::path::{Attached, Feature, Holder, Incoming, RawSocket, ReceivePath, Registered, Rings};
use crate::verdict::Skip;

/// Another receive path, with one fault put in.
#[derive(Debug)]
pub struct FaultyPath {
    inner: Arc<dyn ReceivePath>,
    fault: Fault,
}

impl FaultyPath {
    /// `inner` with `fault`, under the same name.
    #[must_use]
    pub fn new(inner: Arc<dyn ReceivePath>, fault: Fault) -> Self {
        Self { inner, fault }
    }
}

impl ReceivePath for FaultyPath {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn has(&self, feature: Feature) -> bool {
        self.inner.has(feature)
    }

    fn lack(&self) -> Option<Skip> {
        self.inner.lack()
    }

    fn peer_to_peer(&self) -> PeerToPeer {
        self.inner.peer_to_peer()
    }

    fn is_refusal_of_exporter(&self, error: &Error) -> bool {
        self.inner.is_refusal_of_exporter(error)
    }

    fn attach(&self, nic: &Nic, queues: &[u32], dma_buf: &DmaBuf) -> Result<Box<dyn Attached>> {
        match self.fault {
            Fault::BindsNothing => return Ok(Box::new(Nothing)),
            Fault::ForgetsQueues if queues.len() > 1 => return self.inner.attach(nic, &queues[..1], dma_buf),
            Fault::ChangesNic => {
                let features = nic.snapshot()?.features;
                let gro = features.get("rx-gro").is_some_and(|feature| feature.active);
                let changed = nic.ethtool().set_feature(nic.ifindex(), "rx-gro", !gro);
                changed.map_err(|error| error.during("change a feature"))?;
            }
            _ => {}
        }
        let inner = match self.inner.attach(nic, queues, dma_buf) {
            Ok(inner) => inner,
            Err(_) if self.fault == Fault::BindsAnything => return Ok(Box::new(Nothing)),
            Err(_) if self.fault == Fault::WrongRefusal => {
                return Err(Error::new(ErrorKind::Io, "bind a DMA-buf"));
            }
            Err(error) => {
                if self.fault == Fault::KeepsRefused {
                    std::mem::forget(dma_buf.try_clone()?);
                }
                return Err(error);
            }
        };
        if self.fault == Fault::RefusesBind {
            return Err(Error::new(ErrorKind::Io, "bind a DMA-buf").because("it does not like to"));
        }
        let spread = (self.fault == Fault::TakesOthers).then(|| Spread::onto(nic, queues)).transpose()?;
        let heir = (self.fault == Fault::Inherited).then(|| heir(BINDERS)).transpose()?;
        Ok(Box::new(FaultyAttached { inner: Some(inner), fault: self.fault, _spread: spread, _heir: heir }))
    }

    fn raw<'socket>(&self, socket: BorrowedFd<'socket>) -> Option<Box<dyn RawSocket + 'socket>> {
        Some(Box::new(FaultyRawSocket::new(self.inner.raw(socket)?, self.fault)))
    }

    fn rings(&self) -> Option<Box<dyn Rings + '_>> {
        Some(Box::new(FaultyRings::new(self.inner.rings()?, self.fault)))
    }
}

/// What pretends to be attached.
#[derive(Debug)]
struct Nothing;

impl Attached for Nothing {
    fn holder(&self) -> Holder {
        Holder::Binding(u32::MAX)
    }

    fn receive(&self, _socket: TcpStream, _options: StreamOptions) -> Result<Box<dyn Incoming>> {
        Err(Error::new(ErrorKind::WrongState, "receive").because("nothing is bound"))
    }

    fn detach(self: Box<Self>, _limit: Duration) -> Result<bool> {
        Ok(true)
    }
}

#[derive(Debug)]
pub(super) struct FaultyAttached {
    /// There until it is detached.
    inner: Option<Box<dyn Attached>>,
    fault: Fault,
    _spread: Option<Spread>,
    /// Ends with the processes of the check.
    _heir: Option<Child>,
}

impl FaultyAttached {
    /// `inner` with `fault`, if it is one of what happens later.
    pub(super) fn new(inner: Box<dyn Attached>, fault: Fault) -> Self {
        Self { inner: Some(inner), fault, _spread: None, _heir: None }
    }
}

/// What binds queues of a NIC: sockets, and rings of io_uring.
pub(super) const BINDERS: &[&str] = &["socket:", "anon_inode:[io_uring]"];

/// A program with all files of this process whose names in `/proc` begin with one of these.
pub(super) fn heir(beginnings: &[&str]) -> Result<Child> {
    let attempt = || {
        for entry in std::fs::read_dir("/proc/self/fd")? {
            let entry = entry?;
            let is_meant = std::fs::read_link(entry.path()).is_ok_and(|file| {
                let file = file.to_string_lossy();
                beginnings.iter().any(|beginning| file.starts_with(beginning))
            });
            if is_meant && let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                make_inheritable(number)?;
            }
        }
        Command::new("sleep").arg("60").spawn()
    };
    attempt().map_err(|error| Error::from_io(error, "start a program"))
}

/// How packets without a rule were spread over the queues before. Dropping it spreads them so again.
#[derive(Debug)]
struct Spread {
    nic: Nic,
    table: Vec<u32>,
}

impl Spread {
    /// Spreads all packets over `queues`.
    fn onto(nic: &Nic, queues: &[u32]) -> Result<Self> {
        let before = nic.ethtool().rss(nic.ifindex(), DEFAULT_CONTEXT);
        let before = before.map_err(|error| error.during("read the RSS table"))?;
        let table: Vec<u32> = queues.iter().copied().cycle().take(before.indirection.len()).collect();
        let changed = nic.ethtool().set_rss_indirection(nic.ifindex(), DEFAULT_CONTEXT, &table);
        changed.map_err(|error| error.during("change the RSS table"))?;
        Ok(Self { nic: nic.clone(), table: before.indirection })
    }
}

impl Drop for Spread {
    fn drop(&mut self) {
        // Whoever looks at the NIC afterwards sees what cannot be put back.
        let _ = self.nic.ethtool().set_rss_indirection(self.nic.ifindex(), DEFAULT_CONTEXT, &self.table);
    }
}

impl Attached for FaultyAttached {
    fn holder(&self) -> Holder {
        match &self.inner {
            Some(inner) if self.fault != Fault::WrongBinding => inner.holder(),
            _ => Holder::Binding(u32::MAX),
        }
    }

    fn receive(&self, socket: TcpStream, options: StreamOptions) -> Result<Box<dyn Incoming>> {
        let Some(inner) = &self.inner else {
            return Err(Error::new(ErrorKind::WrongState, "receive").because("it is detached"));
        };
        let same = socket.try_clone().map_err(|error| Error::from_io(error, "share a connection"))?;
        let inner = inner.receive(socket, options)?;
        Ok(Box::new(FaultyIncoming::new(inner, same, self.fault)))
    }

    fn detach(mut self: Box<Self>, limit: Duration) -> Result<bool> {
        let Some(inner) = self.inner.take() else { return Ok(true) };
        match self.fault {
            Fault::LeaksBinding => {
                std::mem::forget(inner);
                Ok(true)
            }
            Fault::ClaimsDetached => inner.detach(Duration::ZERO).map(|_| true),
            Fault::DeniesDetached => inner.detach(limit).map(|_| false),
            _ => inner.detach(limit),
        }
    }

    fn registered(&self) -> Option<Box<dyn Registered + '_>> {
        Some(Box::new(FaultyRegistered::new(self.inner.as_ref()?.registered()?, self.fault)))
    }
}

impl Drop for FaultyAttached {
    fn drop(&mut self) {
        if self.fault == Fault::LeaksBinding {
            std::mem::forget(self.inner.take());
        }
    }
}
