//! Doing a script, step after step.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::connecting::connected;
use super::control::Control;
use super::counts::Counts;
use super::script::{Failure, READ_LIMIT, Script, Step, Told, fill};

/// How long a read or write may take, and the wait at a barrier. A script of a check that has failed would wait for ever.
const LIMIT: Duration = Duration::from_secs(60);

/// The most that is written in one call, in bytes.
const LARGEST_CHUNK: usize = 1 << 20;

/// Does a script from its beginning to its end.
pub(super) fn perform(script: &Script, control: &Control) -> Told {
    let mut told = Told::default();
    let failed =
        |step, error: Error| Some(Failure { step, errno: error.raw_os_error(), text: error.to_string() });
    let connection = match connection(script, control) {
        Ok(connection) => connection,
        Err(error) => {
            told.failure = failed(None, error);
            return told;
        }
    };
    for (index, step) in script.steps.iter().enumerate() {
        if let Err(error) = take(step, &connection, control, &mut told) {
            told.failure = failed(Some(index), error);
            break;
        }
    }
    // Nothing else than a kernel that does not count says an error here.
    told.counts = Counts::of(&connection).unwrap_or_default();
    told
}

fn connection(script: &Script, control: &Control) -> Result<Arc<TcpStream>> {
    let connection = Arc::new(connected(script, control)?);
    connection.set_read_timeout(Some(LIMIT))?;
    connection.set_write_timeout(Some(LIMIT))?;
    control.connected(&connection)?;
    Ok(connection)
}

fn take(step: &Step, mut connection: &TcpStream, control: &Control, told: &mut Told) -> Result<()> {
    match *step {
        Step::Write { bytes, chunk } => {
            let mut buffer = vec![0; (chunk as usize).clamp(1, LARGEST_CHUNK)];
            let mut left = bytes;
            while left > 0 {
                let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let chunk = &mut buffer[..length];
                fill(told.written, chunk);
                connection.write_all(chunk)?;
                told.written += length as u64;
                left -= length as u64;
            }
            Ok(())
        }
        Step::Pause { milliseconds } => control.pause(Duration::from_millis(milliseconds.into())),
        Step::FinishWriting => connection.shutdown(Shutdown::Write),
        Step::Read { bytes } => compare(connection, bytes, told),
        Step::AwaitEnd => {
            let mut buffer = [0; 4096];
            while told.read <= READ_LIMIT {
                let length = connection.read(&mut buffer)?;
                if length == 0 {
                    return Ok(());
                }
                told.read += length as u64;
            }
            Err(Error::new(ErrorKind::InvalidData, "the other side sends without end"))
        }
        Step::Reset => {
            let linger = libc::linger { l_onoff: 1, l_linger: 0 };
            // It takes effect when the connection is closed, which is at the end of the script.
            Ok(setsockopt(&connection, sockopt::Linger, &linger)?)
        }
        Step::Barrier => control.wait_at_barrier(LIMIT),
    }
}

fn compare(mut connection: &TcpStream, bytes: u64, told: &mut Told) -> Result<()> {
    let (mut found, mut expected) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut left = bytes;
    while left > 0 {
        let length = found.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let (found, expected) = (&mut found[..length], &mut expected[..length]);
        connection.read_exact(found)?;
        fill(told.read, expected);
        if let Some(wrong) = found.iter().zip(&*expected).position(|(found, expected)| found != expected) {
            let place = told.read + wrong as u64;
            return Err(Error::new(ErrorKind::InvalidData, format!("byte {place} is not what was to come")));
        }
        told.read += length as u64;
        left -= length as u64;
    }
    Ok(())
}
