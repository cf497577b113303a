//! Failures that are known, kept as data: on which driver and kernels, and where that is written down.
//!
//! A check that passes although its failure is known is a failure itself: then this list is out of date, or the check
//! no longer sees what it saw.

use crate::report::{Entry, Machine};
use crate::verdict::Verdict;

/// A failure that is known.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// The check's full name.
    check: &'static str,
    /// Whose driver it is.
    culprit: Culprit,
    /// The first kernel and the first one without it, as `major.minor`; `None` has no bound.
    since: Option<(u32, u32)>,
    until: Option<(u32, u32)>,
    /// Whether it shows every time. If not, as where it takes a race, a pass says nothing.
    always: bool,
    /// What its reason contains; another failure of the check is not known.
    symptom: &'static str,
    /// What the driver does, and where that is seen: a source file of the kernel or a report.
    reason: &'static str,
}

/// The driver that fails, by the kernel's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Culprit {
    /// The provider's.
    #[cfg_attr(not(test), expect(dead_code, reason = "no failure of a provider is known"))]
    Provider(&'static str),
    /// The NIC's.
    Nic(&'static str),
}

/// The drivers that a check was about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drivers<'run> {
    pub(crate) provider: &'run str,
    pub(crate) nic: Option<&'run str>,
}

const KNOWN: &[Known] = &[
    gve_stalls("receive::more_than_the_buffer"),
    gve_stalls("receive::slow_reader"),
    gve_stalls("receive::partial_reads"),
    gve_stalls("receive::held_is_kept"),
    gve_stalls("receive::link_down_and_up"),
    gve_stalls("tokens::exhaustion_and_recovery"),
    gve_stalls("tokens::any_order"),
    gve_stalls("tokens::full_refill_ring"),
    gve_stalls("tokens::wrong_refill_entries"),
    gve_stalls("performance::rate"),
];

const fn gve_stalls(check: &'static str) -> Known {
    Known {
        check,
        culprit: Culprit::Nic("gve"),
        since: None,
        until: Some((7, 2)),
        always: false,
        symptom: "cannot wait for data: nothing arrived for ",
        reason: "gve never fills a receive queue again that has run out of memory, for want of an interrupt (mended by \
                 \"gve: fix Rx queue stall on alloc failure\", \
                 https://lore.kernel.org/r/20260701005341.3699161-1-hramamurthy@google.com)",
    }
}

/// Changes the verdict where the failure is known.
pub(crate) fn known(entry: &mut Entry, drivers: Drivers<'_>, machine: &Machine) {
    apply(KNOWN, entry, drivers, version(&machine.kernel));
}

fn apply(list: &[Known], entry: &mut Entry, drivers: Drivers<'_>, kernel: Option<(u32, u32)>) {
    let is_meant = |known: &&Known| {
        let driver = match known.culprit {
            Culprit::Provider(driver) => drivers.provider == driver,
            Culprit::Nic(driver) => drivers.nic == Some(driver),
        };
        known.check == entry.check
            && driver
            && known.since.is_none_or(|since| kernel.is_some_and(|kernel| kernel >= since))
            && known.until.is_none_or(|until| kernel.is_some_and(|kernel| kernel < until))
    };
    let Some(known) = list.iter().find(is_meant) else { return };
    match entry.verdict {
        Verdict::Fail if entry.reason.as_deref().unwrap_or_default().contains(known.symptom) => {
            let seen = entry.reason.take().unwrap_or_default();
            entry.verdict = Verdict::Known;
            entry.reason = Some(format!("{}: {seen}", known.reason));
        }
        Verdict::Pass | Verdict::Degraded if known.always => {
            entry.verdict = Verdict::Fail;
            entry.reason = Some(format!("it was expected to fail and did not: {}", known.reason));
            entry.remedy =
                Some("if the driver was mended, bound the entry in the list of known failures".to_owned());
        }
        _ => {}
    }
}

/// `major.minor` of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|letter: char| !letter.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[Known] = &[Known {
        check: "export::same_object_again",
        culprit: Culprit::Provider("test"),
        since: Some((6, 12)),
        until: Some((7, 3)),
        always: true,
        symptom: "",
        reason: "drivers/gpu/drm/test.c exports anew",
    }];

    const RACE: &[Known] = &[Known { culprit: Culprit::Nic("test"), always: false, ..LIST[0] }];

    fn verdict(found: Verdict, driver: &str, kernel: &str) -> Verdict {
        let mut entry = Entry::stand_in("export::same_object_again", found);
        apply(LIST, &mut entry, Drivers { provider: driver, nic: None }, version(kernel));
        entry.verdict
    }

    #[test]
    fn only_the_driver_and_kernels_that_are_named_are_excused() {
        assert_eq!(verdict(Verdict::Fail, "test", "7.2.12+deb13-amd64"), Verdict::Known);
        assert_eq!(verdict(Verdict::Fail, "test", "7.3.4+deb13-amd64"), Verdict::Fail);
        assert_eq!(verdict(Verdict::Fail, "test", "6.1.0-rc1"), Verdict::Fail);
        assert_eq!(verdict(Verdict::Fail, "other", "7.2.12"), Verdict::Fail);
        assert_eq!(verdict(Verdict::Fail, "test", "unknown"), Verdict::Fail);
    }

    #[test]
    fn an_unexpected_pass_is_a_failure() {
        assert_eq!(verdict(Verdict::Pass, "test", "7.2.12"), Verdict::Fail);
        assert_eq!(verdict(Verdict::Pass, "test", "7.3.0"), Verdict::Pass);
        assert_eq!(verdict(Verdict::Skip, "test", "7.2.12"), Verdict::Skip);
    }

    #[test]
    fn what_takes_a_race_may_pass() {
        for (found, nic, expected) in [
            (Verdict::Fail, "test", Verdict::Known),
            (Verdict::Pass, "test", Verdict::Pass),
            (Verdict::Fail, "other", Verdict::Fail),
        ] {
            let mut entry = Entry::stand_in("export::same_object_again", found);
            apply(RACE, &mut entry, Drivers { provider: "test", nic: Some(nic) }, version("7.2.12"));
            assert_eq!(entry.verdict, expected);
        }
    }

    #[test]
    fn another_failure_than_the_known_one_is_not_excused() {
        const LIST_OF_SYMPTOM: &[Known] = &[Known { symptom: "another inode", ..LIST[0] }];
        for (reason, expected) in
            [("it has another inode now", Verdict::Known), ("it is shorter", Verdict::Fail)]
        {
            let mut entry = Entry::stand_in("export::same_object_again", Verdict::Fail);
            entry.reason = Some(reason.to_owned());
            let drivers = Drivers { provider: "test", nic: None };
            apply(LIST_OF_SYMPTOM, &mut entry, drivers, version("7.2.12"));
            assert_eq!(entry.verdict, expected, "{reason}");
        }
    }

    #[test]
    fn every_known_failure_is_of_a_check_that_there_is() {
        for known in KNOWN {
            assert!(
                crate::checks::CHECKS.iter().any(|check| check.full_name() == known.check),
                "{}",
                known.check
            );
        }
    }
}
