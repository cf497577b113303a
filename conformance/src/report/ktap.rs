//! Reports as KTAP, version 1 (`Documentation/dev-tools/ktap.rst`): what the kernel's own CI reads.

use std::fmt::Write;

use super::{Entry, Report};
use crate::verdict::Verdict;

/// One test for each provider, with the checks as its subtests.
#[must_use]
pub fn write(reports: &[Report]) -> String {
    let mut text = format!("KTAP version 1\n1..{}\n", reports.len());
    for (index, report) in reports.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  KTAP version 1\n  # Subtest: {}\n  1..{}",
            report.provider.name,
            report.entries.len()
        );
        for (number, entry) in report.entries.iter().enumerate() {
            subtest(&mut text, number + 1, entry);
        }
        let result = if report.is_success() { "ok" } else { "not ok" };
        let _ = writeln!(text, "{result} {} {}", index + 1, report.provider.name);
    }
    text
}

fn subtest(text: &mut String, number: usize, entry: &Entry) {
    let name = entry.name();
    let reason = one_line(entry.reason.as_deref().unwrap_or_default());
    let lines = entry.kernel_log.iter().map(String::as_str).chain(entry.output.lines());
    for line in lines {
        let _ = writeln!(text, "  # {line}");
    }
    let _ = match entry.verdict {
        Verdict::Pass => writeln!(text, "  ok {number} {name}"),
        Verdict::Degraded => writeln!(text, "  ok {number} {name} # degraded: {reason}"),
        Verdict::Skip => writeln!(text, "  ok {number} {name} # SKIP {reason}"),
        Verdict::Known => writeln!(text, "  not ok {number} {name} # XFAIL {reason}"),
        Verdict::Fail => writeln!(text, "  # {reason}\n  not ok {number} {name}"),
    };
}

/// A diagnostic is one line, and begins with the first `#` of its line.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ").replace('#', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_has_its_line() {
        let text = write(&[Report::stand_in()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            &lines[..5],
            ["KTAP version 1", "1..1", "  KTAP version 1", "  # Subtest: udmabuf", "  1..6"]
        );
        assert!(lines.contains(&"  ok 1 export::pass"), "{text}");
        assert!(text.contains("  ok 3 export::skip # SKIP a reason"), "{text}");
        assert!(text.contains("  not ok 4 export::known # XFAIL a reason"), "{text}");
        assert!(lines.contains(&"  not ok 5 export::fail"), "{text}");
        assert!(lines.contains(&"  ok 6 devmem-tcp/receive::order"), "{text}");
        assert_eq!(lines.last(), Some(&"not ok 1 udmabuf"));
    }

    #[test]
    fn a_reason_of_several_lines_stays_one() {
        let mut report = Report::stand_in();
        report.entries.truncate(3);
        report.entries[2].reason = Some("one\n# two".to_owned());
        assert!(write(&[report]).contains("# SKIP one  two\n"));
    }
}
