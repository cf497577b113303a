//! Running the checks.

use std::collections::BTreeMap;

use devmem_provider::Provider;

use crate::check::Check;
use crate::checks::{CHECKS, ROLES};
use crate::context::Context;
use crate::environment::Environment;
use crate::isolation::{Assignment, Ended, in_a_process_of_its_own};
use crate::kernel_log::KernelLog;
use crate::known::known;
use crate::report::{Entry, Machine, Report};
use crate::verdict::{Finding, Skip, Stop, Verdict};

/// Told how a run goes on.
pub trait Progress {
    /// A check begins: the `number`-th of `count`.
    fn begins(&mut self, _check: &Check, _number: usize, _count: usize) {}

    /// A check has ended.
    fn ended(&mut self, _entry: &Entry) {}
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {}

/// Checks a provider.
///
/// Every check runs in a process of its own: this program, started again with
/// [`Environment::arguments`], which must bring it to this call again, with the same provider. There the call does
/// that check and ends the process, so that nothing behind it runs. What lies before it runs once more for every
/// check, and should do no more than find the provider.
pub fn run(provider: &dyn Provider, environment: &Environment) -> Report {
    run_with(provider, environment, &mut Quiet)
}

/// As [`run`], and tells how it goes on.
pub fn run_with(provider: &dyn Provider, environment: &Environment, progress: &mut dyn Progress) -> Report {
    let name = &provider.identity().name;
    if let Some(assignment) = Assignment::of_this_process() {
        if assignment.is_about(name) {
            assignment.perform(CHECKS, ROLES, &Context::new(provider, environment));
        }
        return Report::new(Machine::this(), provider.identity());
    }
    let mut report = Report::new(Machine::this(), provider.identity());
    let mut verdicts = BTreeMap::new();
    let chosen = chosen(CHECKS, environment);
    let mut log = KernelLog::from_now();
    for (index, check) in chosen.iter().enumerate() {
        progress.begins(check, index + 1, chosen.len());
        let full_name = check.full_name();
        let ended = match unmet(check, &verdicts) {
            Some(skip) => Ended::at_once(Err(Stop::Skip(skip))),
            None => {
                let limit = environment.limit.map_or(check.limit, |limit| limit.min(check.limit));
                in_a_process_of_its_own(&environment.arguments, name, &full_name, limit)
            }
        };
        let mut entry = judge(check, ended, log.new_lines());
        known(&mut entry, provider.identity(), &report.machine);
        verdicts.insert(full_name, entry.verdict);
        progress.ended(&entry);
        report.entries.push(entry);
    }
    report
}

/// The checks that the filters and the shard choose, in the order in which they run.
pub(crate) fn chosen<'checks>(checks: &'checks [Check], environment: &Environment) -> Vec<&'checks Check> {
    let wanted = checks.iter().filter(|check| check.is_meant_by(&environment.filters)).enumerate();
    let is_here = |index: usize| environment.shard.is_none_or(|shard| index % shard.count == shard.index);
    wanted.filter(|&(index, _)| is_here(index)).map(|(_, check)| check).collect()
}

/// Why a check makes no sense after what its predecessors found. Those that did not run prevent nothing.
fn unmet(check: &Check, verdicts: &BTreeMap<String, Verdict>) -> Option<Skip> {
    let failed = check.after.iter().find(|&&name| {
        verdicts
            .get(name)
            .is_some_and(|verdict| matches!(verdict, Verdict::Fail | Verdict::Known | Verdict::Skip))
    })?;
    Some(Skip {
        reason: format!("it builds on {failed}, which did not pass"),
        found_by: format!("the check {failed}"),
        remedy: Some(format!("see {failed}")),
    })
}

fn judge(check: &Check, ended: Ended, kernel_log: Vec<String>) -> Entry {
    let mut entry = Entry {
        path: None,
        check: check.full_name(),
        verdict: Verdict::Pass,
        reason: None,
        found_by: None,
        remedy: None,
        seconds: ended.duration.as_secs_f64(),
        output: ended.output,
        kernel_log,
    };
    match ended.outcome {
        Ok(Finding::Pass) => {}
        Ok(Finding::Degraded(evidence)) => {
            entry.verdict = Verdict::Degraded;
            entry.reason = Some(evidence);
        }
        Err(Stop::Skip(skip)) => {
            entry.verdict = Verdict::Skip;
            entry.reason = Some(skip.reason);
            entry.found_by = Some(skip.found_by);
            entry.remedy = skip.remedy;
        }
        Err(Stop::Fail(reason)) => {
            entry.verdict = Verdict::Fail;
            entry.reason = Some(reason);
        }
    }
    entry
}
