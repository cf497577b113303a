//! Accepting the connections of one transfer, and receiving them at once.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::connection::{Received, Session};
use super::listener::Listener;
use super::summary::Totals;
use crate::transfer::Header;

/// What a receiving thread tells.
enum Event {
    Header(Header),
    End(Box<Result<Received>>),
}

/// Receives all stripes of one file. The first one's header says how many there are.
pub(crate) fn receive_all(session: &Session<'_>, listener: &Listener) -> Result<Totals> {
    let (sender, events) = mpsc::channel();
    let mut sockets: Vec<TcpStream> = Vec::new();
    std::thread::scope(|scope| {
        let start = |sockets: &mut Vec<TcpStream>| -> Result<()> {
            let socket = listener.accept(session.idle_limit)?;
            sockets.push(socket.try_clone().context("cannot duplicate a socket")?);
            let sender = sender.clone();
            scope.spawn(move || receive_one(session, socket, &sender));
            Ok(())
        };
        let outcome = (|| {
            start(&mut sockets)?;
            let started = Instant::now();
            let mut expected = 1;
            let mut received = Vec::new();
            while received.len() < expected {
                match events.recv().context("the receiving threads ended")? {
                    Event::End(result) => received.push((*result)?),
                    Event::Header(header) => {
                        let stripes = usize::try_from(header.stripes)?;
                        session.connections.store(stripes, Ordering::Relaxed);
                        session.bar.set_length(header.file_bytes);
                        expected = stripes;
                        while sockets.len() < expected {
                            start(&mut sockets)?;
                        }
                    }
                }
            }
            Ok(Totals { received: in_order(received)?, elapsed: started.elapsed() })
        })();
        if outcome.is_err() {
            // The other threads wait for data that nobody wants any more.
            for socket in &sockets {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
        outcome
    })
}

fn receive_one(session: &Session<'_>, socket: TcpStream, events: &Sender<Event>) {
    // Nobody listens any more after the first error; there is nothing left to tell then.
    let result = session.receive(socket, |header| drop(events.send(Event::Header(*header))));
    drop(events.send(Event::End(Box::new(result))));
}

/// The stripes in the order of the file, if they are all stripes of one file.
fn in_order(mut received: Vec<Received>) -> Result<Vec<Received>> {
    received.sort_unstable_by_key(|received| received.stripe.header.stripe);
    let headers: Vec<&Header> = received.iter().map(|received| &received.stripe.header).collect();
    let Some(first) = headers.first() else { bail!("no stripe was received") };
    let expected = Header::split(first.transfer, first.file_bytes, first.stripes, first.digest);
    if !headers.into_iter().eq(&expected) {
        bail!("the connections belong to different transfers; let one sender send at a time");
    }
    Ok(received)
}
