//! A check: a named unit with what it proves, what it needs, and how long it may take.

use std::fmt;
use std::time::Duration;

use crate::context::Context;
use crate::faults::Fault;
use crate::need::Need;
use crate::verdict::Outcome;

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Group {
    /// Who a provider says that it is, and what memory it has.
    Identity,
    /// Allocating.
    Allocate,
    /// DMA-bufs: same object, size, name, lifetime.
    Export,
    /// Mapping for the CPU, and coherence.
    CpuAccess,
    /// sync_files, and order against other devices.
    Fences,
    /// Where memory is while a NIC holds it.
    Pin,
    /// Memory regions of an RDMA device.
    Rdma,
    /// Binding memory to queues of a NIC, and what the kernel refuses.
    Bind,
    /// Receiving: every byte, in order, where it is said to be.
    Receive,
    /// Giving memory back to the NIC.
    Tokens,
    /// What outlives what, and what is torn away meanwhile.
    Lifetime,
    /// What is left behind.
    Resources,
    /// How fast; reported, never judged.
    Performance,
}

impl Group {
    /// All groups, in the order in which they run.
    pub const ALL: [Self; 13] = [
        Self::Identity,
        Self::Allocate,
        Self::Export,
        Self::CpuAccess,
        Self::Fences,
        Self::Resources,
        Self::Pin,
        Self::Rdma,
        Self::Bind,
        Self::Receive,
        Self::Tokens,
        Self::Lifetime,
        Self::Performance,
    ];

    /// Its name, the first part of its checks' names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Allocate => "allocate",
            Self::Export => "export",
            Self::CpuAccess => "cpu-access",
            Self::Fences => "fences",
            Self::Resources => "resources",
            Self::Pin => "pin",
            Self::Rdma => "rdma",
            Self::Bind => "bind",
            Self::Receive => "receive",
            Self::Tokens => "tokens",
            Self::Lifetime => "lifetime",
            Self::Performance => "performance",
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The time that a check may take if it says nothing else: ten times what any of them takes on emulated hardware.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A check.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// What it is about.
    pub group: Group,
    /// Its name within the group.
    pub name: &'static str,
    /// What it proves, in one sentence.
    pub proves: &'static str,
    /// What must be there for it to say anything.
    pub needs: &'static [Need],
    /// Checks, by their full names, without which it makes no sense.
    pub after: &'static [&'static str],
    /// How long it may take.
    pub limit: Duration,
    /// Faults of a provider or path with each of which it must fail. A check that none can fail proves nothing.
    pub catches: &'static [Fault],
    /// Does it.
    pub run: fn(&Context<'_>) -> Outcome,
}

impl Check {
    /// The same check, which needs this instead.
    #[must_use]
    pub(crate) const fn needing(self, needs: &'static [Need]) -> Self {
        Self { needs, ..self }
    }

    /// Whether it is about a receive path, and so done for each of them.
    #[must_use]
    pub fn is_about_a_path(&self) -> bool {
        self.needs.contains(&Need::Nic)
    }

    /// Its full name, `group::name`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}::{}", self.group, self.name)
    }

    /// Whether its full name contains one of `filters`, or is one of those that begin with `=`: `=pin::one_buffer` means
    /// that check alone, also where another's name begins with the same. No filters mean every check.
    #[must_use]
    pub fn is_meant_by(&self, filters: &[String]) -> bool {
        let name = self.full_name();
        let means = |filter: &String| match filter.strip_prefix('=') {
            Some(whole) => name == whole,
            None => name.contains(filter.as_str()),
        };
        filters.is_empty() || filters.iter().any(means)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Finding;

    fn is_meant(name: &'static str, filters: &[&str]) -> bool {
        let check = Check {
            group: Group::Pin,
            name,
            proves: "",
            needs: &[],
            after: &[],
            limit: LIMIT,
            catches: &[],
            run: |_| Ok(Finding::Pass),
        };
        check.is_meant_by(&filters.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn a_filter_means_a_part_of_the_name_or_with_an_equals_sign_all_of_it() {
        assert!(is_meant("one_buffer", &[]));
        for filters in
            [&["pin::"][..], &["one_buf"], &["=pin::one_buffer"], &["receive::", "=pin::one_buffer"]]
        {
            assert!(is_meant("one_buffer", filters), "{filters:?}");
        }
        for filters in [&["=pin::one_buffer"][..], &["=pin::"], &["=one_buffer_more"], &["="]] {
            assert!(!is_meant("one_buffer_more", filters), "{filters:?}");
        }
    }
}
