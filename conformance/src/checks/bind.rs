//! Binding memory to queues of a NIC, and what the kernel refuses.

use crate::check::Check;

pub(super) const CHECKS: &[Check] = &[];
