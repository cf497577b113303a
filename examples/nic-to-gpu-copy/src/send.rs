//! Sending a file, a stripe to a connection.

use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use devmem_receive::rdma::verbs::ProtectionDomain;
use indicatif::ProgressBar;

use crate::arguments::{SendOptions, SenderPath};
use crate::digest::{DigestKind, Hasher, Sha256Digest};
use crate::failure;
use crate::rdma;
use crate::receive::progress;
use crate::transfer::Header;

/// How much is read and sent at once.
const CHUNK: usize = 1 << 20;

/// How often a receiver that does not listen yet is tried.
const RETRY: Duration = Duration::from_millis(50);

/// Sends the file and prints a summary.
pub(crate) fn run(options: &SendOptions) -> Result<()> {
    let name = options.file.display();
    let file = File::open(&options.file).with_context(|| format!("cannot open {name}"))?;
    let metadata = file.metadata().with_context(|| format!("cannot look at {name}"))?;
    if !metadata.is_file() {
        bail!("cannot send {name}: it is no regular file; a stripe needs a size and a place to start");
    }
    let domain = match options.path {
        SenderPath::Tcp => None,
        SenderPath::Rdma => Some(rdma::Sender::prepare(&rdma::open(options.rdma.as_deref())?)?),
    };
    let transfer = transfer_number()?;
    let stripes = Header::split(transfer, metadata.len(), options.connections, options.digest());
    let bar = progress(Some(metadata.len()));
    let started = Instant::now();
    // The first failure; what comes of the other stripes follows from it.
    let failed = OnceLock::new();
    let sent = std::thread::scope(|scope| {
        let threads: Vec<_> = stripes
            .iter()
            .map(|header| {
                let (file, bar, domain, failed) = (&file, &bar, domain.as_ref(), &failed);
                scope.spawn(move || {
                    let sent = send_stripe(options, domain, header, file, bar, failed);
                    sent.map_err(|error| failed.set(error)).ok()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect::<Option<Vec<_>>>()
    });
    if let Some(error) = failed.into_inner() {
        return Err(error);
    }
    let Some(sent) = sent else { bail!("a sending thread panicked") };
    bar.finish_and_clear();
    summarise(options, &stripes, &sent, started.elapsed());
    Ok(())
}

fn transfer_number() -> Result<[u8; 16]> {
    let mut number = [0; 16];
    let random = File::open("/dev/urandom").context("cannot open /dev/urandom")?;
    std::io::Read::read_exact(&mut &random, &mut number).context("cannot read /dev/urandom")?;
    Ok(number)
}

/// Where a stripe goes.
enum Connection {
    Tcp(TcpStream),
    Rdma(Box<rdma::Sender>),
}

impl Connection {
    fn new(socket: TcpStream, domain: Option<&ProtectionDomain>, header: &Header) -> Result<Self> {
        Ok(match domain {
            Some(domain) => Self::Rdma(Box::new(rdma::Sender::connect(domain, socket, header)?)),
            None => Self::Tcp(socket),
        })
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Tcp(socket) => failure::of_connection_to_receiver(socket.write_all(bytes)),
            Self::Rdma(sender) => sender.send(bytes),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Tcp(mut socket) => {
                // The receiver closes when it has everything: waiting for that turns an abort on its side into an
                // error here.
                failure::of_connection_to_receiver(socket.shutdown(std::net::Shutdown::Write))?;
                failure::of_connection_to_receiver(std::io::Read::read(&mut socket, &mut [0]))?;
                Ok(())
            }
            Self::Rdma(sender) => sender.finish(),
        }
    }
}

fn send_stripe(
    options: &SendOptions,
    domain: Option<&ProtectionDomain>,
    header: &Header,
    file: &File,
    bar: &ProgressBar,
    failed: &OnceLock<anyhow::Error>,
) -> Result<Option<Sha256Digest>> {
    let to = || format!("cannot send to {}", options.connect);
    let socket = connect(options.connect, Duration::from_secs(options.wait), failed)?;
    let mut connection = Connection::new(socket, domain, header)?;
    connection.send(&header.encode()).with_context(to)?;
    let mut digest = header.digest.map(Hasher::new);
    let mut chunk = vec![0; CHUNK];
    let mut sent = 0;
    while sent < header.length {
        let length = usize::try_from(header.length - sent).map_or(CHUNK, |left| left.min(CHUNK));
        let bytes = &mut chunk[..length];
        file.read_exact_at(bytes, header.offset + sent)
            .with_context(|| format!("cannot read {}: it became shorter?", options.file.display()))?;
        if let Some(digest) = &mut digest {
            digest.update(&*bytes);
        }
        connection.send(bytes).with_context(to)?;
        sent += length as u64;
        bar.inc(length as u64);
    }
    let digest = digest.map(Hasher::finish);
    if let Some(digest) = &digest {
        connection.send(digest.as_bytes()).with_context(to)?;
    }
    connection.finish().with_context(to)?;
    Ok(digest)
}

/// Connects; tries again while nobody listens yet, until `wait` is over or the transfer has failed.
fn connect(address: SocketAddr, wait: Duration, failed: &OnceLock<anyhow::Error>) -> Result<TcpStream> {
    let deadline = Instant::now() + wait;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(RETRY);
        match TcpStream::connect_timeout(&address, left) {
            Ok(socket) => return Ok(socket),
            Err(_) if Instant::now() < deadline && failed.get().is_none() => std::thread::sleep(RETRY),
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("cannot connect to {address}; start `nic-to-gpu-copy receive --listen {address}` there")
                });
            }
        }
    }
}

fn summarise(options: &SendOptions, stripes: &[Header], sent: &[Option<Sha256Digest>], elapsed: Duration) {
    let bytes = stripes.first().map_or(0, |header| header.file_bytes);
    let kind = options.digest();
    if options.json {
        let stripes: Vec<_> = stripes
            .iter()
            .zip(sent)
            .map(|(header, digest)| {
                let sha256 = digest.filter(|_| kind == Some(DigestKind::Sha256));
                serde_json::json!({
                    "offset": header.offset, "length": header.length, "sha256": sha256, "digest": digest,
                })
            })
            .collect();
        println!(
            "{}",
            serde_json::json!({
                "file_bytes": bytes,
                "connections": stripes.len(),
                "digest": kind.map(DigestKind::name),
                "path": match options.path {
                    SenderPath::Tcp => "tcp",
                    SenderPath::Rdma => "rdma",
                },
                "stripes": stripes,
                "seconds": elapsed.as_secs_f64(),
            })
        );
        return;
    }
    println!("sent {bytes} bytes over {} connections in {:.2} s", stripes.len(), elapsed.as_secs_f64());
    let Some(kind) = kind else { return };
    for (header, digest) in stripes.iter().zip(sent) {
        if let Some(digest) = digest {
            let end = header.offset + header.length;
            println!("  {} {digest}  bytes {}..{end}", kind.name(), header.offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_waited_for_when_the_transfer_has_failed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let failed = OnceLock::from(anyhow::anyhow!("another stripe was refused"));
        let error = connect(address, Duration::from_secs(3600), &failed).unwrap_err();
        assert!(error.to_string().contains("cannot connect to 127.0.0.1"), "{error}");
    }
}
