//! Writing HTML.

use std::fmt::{self, Write};

use crate::report::html::model::{BY_WEIGHT, Counts};
use crate::verdict::Verdict;

/// A page that grows.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    /// Adds markup. What is not ours goes into it by [`text`].
    pub(super) fn add(&mut self, markup: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.0.write_fmt(markup);
    }

    /// All of it.
    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// Text that may stand between tags and in quoted attributes. Characters that HTML does not have, and those that change
/// the direction of what follows, are replaced.
pub(super) fn text(text: &str) -> Text<'_> {
    Text(text)
}

/// See [`text`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => f.write_char(letter)?,
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => f.write_char('\u{fffd}')?,
                letter if letter.is_control() => f.write_char('\u{fffd}')?,
                letter => f.write_char(letter)?,
            }
        }
        Ok(())
    }
}

/// The sign of a verdict, for those who do not see its colour. Decoration: its word always stands beside it.
pub(super) fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "<i class=\"mark\" aria-hidden=\"true\">\u{2713}</i>",
        Verdict::Degraded => "<i class=\"mark\" aria-hidden=\"true\">\u{25d0}</i>",
        Verdict::Skip => "<i class=\"mark\" aria-hidden=\"true\">\u{2013}</i>",
        Verdict::Known => "<i class=\"mark\" aria-hidden=\"true\">\u{2248}</i>",
        Verdict::Fail => "<i class=\"mark\" aria-hidden=\"true\">\u{2715}</i>",
    }
}

/// The counts that are not zero, by their weight, without one of them: `2 degraded, 38 pass`.
pub(super) fn words(counts: Counts, without: Option<Verdict>) -> String {
    let told = BY_WEIGHT.into_iter().filter(|&v| counts.of(v) > 0 && Some(v) != without);
    told.map(|verdict| format!("{} {verdict}", counts.of(verdict))).collect::<Vec<_>>().join(", ")
}

/// A size in the largest unit that keeps it whole, or nearly.
pub(super) fn bytes(size: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        let unit_size = 1_u64 << shift;
        if size >= unit_size {
            let tenths = size / (unit_size / 10).max(1);
            return match (tenths / 10, tenths % 10) {
                (whole, 0) => format!("{whole} {unit}"),
                (whole, tenth) => format!("{whole}.{tenth} {unit}"),
            };
        }
    }
    format!("{size} bytes")
}
