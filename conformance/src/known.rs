//! Failures that are known, kept as data: on which driver and kernels, and where that is written down.
//!
//! A check that passes although its failure is known is a failure itself: then this list is out of date, or the check
//! no longer sees what it saw.

use devmem_provider::Identity;

use crate::report::{Entry, Machine};
use crate::verdict::Verdict;

/// A failure that is known.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// The check's full name.
    check: &'static str,
    /// The kernel driver of the provider.
    driver: &'static str,
    /// The first kernel and the first one without it, as `major.minor`; `None` has no bound.
    since: Option<(u32, u32)>,
    until: Option<(u32, u32)>,
    /// What the driver does, and where that is seen: a source file of the kernel or a report.
    reason: &'static str,
}

const KNOWN: &[Known] = &[];

/// Changes the verdict where the failure is known.
pub(crate) fn known(entry: &mut Entry, provider: &Identity, machine: &Machine) {
    apply(KNOWN, entry, &provider.driver, version(&machine.kernel));
}

fn apply(list: &[Known], entry: &mut Entry, driver: &str, kernel: Option<(u32, u32)>) {
    let is_meant = |known: &&Known| {
        known.check == entry.check
            && known.driver == driver
            && known.since.is_none_or(|since| kernel.is_some_and(|kernel| kernel >= since))
            && known.until.is_none_or(|until| kernel.is_some_and(|kernel| kernel < until))
    };
    let Some(known) = list.iter().find(is_meant) else { return };
    match entry.verdict {
        Verdict::Fail => {
            let seen = entry.reason.take().unwrap_or_default();
            entry.verdict = Verdict::Known;
            entry.reason = Some(format!("{}: {seen}", known.reason));
        }
        Verdict::Pass | Verdict::Degraded => {
            entry.verdict = Verdict::Fail;
            entry.reason = Some(format!("it was expected to fail and did not: {}", known.reason));
            entry.remedy =
                Some("if the driver was mended, bound the entry in the list of known failures".to_owned());
        }
        Verdict::Skip | Verdict::Known => {}
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
        driver: "test",
        since: Some((6, 12)),
        until: Some((7, 3)),
        reason: "drivers/gpu/drm/test.c exports anew",
    }];

    fn verdict(found: Verdict, driver: &str, kernel: &str) -> Verdict {
        let mut entry = Entry::stand_in("export::same_object_again", found);
        apply(LIST, &mut entry, driver, version(kernel));
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
}
