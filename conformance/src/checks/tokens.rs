//! Giving memory back to the NIC.

use crate::check::Check;

pub(super) const CHECKS: &[Check] = &[];
