//! A connection that is received with one fault.

use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use devmem_provider::{Error, ErrorKind, Result, base_page_size};
use devmem_receive::devmem::{RawErrno, TokenRange};

use super::Fault;
use crate::path::{Incoming, Piece, Place, RawReceive, RawReceived, RawSocket};

#[derive(Debug)]
pub(super) struct FaultyIncoming {
    inner: Box<dyn Incoming>,
    fault: Fault,
    /// What was held back.
    kept: Vec<Piece>,
    /// The end was reached.
    ended: bool,
    socket: TcpStream,
}

impl FaultyIncoming {
    /// `inner` with `fault`; `socket` is the same connection.
    pub(super) fn new(inner: Box<dyn Incoming>, socket: TcpStream, fault: Fault) -> Self {
        Self { inner, fault, kept: Vec::new(), ended: false, socket }
    }

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

impl Drop for FaultyIncoming {
    fn drop(&mut self) {
        if self.fault == Fault::KeepsConnection {
            std::mem::forget(std::mem::replace(&mut self.inner, Box::new(Nowhere)));
        }
    }
}

/// What stands in the place of a connection that was given up.
#[derive(Debug)]
struct Nowhere;

impl Incoming for Nowhere {
    fn next(&mut self) -> Result<Option<Vec<Piece>>> {
        Ok(None)
    }

    fn release(&mut self, _places: &[Place]) -> Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn limit_idle(&mut self, _limit: Duration) {}
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
            Ok(None) if self.fault == Fault::ClosesAtEnd => {
                let closed = self.socket.shutdown(Shutdown::Both);
                closed.map(|()| None).map_err(|error| Error::from_io(error, "close the connection"))
            }
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

    fn limit_idle(&mut self, limit: Duration) {
        self.inner.limit_idle(limit);
    }

    fn restarts(&self) -> Option<u64> {
        self.inner.restarts()
    }

    fn release_calls(&self) -> Option<u64> {
        self.inner.release_calls()
    }

    fn raw(&self) -> Option<Box<dyn RawSocket + '_>> {
        Some(Box::new(FaultyRawSocket::new(self.inner.raw()?, self.fault)))
    }
}

/// A socket with one fault.
#[derive(Debug)]
pub(super) struct FaultyRawSocket<'incoming> {
    inner: Box<dyn RawSocket + 'incoming>,
    fault: Fault,
}

impl<'socket> FaultyRawSocket<'socket> {
    pub(super) fn new(inner: Box<dyn RawSocket + 'socket>, fault: Fault) -> Self {
        Self { inner, fault }
    }
}

/// How many fragments are told to have been given back.
fn told(
    released: std::result::Result<usize, RawErrno>,
    fault: Fault,
) -> std::result::Result<usize, RawErrno> {
    match released {
        Ok(count) if fault == Fault::MiscountsTokens => Ok(count + 1),
        Err(_) if fault == Fault::AcceptsAnyRelease => Ok(0),
        released => released,
    }
}

impl RawSocket for FaultyRawSocket<'_> {
    fn receive(&self, mut request: RawReceive) -> std::result::Result<RawReceived, RawErrno> {
        match self.fault {
            Fault::IgnoresFlags => request.flags = 0,
            Fault::IgnoresLength => request.length += 1,
            _ => {}
        }
        match self.inner.receive(request) {
            Err(_) if self.fault == Fault::SwallowsErrors => Ok(RawReceived::default()),
            Ok(mut received) if self.fault == Fault::DropsBytes => {
                received.pieces.pop();
                Ok(received)
            }
            Ok(received) if self.fault == Fault::LosesMessages => Ok(RawReceived { others: 0, ..received }),
            result => result,
        }
    }

    fn release(&self, ranges: &[TokenRange]) -> std::result::Result<usize, RawErrno> {
        match self.fault {
            Fault::LosesTokens => Ok(ranges.iter().map(|range| range.count as usize).sum()),
            fault => told(self.inner.release(ranges), fault),
        }
    }

    fn release_bytes(&self, value: &[u8]) -> std::result::Result<usize, RawErrno> {
        told(self.inner.release_bytes(value), self.fault)
    }
}
