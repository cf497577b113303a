//! Running the checks.

use std::collections::BTreeMap;

use devmem_provider::{Error, Provider};

use crate::check::Check;
use crate::checks::{CHECKS, ROLES};
use crate::context::Context;
use crate::environment::Environment;
use crate::isolation::{Assignment, Ended, Subject, in_a_process_of_its_own};
use crate::kernel_log::KernelLog;
use crate::known::{Drivers, known};
use crate::nic_guard::NicGuard;
use crate::peer;
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

/// If this process was started to be the peer of a check, is that, and ends the process.
///
/// [`run`] does so too. A program whose provider takes long to find calls this first: the peer needs none.
pub fn act_as_peer() {
    if let Some(assignment) = Assignment::of_this_process() {
        assignment.play_alone(peer::PEER, peer::serve);
    }
}

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
            let path = assignment.path(&environment.paths);
            assignment.perform(CHECKS, ROLES, &Context::new(provider, environment, path));
        }
        return Report::new(Machine::this(), provider.identity());
    }
    let mut run = Run {
        environment,
        provider,
        report: Report::new(Machine::this(), provider.identity()),
        log: KernelLog::from_now(),
        guard: None,
        trouble: None,
    };
    if let Some(nic) = &environment.nic {
        match nic.open().and_then(NicGuard::new) {
            Ok(guard) => run.guard = Some(guard),
            Err(error) => run.trouble = Some(error),
        }
    }
    let chosen = chosen(CHECKS, environment);
    let paths = if environment.nic.is_some() { environment.paths.as_slice() } else { &[] };
    let (of_path, alone): (Vec<&Check>, Vec<&Check>) =
        chosen.into_iter().partition(|check| !paths.is_empty() && check.is_about_a_path());
    let mut work: Vec<(Option<&str>, &Check)> = alone.into_iter().map(|check| (None, check)).collect();
    for path in paths {
        work.extend(of_path.iter().map(|&check| (Some(path.name()), check)));
    }
    // Verdicts are known by the check's name: that of a path's check is the last path's, which is the one that runs.
    let mut verdicts = BTreeMap::new();
    for (index, &(path, check)) in work.iter().enumerate() {
        progress.begins(check, index + 1, work.len());
        let entry = run.judged(path, check, &verdicts);
        verdicts.insert(entry.check.clone(), entry.verdict);
        progress.ended(&entry);
        run.report.entries.push(entry);
    }
    run.report
}

/// A run over one provider.
struct Run<'run> {
    environment: &'run Environment,
    provider: &'run dyn Provider,
    report: Report,
    log: KernelLog,
    guard: Option<NicGuard>,
    /// Why the NIC cannot be checked.
    trouble: Option<Error>,
}

impl Run<'_> {
    fn judged(&mut self, path: Option<&str>, check: &Check, verdicts: &BTreeMap<String, Verdict>) -> Entry {
        let full_name = check.full_name();
        let unusable = self.trouble.as_ref().filter(|_| check.is_about_a_path()).map(Stop::skip);
        let ended = match (unusable, unmet(check, verdicts)) {
            (Some(stop), _) => Ended::at_once(Err(stop)),
            (None, Some(skip)) => Ended::at_once(Err(Stop::Skip(skip))),
            (None, None) => {
                let limit = self.environment.limit.map_or(check.limit, |limit| limit.min(check.limit));
                let subject = Subject {
                    provider: &self.provider.identity().name,
                    path: path.unwrap_or_default(),
                    check: &full_name,
                };
                in_a_process_of_its_own(&self.environment.arguments, subject, limit)
            }
        };
        let ended = if path.is_some() { self.with_the_nic_put_back(ended) } else { ended };
        let mut entry = judge(check, path, ended, self.log.new_lines());
        let drivers = Drivers {
            provider: &self.provider.identity().driver,
            nic: self.guard.as_ref().filter(|_| path.is_some()).map(NicGuard::driver),
        };
        known(&mut entry, drivers, &self.report.machine);
        entry
    }

    /// A check that leaves the NIC changed has failed, whatever it says.
    fn with_the_nic_put_back(&mut self, mut ended: Ended) -> Ended {
        let Some(guard) = &mut self.guard else { return ended };
        let reason = match guard.restored() {
            Ok(differences) if differences.is_empty() => return ended,
            Ok(differences) => format!("the NIC was left changed: {}", differences.join(", ")),
            Err(error) => format!("the NIC could not be put back: {error}"),
        };
        ended.outcome = Err(match ended.outcome {
            Err(Stop::Fail(first)) => Stop::Fail(format!("{first}; {reason}")),
            _ => Stop::Fail(reason),
        });
        ended
    }
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

fn judge(check: &Check, path: Option<&str>, ended: Ended, kernel_log: Vec<String>) -> Entry {
    let mut entry = Entry {
        path: path.map(str::to_owned),
        check: check.full_name(),
        verdict: Verdict::Pass,
        reason: None,
        found_by: None,
        remedy: None,
        figures: Vec::new(),
        seconds: ended.duration.as_secs_f64(),
        output: ended.output,
        kernel_log,
    };
    match ended.outcome {
        Ok(Finding::Pass) => {}
        Ok(Finding::Measured(figures)) => entry.figures = figures,
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
