//! What the kernel counted on a connection.

use std::io::Result;
use std::net::TcpStream;
use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};

use super::sys::tcp_info;

/// What the kernel counted on a connection so far: what became of packets on the way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Segments that this side has sent again.
    pub(crate) sent_again: u32,
    /// Segments of this side that the other side said to have had already (D-SACK, RFC 2883).
    pub(crate) had_already: u32,
    /// Segments of the other side that arrived before others that were sent earlier.
    pub(crate) out_of_order: u32,
}

impl Counts {
    /// The counts of this connection.
    pub(crate) fn of(connection: &TcpStream) -> Result<Self> {
        let info = tcp_info(connection.as_fd())?;
        Ok(Self {
            sent_again: info.tcpi_total_retrans,
            had_already: info.tcpi_dsack_dups,
            out_of_order: info.tcpi_rcv_ooopack,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn the_structure_is_the_kernels() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut other, _) = listener.accept().unwrap();
        connection.write_all(&[7; 5000]).unwrap();
        other.read_exact(&mut [0; 5000]).unwrap();
        assert_eq!(tcp_info(other.as_fd()).unwrap().tcpi_bytes_received, 5000);
        assert_eq!(Counts::of(&connection).unwrap(), Counts::default());
    }
}
