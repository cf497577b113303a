//! Reports for people: what failed, with reason and next step, and a table of the groups.

use std::fmt::Write;

use super::{Entry, Report};
use crate::verdict::Verdict;

/// All providers, one after the other.
#[must_use]
pub fn write(reports: &[Report]) -> String {
    let mut text = String::new();
    for report in reports {
        for entry in
            report.entries.iter().filter(|entry| entry.verdict != Verdict::Pass || !entry.figures.is_empty())
        {
            text.push_str(&explain(entry));
        }
        text.push_str(&table(report));
    }
    if reports.len() > 1 {
        text.push_str(&summary(reports));
    }
    text
}

/// One check, with what is known of it.
#[must_use]
pub fn explain(entry: &Entry) -> String {
    let mut text = format!("{:<9} {}\n", entry.verdict, entry.name());
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
    for figure in &entry.figures {
        let _ = writeln!(text, "          {figure}");
    }
    if entry.verdict == Verdict::Fail {
        for line in entry.kernel_log.iter().map(String::as_str).chain(entry.output.lines()) {
            let _ = writeln!(text, "          | {line}");
        }
    }
    text
}

/// How many checks of each group have which verdict, in the order in which they ran.
fn table(report: &Report) -> String {
    let mut rows: Vec<(String, [usize; Verdict::ALL.len()])> = Vec::new();
    for entry in &report.entries {
        let label = match &entry.path {
            Some(path) => format!("{path}/{}", entry.group()),
            None => entry.group().to_owned(),
        };
        let column = Verdict::ALL.iter().position(|&verdict| verdict == entry.verdict).unwrap_or_default();
        let row = rows.iter().position(|(known, _)| *known == label).unwrap_or_else(|| {
            rows.push((label, Default::default()));
            rows.len() - 1
        });
        rows[row].1[column] += 1;
    }
    rows.push(("all".to_owned(), Verdict::ALL.map(|verdict| report.count(verdict))));
    let width =
        rows.iter().map(|(label, _)| label.len() + 2).max().unwrap_or(0).max(report.provider.name.len());
    let heads = Verdict::ALL.map(|verdict| format!("{:>9}", verdict.word()));
    let mut text = format!("\n{:<width$}{}\n", report.provider.name, heads.concat());
    for (label, counts) in rows {
        let cells = counts.map(|count| format!("{count:>9}"));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {label:<width$}{}", cells.concat(), width = width - 2);
    }
    text
}

/// How many checks of each provider have which verdict.
fn summary(reports: &[Report]) -> String {
    let label = |report: &Report| format!("{} ({})", report.provider.name, report.provider.description);
    let width = reports.iter().map(|report| label(report).chars().count()).max().unwrap_or(0);
    let cells = |counts: [usize; Verdict::ALL.len()]| counts.map(|count| format!("{count:>9}")).concat();
    let heads = Verdict::ALL.map(|verdict| format!("{:>9}", verdict.word()));
    let mut text = format!("\n{:<width$}{}\n", "all providers", heads.concat(), width = width + 2);
    // Writing to a string cannot fail.
    for report in reports {
        let counts = Verdict::ALL.map(|verdict| report.count(verdict));
        let _ = writeln!(text, "  {:<width$}{}", label(report), cells(counts));
    }
    let all = Verdict::ALL.map(|verdict| reports.iter().map(|report| report.count(verdict)).sum());
    let _ = writeln!(text, "  {:<width$}{}", "all", cells(all));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_providers_are_summed_up() {
        let text = write(&[Report::stand_in(), Report::stand_in()]);
        let end = "\n  udmabuf (memory of this process)        2        1        1        1        1\n  all                                     4        2        2        2        2\n";
        assert!(text.ends_with(end), "{text}");
        assert!(!write(&[Report::stand_in()]).contains("all providers"));
    }

    #[test]
    fn what_did_not_pass_is_explained_and_all_are_counted() {
        let text = write(&[Report::stand_in()]);
        assert!(text.contains("fail      export::fail\n          a reason"), "{text}");
        assert!(!text.contains("export::pass"), "{text}");
        assert!(text.ends_with("  devmem-tcp/receive        1        0        0        0        0\n  all                       2        1        1        1        1\n"), "{text}");
    }
}
