//! What outlives what, and what is torn away meanwhile.

use crate::check::Check;

pub(super) const CHECKS: &[Check] = &[];
