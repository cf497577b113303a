//! Receiving one TCP connection into a bound buffer.

use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use devmem_provider::{Error, ErrorKind, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::control_messages::{ControlMessage, ControlMessages};
use super::options::StreamOptions;
use super::parts::Parts;
use super::receive_refusal::{outside_buffer, protocol, receive_error, wrong_binding};
use super::statistics::Statistics;
use super::tokens::PendingTokens;
use super::uapi;
use crate::stream::Fragment;

/// A TCP connection whose payload lands in a bound buffer.
///
/// [`next`](Self::next) yields the stream's bytes in order, wherever they lie: most as [`Fragment`]s in the
/// buffer, some as linear bytes in host memory. Give fragments back with [`release`](Self::release) when
/// nothing reads them any more; a NIC whose buffer is all held drops packets until some come back, and
/// the sender repeats them. Dropping the stream closes the connection, and the kernel takes back whatever
/// was not released.
///
/// After the first calls nothing is allocated. While data flows, a receive and a release of 4 MiB take two
/// system calls.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    binding: u32,
    buffer_bytes: u64,
    options: StreamOptions,
    linear: Box<[u8]>,
    control: Box<[u64]>,
    /// How much of `linear` and `control` a receive may use.
    batch_bytes: usize,
    batch_words: usize,
    pending: PendingTokens,
    statistics: Statistics,
    at_end: bool,
}

impl Stream {
    /// Receives `socket` through the binding with the number `binding` to a buffer of `buffer_bytes`.
    pub(super) fn new(
        socket: TcpStream,
        binding: u32,
        buffer_bytes: u64,
        options: StreamOptions,
    ) -> Result<Self> {
        // Without lingering a receive blocks until there is data, and returns what there is.
        let linger = (!options.linger.is_zero()).then_some(options.linger);
        let set_up = |error| Error::from_io(error, "set the socket up for receiving");
        socket.set_nonblocking(false).map_err(set_up)?;
        socket.set_read_timeout(linger).map_err(set_up)?;
        // The kernel writes linear bytes only where there are any, so that the pages of this large buffer
        // stay untouched, and cost nothing, while the NIC does its job.
        let linear = vec![0; options.batch_bytes].into_boxed_slice();
        let control_words = control_words(options.batch_fragments);
        Ok(Self {
            socket,
            binding,
            buffer_bytes,
            options,
            linear,
            control: vec![0; control_words].into_boxed_slice(),
            batch_bytes: options.batch_bytes,
            batch_words: control_words,
            pending: PendingTokens::new(),
            statistics: Statistics::default(),
            at_end: false,
        })
    }

    /// Waits for the next bytes. `None` is the end of the stream.
    ///
    /// Gives back first what was released.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Gone`] if the peer reset the connection, or nothing came within the idle limit;
    /// [`ErrorKind::Protocol`] if a fragment came through another binding (flow steering is wrong) or lies
    /// outside the buffer. After an error other than that of the idle limit the stream is no longer whole, and
    /// the connection should be dropped.
    #[expect(clippy::should_implement_trait, reason = "the parts borrow the stream")]
    pub fn next(&mut self) -> Result<Option<Parts<'_>>> {
        if self.at_end {
            return Ok(None);
        }
        self.flush()?;
        let gather = if self.options.linger.is_zero() { 0 } else { libc::MSG_WAITALL };
        let received = self.receive(gather)?;
        if received.bytes == 0 {
            self.at_end = true;
            return Ok(None);
        }
        let parts = self.check(received)?;
        self.statistics.fragments += parts.fragments;
        self.statistics.fragment_bytes += parts.fragment_bytes;
        self.statistics.linear_bytes += parts.linear_bytes;
        Ok(Some(self.parts(received, parts)))
    }

    /// Shows the next bytes without taking them: [`next`](Self::next) yields them again.
    ///
    /// The kernel hands out real tokens for what it shows, so that these fragments must be released as well.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub fn peek(&mut self) -> Result<Option<Parts<'_>>> {
        if self.at_end {
            return Ok(None);
        }
        self.flush()?;
        let received = self.receive(libc::MSG_PEEK | libc::MSG_DONTWAIT)?;
        if received.bytes == 0 {
            return Ok(None);
        }
        let parts = self.check(received)?;
        Ok(Some(self.parts(received, parts)))
    }

    fn receive(&mut self, flags: libc::c_int) -> Result<uapi::Received> {
        loop {
            self.statistics.receive_calls += 1;
            let linear = &mut self.linear[..self.batch_bytes];
            let control = &mut self.control[..self.batch_words];
            let flags = flags | uapi::MSG_SOCK_DEVMEM;
            match uapi::receive_message(self.socket.as_fd(), linear, control, flags) {
                Ok(received) => return Ok(received),
                Err(libc::EINTR) => {}
                // The linger time passed without a byte, or nothing is there yet.
                Err(libc::EAGAIN) => self.wait_readable()?,
                Err(number) => return Err(receive_error(number)),
            }
        }
    }

    fn wait_readable(&mut self) -> Result<()> {
        self.statistics.poll_calls += 1;
        let timeout = match self.options.idle_limit {
            None => PollTimeout::NONE,
            Some(limit) => PollTimeout::try_from(limit.as_millis()).unwrap_or(PollTimeout::MAX),
        };
        let mut watched = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, timeout) {
            Ok(0) => Err(Error::new(ErrorKind::Gone, "wait for data").because(format!(
                "nothing arrived for {} s",
                self.options.idle_limit.unwrap_or_default().as_secs_f64()
            ))),
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(Error::from_errno(errno, "wait for data")),
        }
    }

    /// Reads the control messages once to know that they are whole, before anything is handed out.
    fn check(&mut self, received: uapi::Received) -> Result<Sums> {
        let mut sums = Sums::default();
        let mut refused = None;
        for message in ControlMessages::new(uapi::control_bytes(&self.control, received.control_length)) {
            match message {
                Ok(ControlMessage::Fragment(message)) => {
                    let end = message.fragment_offset.checked_add(message.fragment_size.into());
                    if message.dmabuf_id != self.binding {
                        refused = Some(wrong_binding(message.dmabuf_id, self.binding));
                    } else if end.is_none_or(|end| end > self.buffer_bytes) {
                        refused = Some(outside_buffer(message, self.buffer_bytes));
                    }
                    sums.fragments += 1;
                    sums.fragment_bytes += u64::from(message.fragment_size);
                }
                Ok(ControlMessage::Linear(length)) => sums.linear_bytes += u64::from(length),
                Ok(ControlMessage::Other { .. }) => {}
                Err(malformed) => {
                    refused = Some(protocol(malformed.to_string()));
                    break;
                }
            }
        }
        // A packet that the NIC steered to an unbound queue arrives like any other: in host memory, with
        // no message about it.
        if sums.fragments == 0 && sums.linear_bytes == 0 {
            sums.linear_bytes = received.bytes as u64;
            sums.unmarked = true;
        }
        if refused.is_none() && sums.fragment_bytes + sums.linear_bytes != received.bytes as u64 {
            refused = Some(protocol("the control messages do not add up to the bytes received"));
        }
        if refused.is_none() && sums.linear_bytes > self.linear.len() as u64 {
            refused = Some(protocol("more linear bytes were reported than there is room for"));
        }
        match refused {
            None => Ok(sums),
            Some(error) => {
                // What was handed out with the bad message must go back, or it is lost to the NIC.
                self.release_received(received)?;
                Err(error)
            }
        }
    }

    fn release_received(&mut self, received: uapi::Received) -> Result<()> {
        // Taken out for the walk, so that releasing may borrow `self`; an empty box allocates nothing.
        let control = std::mem::take(&mut self.control);
        let messages = ControlMessages::new(uapi::control_bytes(&control, received.control_length));
        let fragments = messages.map_while(|message| message.ok()).filter_map(|message| match message {
            ControlMessage::Fragment(message) => Some(Fragment::from(message)),
            ControlMessage::Linear(_) | ControlMessage::Other { .. } => None,
        });
        let result = self.release(fragments).and_then(|()| self.flush());
        self.control = control;
        result
    }

    fn parts(&self, received: uapi::Received, sums: Sums) -> Parts<'_> {
        Parts {
            messages: ControlMessages::new(uapi::control_bytes(&self.control, received.control_length)),
            linear: &self.linear[..sums.linear_bytes as usize],
            unmarked: sums.unmarked,
            bytes: received.bytes,
        }
    }

    /// Gives fragments back to the NIC.
    ///
    /// They are gathered, and given back in as few calls as possible: when 1024 have come together, before
    /// the next receive, and on [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the kernel released fewer fragments than it was given: one was
    /// released twice or belongs to another connection. The others are released nevertheless.
    pub fn release(&mut self, fragments: impl IntoIterator<Item = Fragment>) -> Result<()> {
        for fragment in fragments {
            if self.pending.push(fragment.token) {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Gives back now what was released.
    ///
    /// # Errors
    ///
    /// As [`release`](Self::release).
    pub fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let socket = self.socket.as_fd();
        let drained = self
            .pending
            .drain(|ranges| uapi::release_tokens(socket, ranges))
            .map_err(|number| Error::from_errno(Errno::from_raw(number), "give fragments back to the NIC"))?;
        self.statistics.release_calls += drained.calls as u64;
        self.statistics.released += drained.released as u64;
        if drained.released != drained.offered {
            return Err(Error::new(ErrorKind::InvalidInput, "give fragments back to the NIC").because(format!(
                "the kernel knew only {} of {}: some were released before or belong to another connection",
                drained.released, drained.offered
            )));
        }
        Ok(())
    }

    /// Changes what one receive gathers, up to what the stream was made with: at most `bytes` bytes, and at
    /// most as many fragments as fill that many bytes with whole pages, since small packets take a page
    /// each. For connections that come to share a buffer after this one began.
    pub fn limit_batch(&mut self, bytes: usize) {
        self.batch_bytes = bytes.clamp(1, self.linear.len());
        self.batch_words = control_words(self.options.fragments_for(bytes));
    }

    /// Changes how long the next bytes are waited for.
    ///
    /// A peer whose packets found no memory left sends them again after it has waited longer each time, so that it
    /// may take as long again as the buffer was held until it is heard of.
    pub fn limit_idle(&mut self, limit: Duration) {
        self.options.idle_limit = Some(limit);
    }

    /// What has been done so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// The connection.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }
}

/// The room for the messages of so many fragments, in words of the control buffer.
fn control_words(fragments: usize) -> usize {
    (fragments * uapi::MESSAGE_SPACE).div_ceil(size_of::<u64>())
}

/// What a receive's control messages add up to.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    fragments: u64,
    fragment_bytes: u64,
    linear_bytes: u64,
    /// The linear bytes came without a message.
    unmarked: bool,
}

#[cfg(test)]
mod tests {
    use super::super::control_messages::tests::{encode, payload};
    use super::*;
    use crate::stream::Part;
    use nix::sys::socket::MsgFlags;
    use std::io::Write;
    use std::net::TcpListener;

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (sender, listener.accept().unwrap().0)
    }

    fn stream(socket: TcpStream) -> Stream {
        Stream::new(socket, 7, 1 << 20, StreamOptions::default()).unwrap()
    }

    /// Puts `messages` where the kernel would have written them.
    fn answered(
        stream: &mut Stream,
        bytes: usize,
        messages: &[(i32, uapi::DmabufMessage)],
    ) -> uapi::Received {
        let messages: Vec<_> =
            messages.iter().map(|(kind, message)| (libc::SOL_SOCKET, *kind, payload(*message))).collect();
        let encoded = encode(&messages);
        for (word, bytes) in stream.control.iter_mut().zip(encoded.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().unwrap());
        }
        uapi::Received { bytes, control_length: encoded.len(), flags: MsgFlags::empty() }
    }

    fn message(offset: u64, size: u32, token: u32) -> uapi::DmabufMessage {
        uapi::DmabufMessage {
            fragment_offset: offset,
            fragment_size: size,
            fragment_token: token,
            dmabuf_id: 7,
            flags: 0,
        }
    }

    #[test]
    fn data_that_never_saw_the_nic_is_linear_and_the_end_is_seen_once() {
        let (mut sender, socket) = connection();
        let mut stream = stream(socket);
        sender.write_all(b"host memory").unwrap();
        drop(sender);
        let parts: Vec<_> = stream.next().unwrap().unwrap().collect();
        assert_eq!(parts, [Part::Linear(b"host memory")]);
        assert!(stream.next().unwrap().is_none());
        assert!(stream.next().unwrap().is_none());
        assert_eq!(stream.statistics().linear_bytes, 11);
        assert_eq!(stream.statistics().fragment_bytes, 0);
    }

    #[test]
    fn a_peek_leaves_the_bytes_in_the_stream() {
        let (mut sender, socket) = connection();
        let mut stream = stream(socket);
        sender.write_all(b"twice").unwrap();
        assert_eq!(stream.peek().unwrap().unwrap().collect::<Vec<_>>(), [Part::Linear(b"twice")]);
        drop(sender);
        assert_eq!(stream.next().unwrap().unwrap().collect::<Vec<_>>(), [Part::Linear(b"twice")]);
        assert_eq!(stream.statistics().bytes(), 5);
    }

    #[test]
    fn fragments_and_linear_bytes_keep_their_order() {
        let (_sender, socket) = connection();
        let mut stream = stream(socket);
        stream.linear[..5].copy_from_slice(b"abcde");
        let received = answered(
            &mut stream,
            4101,
            &[
                (libc::SCM_DEVMEM_LINEAR, message(0, 2, 0)),
                (libc::SCM_DEVMEM_DMABUF, message(8192, 4096, 0)),
                (libc::SCM_DEVMEM_LINEAR, message(0, 3, 0)),
            ],
        );
        let sums = stream.check(received).unwrap();
        let parts: Vec<_> = stream.parts(received, sums).collect();
        let expected = Fragment { offset: 8192, length: 4096, token: 0 };
        assert_eq!(parts, [Part::Linear(b"ab"), Part::Fragment(expected), Part::Linear(b"cde")]);
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let (_sender, socket) = connection();
        let mut stream = stream(socket);
        let fragment = libc::SCM_DEVMEM_DMABUF;
        let beyond = (1 << 20) - 4095;
        let cases = [
            ("another binding", 4096, uapi::DmabufMessage { dmabuf_id: 8, ..message(0, 4096, 0) }),
            ("outside", 4096, message(beyond, 4096, 0)),
            ("overflow", 4096, message(u64::MAX, 4096, 0)),
            ("sum", 4097, message(0, 4096, 0)),
        ];
        for (name, bytes, message) in cases {
            let received = answered(&mut stream, bytes, &[(fragment, message)]);
            // Giving the fragment back fails on a connection that never saw device memory; either way the
            // stream ends in an error.
            assert!(stream.check(received).is_err(), "{name}");
        }
    }

    #[test]
    fn a_fragment_that_the_kernel_does_not_know_is_told() {
        let (_sender, socket) = connection();
        let mut stream = stream(socket);
        stream.release([Fragment { offset: 0, length: 1, token: 3 }]).unwrap();
        let error = stream.flush().unwrap_err();
        // Kernels before 6.12 do not know the option at all.
        assert!([ErrorKind::InvalidInput, ErrorKind::Unsupported].contains(&error.kind()), "{error}");
        stream.flush().unwrap();
    }

    #[test]
    fn a_batch_is_limited_within_what_the_stream_was_made_with() {
        let (_sender, socket) = connection();
        let options = StreamOptions::default().batch_bytes(1 << 20).batch_fragments(1);
        let mut stream = Stream::new(socket, 7, 1 << 20, options).unwrap();
        for (bytes, expected) in [(0, 1), (1, 1), (4096, 4096), (usize::MAX, 1 << 20)] {
            stream.limit_batch(bytes);
            assert_eq!((stream.batch_bytes, stream.batch_words), (expected, control_words(1)), "{bytes}");
        }
    }

    #[test]
    fn an_idle_connection_is_given_up() {
        let (_sender, socket) = connection();
        let options = StreamOptions::default().idle_limit(Duration::from_millis(1));
        let mut stream = Stream::new(socket, 7, 1 << 20, options).unwrap();
        assert_eq!(stream.next().unwrap_err().kind(), ErrorKind::Gone);
    }

    #[test]
    fn an_idle_connection_may_be_waited_for_again() {
        let (mut sender, socket) = connection();
        let mut stream = Stream::new(socket, 7, 1 << 20, StreamOptions::default()).unwrap();
        stream.limit_idle(Duration::from_millis(1));
        let idle = stream.next().unwrap_err().to_string();
        assert!(idle.contains("nothing arrived for 0.001 s"), "{idle}");
        stream.limit_idle(Duration::from_secs(60));
        sender.write_all(b"late").unwrap();
        drop(sender);
        assert!(matches!(stream.next().unwrap().unwrap().next(), Some(Part::Linear(b"late"))));
        assert!(stream.next().unwrap().is_none());
    }
}
