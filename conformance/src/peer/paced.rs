//! A connection whose other side is waited for only so long, whatever it sends or does not.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

/// How long the rest of a message may take once it has begun, and a write.
const MESSAGE: Duration = Duration::from_secs(10);

/// A machine that is gone is noticed after about 30 s: seconds of silence, seconds between questions, questions.
const KEEP_ALIVE: (u32, u32, u32) = (15, 5, 3);

/// A connection whose other side is waited for only so long.
#[derive(Debug)]
pub(super) struct Paced {
    stream: TcpStream,
    pace: Pace,
}

#[derive(Debug, Clone, Copy)]
enum Pace {
    /// Everything must be there at this moment.
    Until(Instant),
    /// A message must begin within `idle`; it must be whole at `deadline`, which is there once it has begun.
    Messages { idle: Duration, deadline: Option<Instant> },
}

impl Paced {
    /// A connection on which everything must be said within `limit`.
    pub(super) fn within(stream: TcpStream, limit: Duration) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(MESSAGE))?;
        setsockopt(&stream, sockopt::KeepAlive, &true)?;
        setsockopt(&stream, sockopt::TcpKeepIdle, &KEEP_ALIVE.0)?;
        setsockopt(&stream, sockopt::TcpKeepInterval, &KEEP_ALIVE.1)?;
        setsockopt(&stream, sockopt::TcpKeepCount, &KEEP_ALIVE.2)?;
        Ok(Self { stream, pace: Pace::Until(Instant::now() + limit) })
    }

    /// From now on both sides send a message each in turn, and the other side's begins within `idle`.
    pub(super) fn with_messages_within(self, idle: Duration) -> Self {
        Self { pace: Pace::Messages { idle, deadline: None }, ..self }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn left(&self) -> Duration {
        match self.pace {
            Pace::Until(deadline) | Pace::Messages { deadline: Some(deadline), .. } => {
                deadline.saturating_duration_since(Instant::now())
            }
            Pace::Messages { idle, deadline: None } => idle,
        }
    }
}

impl Read for Paced {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        let late = || Error::new(ErrorKind::TimedOut, "the other side said nothing for too long");
        let left = self.left();
        if left.is_zero() {
            return Err(late());
        }
        self.stream.set_read_timeout(Some(left))?;
        let length = self.stream.read(bytes).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => late(),
            _ => error,
        })?;
        if let Pace::Messages { deadline, .. } = &mut self.pace {
            deadline.get_or_insert_with(|| Instant::now() + MESSAGE);
        }
        Ok(length)
    }
}

impl Write for Paced {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if let Pace::Messages { deadline, .. } = &mut self.pace {
            *deadline = None;
        }
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const MOMENT: Duration = Duration::from_millis(50);

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    #[test]
    fn one_who_says_nothing_is_not_waited_for() {
        let (_silent, stream) = pair();
        let mut paced = Paced::within(stream, MOMENT).unwrap();
        assert_eq!(paced.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
        let mut paced = paced.with_messages_within(MOMENT);
        assert_eq!(paced.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn one_who_says_a_little_now_and_then_is_not_waited_for_either() {
        let (mut slow, stream) = pair();
        let mut paced = Paced::within(stream, MOMENT).unwrap();
        let thread = std::thread::spawn(move || {
            while slow.write_all(&[7]).is_ok() {
                std::thread::sleep(MOMENT / 10);
            }
        });
        assert_eq!(paced.read_exact(&mut [0; 1000]).unwrap_err().kind(), ErrorKind::TimedOut);
        drop(paced);
        thread.join().unwrap();
    }

    #[test]
    fn a_message_that_has_begun_has_its_own_time() {
        let (mut one, stream) = pair();
        let mut paced = Paced::within(stream, MOMENT).unwrap().with_messages_within(MOMENT);
        one.write_all(&[7]).unwrap();
        paced.read_exact(&mut [0]).unwrap();
        assert!(paced.left() > MESSAGE / 2 && paced.left() <= MESSAGE);
        paced.write_all(&[7]).unwrap();
        assert_eq!(paced.left(), MOMENT);
    }
}
