//! Where the memory stayed, in a few words.

use crate::report::Entry;
use crate::report::html::model::Counts;
use crate::verdict::Verdict;

/// More letters do not fit into a cell.
const LETTERS: usize = 60;

/// What the entries of a receive path say of it; `None` where they do not.
pub(super) fn words(entries: &[&Entry]) -> Option<String> {
    let degraded = entries.iter().filter(|entry| entry.verdict == Verdict::Degraded);
    let reasons: Vec<&str> = degraded.filter_map(|entry| entry.reason.as_deref()).collect();
    if let Some(way) = reasons.iter().find_map(|reason| movement(reason)) {
        return Some(way);
    }
    if let Some(reason) = reasons.first() {
        return Some(shortened(reason));
    }
    // A pass means that the memory is where it was asked to be.
    let counts = Counts::count(entries.iter().copied());
    (counts.worst() == Some(Verdict::Pass)).then(|| "memory stays where asked".to_owned())
}

/// The names of residencies, with which a place begins: `device-local (vram)`.
const RESIDENCIES: [&str; 3] = ["device-local", "system", "unknown"];

/// "before → after" from the sentences in which checks and pins tell that memory moved: `device-local (vram) -> system
/// (gtt): evidence`, and `system (gtt) (was device-local (vram)): evidence`.
fn movement(reason: &str) -> Option<String> {
    let (before, after) = match reason.split_once(" -> ") {
        Some((before, rest)) => (last_place(before)?, rest.split(": ").next()?),
        None => {
            let (after, rest) = reason.split_once(" (was ")?;
            (rest.split_once("):").map_or(rest, |(before, _)| before), last_place(after)?)
        }
    };
    let is_place = |text: &str| RESIDENCIES.iter().any(|name| text.starts_with(name));
    (is_place(before) && is_place(after)).then(|| format!("{before} \u{2192} {after}"))
}

/// The place with which a clause ends.
fn last_place(text: &str) -> Option<&str> {
    let clause = text.rsplit(": ").next()?;
    let from = RESIDENCIES.iter().filter_map(|name| clause.find(name)).min()?;
    Some(&clause[from..])
}

/// The first words of a sentence.
fn shortened(reason: &str) -> String {
    let clause = reason.split([':', ';', '\n']).next().unwrap_or_default();
    match clause.char_indices().nth(LETTERS) {
        Some((end, _)) => format!("{}\u{2026}", clause[..end].trim_end()),
        None => clause.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(verdict: Verdict, reason: &str) -> Option<String> {
        let entry = Entry { reason: Some(reason.to_owned()), ..Entry::stand_in("pin::stays", verdict) };
        words(&[&entry])
    }

    #[test]
    fn a_movement_is_told_by_its_ends() {
        let told =
            of(Verdict::Degraded, "the buffer is in system (gtt) (was device-local (vram)): amdgpu moved it");
        assert_eq!(told.as_deref(), Some("device-local (vram) \u{2192} system (gtt)"));
        let told = of(Verdict::Degraded, "two queues: system (system0) -> system: i915 says so: yes -> no");
        assert_eq!(told.as_deref(), Some("system (system0) \u{2192} system"));
        let told = of(Verdict::Degraded, "system (was device-local): moved when zcrx attached");
        assert_eq!(told.as_deref(), Some("device-local \u{2192} system"));
    }

    #[test]
    fn other_sentences_are_shortened() {
        assert_eq!(of(Verdict::Degraded, "elsewhere: evidence").as_deref(), Some("elsewhere"));
        let long = of(Verdict::Degraded, &"\u{e4}".repeat(100)).unwrap();
        assert_eq!(long.chars().count(), LETTERS + 1);
        for odd in ["(was ", "system (was (", "x (was y)", " (was ", " -> ", "system -> "] {
            assert!(of(Verdict::Degraded, odd).is_some(), "{odd}");
        }
    }

    #[test]
    fn only_passes_say_that_it_stayed() {
        assert!(of(Verdict::Pass, "").is_some());
        assert_eq!(of(Verdict::Fail, "a reason"), None);
        assert_eq!(of(Verdict::Skip, "a reason"), None);
    }
}
