//! A receive path with one fault.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use devmem_provider::{DmaBuf, Error, ErrorKind, PeerToPeer, Result, base_page_size};
use devmem_receive::devmem::StreamOptions;
use devmem_receive::nic::Nic;

use super::Fault;
use crate::path::{Attached, Incoming, Piece, Place, ReceivePath};

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
        Ok(Box::new(FaultyAttached { inner: Some(inner), fault: self.fault }))
    }
}

/// What pretends to be attached.
#[derive(Debug)]
struct Nothing;

impl Attached for Nothing {
    fn id(&self) -> u32 {
        u32::MAX
    }

    fn receive(&self, _socket: TcpStream, _options: StreamOptions) -> Result<Box<dyn Incoming>> {
        Err(Error::new(ErrorKind::WrongState, "receive").because("nothing is bound"))
    }

    fn detach(self: Box<Self>, _limit: Duration) -> Result<bool> {
        Ok(true)
    }
}

#[derive(Debug)]
struct FaultyAttached {
    /// There until it is detached.
    inner: Option<Box<dyn Attached>>,
    fault: Fault,
}

impl Attached for FaultyAttached {
    fn id(&self) -> u32 {
        match self.fault {
            Fault::WrongBinding => u32::MAX,
            _ => self.inner.as_ref().map_or(u32::MAX, |inner| inner.id()),
        }
    }

    fn receive(&self, socket: TcpStream, options: StreamOptions) -> Result<Box<dyn Incoming>> {
        let Some(inner) = &self.inner else {
            return Err(Error::new(ErrorKind::WrongState, "receive").because("it is detached"));
        };
        let inner = inner.receive(socket, options)?;
        Ok(Box::new(FaultyIncoming { inner, fault: self.fault, kept: Vec::new(), ended: false }))
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
}

impl Drop for FaultyAttached {
    fn drop(&mut self) {
        if self.fault == Fault::LeaksBinding {
            std::mem::forget(self.inner.take());
        }
    }
}

#[derive(Debug)]
struct FaultyIncoming {
    inner: Box<dyn Incoming>,
    fault: Fault,
    /// What was held back.
    kept: Vec<Piece>,
    /// The end was reached.
    ended: bool,
}

impl FaultyIncoming {
    fn altered(&mut self, mut pieces: Vec<Piece>) -> Result<Vec<Piece>> {
        match self.fault {
            Fault::SwapsFragments if pieces.len() > 1 => pieces.swap(0, 1),
            // One piece alone is told with the next ones, behind them.
            Fault::SwapsFragments => {
                std::mem::swap(&mut self.kept, &mut pieces);
            }
            Fault::DropsBytes => drop(pieces.pop()),
            Fault::ReportsTwice => pieces.extend(pieces.last().cloned()),
            Fault::LinearInstead => {
                for piece in &mut pieces {
                    if let Piece::Fragment(place) = piece {
                        let place = *place;
                        *piece = Piece::Linear(vec![0; place.length as usize]);
                        self.inner.release(&[place])?;
                    }
                }
            }
            Fault::ReleasesEarly => {
                self.inner.release(&places(&pieces).collect::<Vec<_>>())?;
                self.inner.flush()?;
            }
            Fault::WrongOffset | Fault::OutsideBuffer | Fault::WrongLength => {
                for piece in &mut pieces {
                    if let Piece::Fragment(place) = piece {
                        self.displace(place);
                    }
                }
            }
            _ => {}
        }
        Ok(pieces)
    }

    fn displace(&self, place: &mut Place) {
        match self.fault {
            Fault::WrongOffset => place.offset ^= base_page_size(),
            Fault::OutsideBuffer => place.offset += 1 << 40,
            _ => place.length += 1,
        }
    }
}

fn places(pieces: &[Piece]) -> impl Iterator<Item = Place> {
    pieces.iter().filter_map(|piece| match piece {
        Piece::Fragment(place) => Some(*place),
        Piece::Linear(_) => None,
    })
}

impl Incoming for FaultyIncoming {
    fn next(&mut self) -> Result<Option<Vec<Piece>>> {
        match self.fault {
            Fault::ReceiveHangs => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
            Fault::ReceiveCrashes => std::process::abort(),
            Fault::InventsEnd if std::mem::replace(&mut self.ended, true) => return Ok(None),
            _ => {}
        }
        match self.inner.next() {
            Ok(Some(pieces)) => self.altered(pieces).map(Some),
            Ok(None) if self.fault == Fault::HidesEnd => {
                Err(Error::new(ErrorKind::Io, "receive").because("nothing came"))
            }
            Ok(None) if !self.kept.is_empty() => Ok(Some(std::mem::take(&mut self.kept))),
            Ok(None) => Ok(None),
            Err(_) if self.fault == Fault::SwallowsErrors => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn peek(&mut self) -> Result<Option<Vec<Piece>>> {
        match self.fault {
            Fault::PeekTakes => self.inner.next(),
            _ => self.inner.peek(),
        }
    }

    fn release(&mut self, places: &[Place]) -> Result<()> {
        match self.fault {
            Fault::LosesTokens | Fault::ReleasesEarly => Ok(()),
            _ => self.inner.release(places),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self.inner.flush() {
            Err(_) if self.fault == Fault::SwallowsErrors => Ok(()),
            result => result,
        }
    }
}
