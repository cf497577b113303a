//! Reports for people: what failed, with reason and next step, and a table of the groups.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Entry, Report};
use crate::check::Group;
use crate::verdict::Verdict;

/// All providers, one after the other.
#[must_use]
pub fn write(reports: &[Report]) -> String {
    let mut text = String::new();
    for report in reports {
        for entry in report.entries.iter().filter(|entry| entry.verdict != Verdict::Pass) {
            text.push_str(&explain(entry));
        }
        text.push_str(&table(report));
    }
    text
}

/// One check, with what is known of it.
#[must_use]
pub fn explain(entry: &Entry) -> String {
    let mut text = format!("{:<9} {}\n", entry.verdict, entry.check);
    // Writing to a string cannot fail.
    if let Some(reason) = &entry.reason {
        let _ = writeln!(text, "          {reason}");
    }
    if let Some(found_by) = &entry.found_by {
        let _ = writeln!(text, "          found by: {found_by}");
    }
    if let Some(remedy) = &entry.remedy {
        let _ = writeln!(text, "          try: {remedy}");
    }
    if entry.verdict == Verdict::Fail {
        for line in entry.kernel_log.iter().map(String::as_str).chain(entry.output.lines()) {
            let _ = writeln!(text, "          | {line}");
        }
    }
    text
}

/// How many checks of each group have which verdict.
fn table(report: &Report) -> String {
    let mut groups: BTreeMap<&str, [usize; Verdict::ALL.len()]> = BTreeMap::new();
    for entry in &report.entries {
        let group = entry.check.split("::").next().unwrap_or_default();
        let column = Verdict::ALL.iter().position(|&verdict| verdict == entry.verdict).unwrap_or_default();
        groups.entry(group).or_default()[column] += 1;
    }
    let heads = Verdict::ALL.map(|verdict| format!("{:>9}", verdict.word()));
    let mut text = format!("\n{:<14}{}\n", report.provider.name, heads.concat());
    for group in Group::ALL {
        if let Some(counts) = groups.get(group.name()) {
            let cells = counts.map(|count| format!("{count:>9}"));
            let _ = writeln!(text, "  {:<12}{}", group.name(), cells.concat());
        }
    }
    let sums = Verdict::ALL.map(|verdict| format!("{:>9}", report.count(verdict)));
    let _ = writeln!(text, "  {:<12}{}", "all", sums.concat());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_pass_is_explained_and_all_are_counted() {
        let text = write(&[Report::stand_in()]);
        assert!(text.contains("fail      export::fail\n          a reason"), "{text}");
        assert!(!text.contains("export::pass"), "{text}");
        assert!(text.ends_with("  all                 1        1        1        1        1\n"), "{text}");
    }
}
