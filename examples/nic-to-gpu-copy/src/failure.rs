//! What went wrong, in one line.

use std::io;

use anyhow::Context;
use devmem_provider::Error;

/// The line: what was tried, and every cause. Errors of devmem tell their own causes.
pub(crate) fn line(error: &anyhow::Error) -> String {
    let mut words = Vec::new();
    for cause in error.chain() {
        words.push(cause.to_string());
        if cause.is::<Error>() {
            break;
        }
    }
    words.join(": ")
}

/// Whether the peer has closed the connection. One that closes it with bytes unread resets it.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

/// What a sender tells when its connection fails.
pub(crate) fn of_connection_to_receiver<T>(result: io::Result<T>) -> anyhow::Result<T> {
    match result {
        Err(error) if is_gone(&error) => Err(error).context(RECEIVER_GAVE_UP),
        result => result.context("the connection is lost"),
    }
}

/// The reason is the receiver's, which has no way to say it here.
pub(crate) const RECEIVER_GAVE_UP: &str = "the receiver gave up; it tells the reason on its side";

#[cfg(test)]
mod tests {
    use super::*;
    use devmem_provider::ErrorKind;

    #[test]
    fn no_cause_is_told_twice() {
        let cause = Error::from_io(std::io::Error::other("the disk is wet"), "write");
        assert!(cause.to_string().contains("the disk is wet"), "{cause}");
        let error = anyhow::Error::new(cause).context("copy the file");
        let line = line(&error);
        assert_eq!(line.matches("the disk is wet").count(), 1, "{line}");
        assert!(line.starts_with("copy the file: cannot write"), "{line}");
    }

    #[test]
    fn that_the_receiver_closed_is_told_with_the_kernels_words() {
        let told = |error| line(&of_connection_to_receiver::<()>(Err(error)).unwrap_err());
        for number in [libc::ECONNRESET, libc::EPIPE, libc::ENOTCONN] {
            let line = told(io::Error::from_raw_os_error(number));
            let expected = format!("{RECEIVER_GAVE_UP}: ");
            assert!(line.starts_with(&expected) && line.ends_with(&format!("(os error {number})")), "{line}");
        }
        let line = told(io::Error::from_raw_os_error(libc::EHOSTUNREACH));
        assert!(line.starts_with("the connection is lost: "), "{line}");
    }

    #[test]
    fn causes_of_others_are_told() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        let error = anyhow::Error::new(missing).context("open it").context("copy");
        assert!(line(&error).starts_with("copy: open it: "), "{error:#}");
        let error = anyhow::Error::new(Error::new(ErrorKind::Gone, "receive").with_source(std::fmt::Error));
        assert_eq!(line(&error), error.to_string());
    }
}
