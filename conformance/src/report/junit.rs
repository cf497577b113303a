//! Reports as JUnit XML: what most CI servers read.

use std::fmt::Write;

use super::{Entry, Report};
use crate::verdict::Verdict;

/// One test suite for each provider.
#[must_use]
pub fn write(reports: &[Report]) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for report in reports {
        let seconds: f64 = report.entries.iter().map(|entry| entry.seconds).sum();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\" time=\"{seconds:.3}\">",
            escape(&report.provider.name),
            report.entries.len(),
            report.count(Verdict::Fail),
            report.count(Verdict::Skip) + report.count(Verdict::Known),
        );
        for entry in &report.entries {
            case(&mut text, &report.provider.name, entry);
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

fn case(text: &mut String, provider: &str, entry: &Entry) {
    let reason = escape(entry.reason.as_deref().unwrap_or_default());
    let _ = writeln!(
        text,
        "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\">",
        escape(provider),
        escape(&entry.name()),
        entry.seconds
    );
    let _ = match entry.verdict {
        Verdict::Pass => Ok(()),
        Verdict::Fail => writeln!(text, "      <failure message=\"{reason}\"/>"),
        Verdict::Skip => writeln!(text, "      <skipped message=\"{reason}\"/>"),
        // JUnit knows no expected failures.
        Verdict::Known => writeln!(text, "      <skipped message=\"known: {reason}\"/>"),
        Verdict::Degraded => writeln!(text, "      <system-out>degraded: {reason}</system-out>"),
    };
    let lines: Vec<&str> = entry.kernel_log.iter().map(String::as_str).chain(entry.output.lines()).collect();
    if !lines.is_empty() {
        let _ = writeln!(text, "      <system-err>{}</system-err>", escape(&lines.join("\n")));
    }
    text.push_str("    </testcase>\n");
}

/// Text that may stand in an attribute; characters that XML 1.0 does not have are left out.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(letter),
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => {}
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counts_and_cases_agree() {
        let text = write(&[Report::stand_in()]);
        assert!(text.contains("tests=\"6\" failures=\"1\" skipped=\"2\""), "{text}");
        assert_eq!(text.matches("<testcase ").count(), 6);
        assert_eq!(text.matches("<failure ").count(), 1);
        assert!(text.contains(r#" name="devmem-tcp/receive::order" "#), "{text}");
        assert!(text.contains("a reason with &lt;marks&gt; &amp; &quot;quotes&quot;"), "{text}");
    }

    proptest! {
        #[test]
        fn no_text_breaks_out(text: String) {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains(['<', '>', '"']));
            prop_assert!(!escaped.chars().any(|letter| letter.is_control() && !matches!(letter, '\n' | '\t')));
        }
    }
}
