//! The checks, a module for each group.

mod allocate;
mod bind;
mod cpu_access;
mod export;
mod fences;
mod identity;
mod lifetime;
mod path_resources;
mod performance;
mod pin;
mod rdma;
mod receive;
mod residency;
mod resources;
mod tokens;

use std::time::Duration;

use devmem_provider::{ErrorKind, Result};

use crate::check::{Check, Group, LIMIT};
use crate::context::Context;
use crate::faults::Fault;
use crate::isolation::Role;
use crate::need::Need;
use crate::peer::{self, PEER};
use crate::verdict::{Outcome, Stop};

/// How long work that nobody holds up may take on the slowest device.
const PATIENCE: Duration = Duration::from_secs(10);

/// All checks, in the order in which they run: what others build on comes first.
pub const CHECKS: &[Check] = &all::<{ count(GROUPS) }>(GROUPS);

const GROUPS: &[&[Check]] = &[
    identity::CHECKS,
    allocate::CHECKS,
    export::CHECKS,
    cpu_access::CHECKS,
    fences::CHECKS,
    resources::CHECKS,
    pin::CHECKS,
    rdma::CHECKS,
    bind::CHECKS,
    receive::CHECKS,
    tokens::CHECKS,
    lifetime::CHECKS,
    path_resources::CHECKS,
    performance::CHECKS,
];

/// How many checks there are in all parts.
const fn count(parts: &[&[Check]]) -> usize {
    let (mut count, mut part) = (0, 0);
    while part < parts.len() {
        count += parts[part].len();
        part += 1;
    }
    count
}

/// The checks of all parts, one after the other. The first part has one at least.
const fn all<const COUNT: usize>(parts: &[&[Check]]) -> [Check; COUNT] {
    let mut all = [parts[0][0]; COUNT];
    let (mut next, mut part) = (0, 0);
    while part < parts.len() {
        let mut index = 0;
        while index < parts[part].len() {
            all[next] = parts[part][index];
            next += 1;
            index += 1;
        }
        part += 1;
    }
    all
}

/// A check of a receive path, with the usual time limit.
const fn path_check(
    group: Group,
    name: &'static str,
    proves: &'static str,
    needs: &'static [Need],
    after: &'static [&'static str],
    catches: &'static [Fault],
    run: fn(&Context<'_>) -> Outcome,
) -> Check {
    Check { group, name, proves, needs, after, limit: LIMIT, catches, run }
}

/// What companions of checks do.
pub(crate) const ROLES: &[(&str, Role)] = &[
    (export::READER, export::reader),
    (PEER, |_, link| Ok(peer::serve(link)?)),
    lifetime::BINDER,
    lifetime::RECEIVER,
    lifetime::EXPORTER,
    lifetime::CONSUMER,
    lifetime::IDLER,
    lifetime::UNPRIVILEGED,
    lifetime::FINDER,
    bind::STRANGER,
    rdma::REMOVER,
];

/// Stops unless something was refused, with one of these kinds and something to try next.
fn refused<T>(what: &str, result: Result<T>, kinds: &[ErrorKind]) -> std::result::Result<(), Stop> {
    match result {
        Ok(_) => Err(Stop::fail(format!("{what}: was not refused"))),
        Err(error) if !kinds.contains(&error.kind()) => {
            Err(Stop::fail(format!("{what}: refused as {:?}, not as {kinds:?}: {error}", error.kind())))
        }
        Err(error) if error.remedy_text().is_none() => {
            Err(Stop::fail(format!("{what}: the refusal says nothing of what to do: {error}")))
        }
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_dependencies_come_first() {
        let mut seen = BTreeSet::new();
        for check in CHECKS {
            for name in check.after {
                assert!(
                    seen.contains(*name),
                    "{} builds on {name}, which does not come before",
                    check.full_name()
                );
            }
            assert!(seen.insert(check.full_name()), "{} is twice there", check.full_name());
        }
    }

    #[test]
    fn every_check_says_what_it_proves_and_what_it_catches() {
        for check in CHECKS {
            let name = check.full_name();
            assert!(check.proves.ends_with('.') && check.proves.len() > 20, "{name}: {}", check.proves);
            assert!(!check.catches.is_empty(), "{name} can be failed by nothing");
            let is_plain =
                |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
            assert!(check.name.chars().all(is_plain), "{name}");
        }
    }
}
