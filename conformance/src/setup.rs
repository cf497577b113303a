//! A NIC that is set up, a buffer that is attached to its queues, and connections that arrive there.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use devmem_provider::dma_buf::{Access, Mapping};
use devmem_provider::{Buffer, Error, Pin, Request, Require};
use devmem_receive::devmem::StreamOptions;
use devmem_receive::nic::{Flow, Plan, Prepared, Queues};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::context::Context;
use crate::ensure;
use crate::nic_under_test::Family;
use crate::path::{Attached, Incoming, Piece, Place, QueuesOf};
use crate::peer::{Running, Script, Session, Step, Told, fill};
use crate::verdict::Stop;

/// How long a peer may take to connect, and its script to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The size of a buffer that feeds the receive rings of a queue, in bytes.
pub(crate) const BUFFER_BYTES: u64 = 4 << 20;

/// What connections read in one call.
pub(crate) fn options() -> StreamOptions {
    StreamOptions::default().idle_limit(Duration::from_secs(5))
}

/// The receiving side. The order of the fields is the order of release.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) mapping: Mapping,
    pub(crate) pin: Pin<Box<dyn Attached>>,
    pub(crate) nic: Prepared,
    pub(crate) buffer: Box<dyn Buffer>,
    port: u16,
}

impl Setup {
    /// One queue, with a buffer of the usual size.
    pub(crate) fn new(context: &Context<'_>) -> Result<Self, Stop> {
        Self::of(context, 1, BUFFER_BYTES)
    }

    /// As many queues, with one buffer of at least `bytes` attached to all.
    pub(crate) fn of(context: &Context<'_>, queues: u32, bytes: u64) -> Result<Self, Stop> {
        let bytes = bytes.next_multiple_of(context.granularity()?.max(1));
        let buffer = context.provider().allocate(&Request::bytes(bytes))?;
        Self::with(context, prepare(context, queues, bytes)?, buffer)
    }

    /// A NIC that is prepared, with a buffer attached to its queues.
    pub(crate) fn with(context: &Context<'_>, nic: Prepared, buffer: Box<dyn Buffer>) -> Result<Self, Stop> {
        let pin = pin(context, &nic, nic.queues(), &*buffer)?;
        let mapping = pin.dma_buf().map(Access::Read)?;
        Ok(Self { mapping, pin, nic, buffer, port: context.nic()?.port })
    }

    /// Listens on the NIC's address.
    pub(crate) fn listen(&self, context: &Context<'_>, family: Family) -> Result<TcpListener, Stop> {
        let address = context.nic()?.address(self.nic.nic(), family).map_err(|error| Stop::skip(&error))?;
        Ok(TcpListener::bind(SocketAddr::new(address, self.port))?)
    }

    /// A connection over IPv4 from the peer, which does these steps.
    pub(crate) fn connect(
        &self,
        context: &Context<'_>,
        session: &mut Session,
        steps: Vec<Step>,
    ) -> Result<Connection, Stop> {
        self.connect_or(context, session, steps, Stop::from)
    }

    /// A connection from the peer besides others that the same queues receive. Skips where the path, as this kernel has it,
    /// receives one at a time.
    pub(crate) fn connect_beside(
        &self,
        context: &Context<'_>,
        session: &mut Session,
        steps: Vec<Step>,
    ) -> Result<Connection, Stop> {
        self.connect_or(context, session, steps, Stop::unless_supported)
    }

    fn connect_or(
        &self,
        context: &Context<'_>,
        session: &mut Session,
        steps: Vec<Step>,
        refused: impl FnOnce(Error) -> Stop,
    ) -> Result<Connection, Stop> {
        let listener = self.listen(context, Family::V4)?;
        let running = session.start(&script(listener.local_addr()?, steps))?;
        self.receive_or(accepted(&listener)?, running, options(), refused)
    }

    /// A connection from the peer, which executes `script`.
    pub(crate) fn accept(
        &self,
        listener: &TcpListener,
        session: &mut Session,
        script: Script,
        options: StreamOptions,
    ) -> Result<Connection, Stop> {
        let running = session.start(&script)?;
        self.receive(accepted(listener)?, running, options)
    }

    /// A connection that the peer's `running` script has made.
    pub(crate) fn receive(
        &self,
        socket: TcpStream,
        running: Running,
        options: StreamOptions,
    ) -> Result<Connection, Stop> {
        self.receive_or(socket, running, options, Stop::from)
    }

    fn receive_or(
        &self,
        socket: TcpStream,
        running: Running,
        options: StreamOptions,
        refused: impl FnOnce(Error) -> Stop,
    ) -> Result<Connection, Stop> {
        let same = socket.try_clone()?;
        let incoming = self.pin.receive(socket, options).map_err(refused)?;
        Ok(Connection { incoming, running: Some(running), position: 0, socket: same, answered: 0 })
    }

    /// Sends `bytes` bytes over a connection of its own and checks each of them.
    pub(crate) fn transfer(
        &self,
        context: &Context<'_>,
        session: &mut Session,
        bytes: u64,
    ) -> Result<(), Stop> {
        let mut connection = self.connect(context, session, sends(bytes))?;
        connection.drain(&self.mapping, bytes)
    }
}

/// The peer sends `bytes` bytes and closes the connection.
pub(crate) fn sends(bytes: u64) -> Vec<Step> {
    vec![Step::Write { bytes, chunk: 64 << 10 }, Step::FinishWriting, Step::AwaitEnd]
}

/// A script of these steps, to `to`.
pub(crate) fn script(to: SocketAddr, steps: Vec<Step>) -> Script {
    Script { to, from_port: None, no_delay: false, maximum_segment: None, steps }
}

/// Sets the NIC up for receiving on its port, for a buffer of `bytes`.
pub(crate) fn prepare(context: &Context<'_>, queues: u32, bytes: u64) -> Result<Prepared, Stop> {
    let under_test = context.nic()?;
    let plan = Plan::new(Queues::count(queues), Flow::tcp_port(under_test.port)).buffer_bytes(bytes);
    Ok(under_test.open()?.prepare(&plan)?)
}

/// Attaches a buffer to queues by the path under test, and looks where it is before and after.
pub(crate) fn pin(
    context: &Context<'_>,
    nic: &Prepared,
    queues: &[u32],
    buffer: &dyn Buffer,
) -> Result<Pin<Box<dyn Attached>>, Stop> {
    let mut importer = QueuesOf { path: context.path()?, nic: nic.nic().clone(), queues: queues.to_vec() };
    match Pin::new(&mut importer, buffer, Require::Anywhere) {
        Ok(pin) => Ok(pin),
        // The exporter has memory that cannot move, and the path takes no other.
        Err(error) if context.path()?.is_refusal_of_exporter(&error) => Err(Stop::skip(&error)),
        Err(error) => Err(error.into()),
    }
}

/// Accepts a connection. A queue without pages would keep the check waiting for ever.
pub(crate) fn accepted(listener: &TcpListener) -> Result<TcpStream, Stop> {
    ensure!(
        is_ready(listener, PATIENCE)?,
        "the peer's connection did not arrive within {} s",
        PATIENCE.as_secs()
    );
    Ok(listener.accept()?.0)
}

/// Waits at most `limit` until there is something to receive or to accept, or the stream has ended. Returns whether
/// there is.
pub(crate) fn is_ready(socket: &impl AsFd, limit: Duration) -> Result<bool, Stop> {
    let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX);
        match poll(&mut ready, timeout) {
            Ok(count) => return Ok(count == 1),
            // A ring of io_uring that is being closed interrupts the threads that have used it.
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(std::io::Error::from(errno).into()),
        }
    }
}

/// A connection, and how far it was read.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) incoming: Box<dyn Incoming>,
    /// The peer's script, until its end was waited for.
    running: Option<Running>,
    /// The next byte of the stream.
    pub(crate) position: u64,
    /// The same connection, for what `incoming` does not do, such as sending.
    pub(crate) socket: TcpStream,
    /// The next byte of the stream that is sent.
    answered: u64,
}

impl Connection {
    /// Reads once. Checks every byte, and returns where they lie; `None` at the end.
    pub(crate) fn read(&mut self, mapping: &Mapping) -> Result<Option<Vec<Place>>, Stop> {
        let Some(pieces) = self.incoming.next()? else { return Ok(None) };
        let end = compared(&pieces, self.position, mapping)?;
        self.position = end;
        Ok(Some(places(&pieces)))
    }

    /// Reads to the end, giving everything back, and checks that `bytes` bytes have arrived in all.
    pub(crate) fn drain(&mut self, mapping: &Mapping, bytes: u64) -> Result<(), Stop> {
        while let Some(places) = self.read(mapping)? {
            self.incoming.release(&places)?;
        }
        ensure!(self.position == bytes, "{} of {bytes} bytes arrived", self.position);
        Ok(self.incoming.flush()?)
    }

    /// Lets the peer's script go on behind a barrier.
    pub(crate) fn proceed(&self) -> Result<(), Stop> {
        let running = self.running.as_ref().ok_or_else(|| Stop::fail("the peer's script has ended"))?;
        Ok(running.proceed()?)
    }

    /// Sends the peer the next `bytes` bytes of the pattern.
    pub(crate) fn answer(&mut self, bytes: u64) -> Result<(), Stop> {
        let mut content = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        fill(self.answered, &mut content);
        self.socket.write_all(&content)?;
        self.answered += bytes;
        Ok(())
    }

    /// Closes this side and waits for the end of the peer's script, which must have gone well.
    pub(crate) fn finish(self) -> Result<(), Stop> {
        self.ended().map(drop)
    }

    /// As [`finish`](Self::finish), and says what the peer tells of its script.
    pub(crate) fn ended(mut self) -> Result<Told, Stop> {
        let running = self.running.take();
        drop(self);
        let running = running.ok_or_else(|| Stop::fail("the peer's script has ended"))?;
        let told = running.finish(PATIENCE)?;
        match told.failure {
            None => Ok(told),
            Some(failure) => Err(Stop::fail(format!("the peer: {failure:?}"))),
        }
    }
}

/// Where the fragments among `pieces` lie.
pub(crate) fn places(pieces: &[Piece]) -> Vec<Place> {
    let place = |piece: &Piece| match piece {
        Piece::Fragment(place) => Some(*place),
        Piece::Linear(_) => None,
    };
    pieces.iter().filter_map(place).collect()
}

/// Compares what was received with the pattern from `position` on. Returns where the stream goes on.
pub(crate) fn compared(pieces: &[Piece], mut position: u64, mapping: &Mapping) -> Result<u64, Stop> {
    let access = mapping.read()?;
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    for piece in pieces {
        let length = piece.length();
        found.resize(length, 0);
        expected.resize(length, 0);
        match piece {
            Piece::Linear(bytes) => found.copy_from_slice(bytes),
            Piece::Fragment(place) => {
                let offset = usize::try_from(place.offset).unwrap_or(usize::MAX);
                access.copy_to(offset, &mut found)?;
            }
        }
        fill(position, &mut expected);
        let wrong = found.iter().zip(&expected).position(|(found, expected)| found != expected);
        if let Some(wrong) = wrong {
            return Err(Stop::fail(format!(
                "byte {} of the stream is {:#04x} and not {:#04x}, at byte {wrong} of {}",
                position + wrong as u64,
                found[wrong],
                expected[wrong],
                describe(piece)
            )));
        }
        position += length as u64;
    }
    access.finish()?;
    Ok(position)
}

fn describe(piece: &Piece) -> String {
    match piece {
        Piece::Fragment(place) => format!("a fragment of {} bytes at {:#x}", place.length, place.offset),
        Piece::Linear(bytes) => format!("{} linear bytes", bytes.len()),
    }
}
