//! The host's calls to the system that Rust cannot check.

use std::os::fd::{AsRawFd, OwnedFd};

use crate::protocol::description::WindowSize;

/// The size of a terminal in characters.
pub(super) fn window_size(terminal: &OwnedFd) -> Option<WindowSize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request writes one `winsize`, which the reference points to.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_row > 0 && size.ws_col > 0)
        .then_some(WindowSize { rows: size.ws_row, columns: size.ws_col })
}
