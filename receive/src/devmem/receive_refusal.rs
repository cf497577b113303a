//! Why a receive fails, or what it brought is refused.

use std::borrow::Cow;

use devmem_provider::{Error, ErrorKind};
use nix::errno::Errno;

use super::uapi;

const OPERATION: &str = "receive into device memory";

/// The kernel or the NIC did something that cannot be.
pub(super) fn protocol(reason: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Protocol, OPERATION).because(reason)
}

/// Data of another binding's queues.
pub(super) fn wrong_binding(found: u32, expected: u32) -> Error {
    protocol(format!("a fragment came through binding {found} instead of {expected}"))
        .remedy("steer this connection's packets to the queues of its own binding")
}

/// A place that the buffer does not have.
pub(super) fn outside_buffer(message: uapi::DmabufMessage, buffer_bytes: u64) -> Error {
    protocol(format!(
        "the kernel reports {} bytes at offset {} of a buffer of {buffer_bytes} bytes",
        message.fragment_size, message.fragment_offset
    ))
}

/// What an error number of the kernel means.
pub(super) fn receive_error(number: i32) -> Error {
    match number {
        uapi::ETOOSMALL => Error::new(ErrorKind::InvalidInput, OPERATION)
            .because("the control buffer has no room for a single message (kernel error 525, ETOOSMALL)")
            .remedy("allow more fragments per receive"),
        libc::EFAULT => Error::from_errno(Errno::EFAULT, OPERATION)
            .with_kind(ErrorKind::Protocol)
            .because("the data came through another memory provider than devmem TCP"),
        libc::ECONNRESET | libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETDOWN => {
            Error::from_errno(Errno::from_raw(number), OPERATION)
                .with_kind(ErrorKind::Gone)
                .because("the connection is lost")
        }
        _ => Error::from_errno(Errno::from_raw(number), OPERATION),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_says_that_the_connection_is_lost() {
        let error = receive_error(libc::ECONNRESET);
        assert_eq!(error.kind(), ErrorKind::Gone);
        let error = receive_error(uapi::ETOOSMALL);
        assert!(error.to_string().contains("525"), "{error}");
    }
}
