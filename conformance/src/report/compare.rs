//! Two reports: what changed.

use std::fmt;

use super::Report;
use crate::verdict::Verdict;

/// A check whose verdict is another in the second report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The provider's name.
    pub provider: String,
    /// The receive path, if it was checked on one.
    pub path: Option<String>,
    /// The check's full name.
    pub check: String,
    /// What it was; `None` if it did not run.
    pub before: Option<Verdict>,
    /// What it is; `None` if it did not run.
    pub after: Option<Verdict>,
    /// Why, in the report in which it did not pass.
    pub reason: Option<String>,
}

impl Change {
    /// Whether something that held no longer does.
    #[must_use]
    pub fn is_regression(&self) -> bool {
        self.after == Some(Verdict::Fail) && self.before != Some(Verdict::Fail)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |verdict: Option<Verdict>| verdict.map_or("not run", Verdict::word);
        write!(f, "{} ", self.provider)?;
        if let Some(path) = &self.path {
            write!(f, "{path}/")?;
        }
        write!(f, "{}: {} -> {}", self.check, word(self.before), word(self.after))?;
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

/// Every check whose verdict differs, in the order of the first report, then of the second.
#[must_use]
pub fn compare(before: &[Report], after: &[Report]) -> Vec<Change> {
    let mut changes = Vec::new();
    let all = before.iter().chain(after).flat_map(|report| {
        report.entries.iter().map(|entry| (report.provider.name.as_str(), &entry.path, entry.check.as_str()))
    });
    let mut seen = std::collections::BTreeSet::new();
    for (provider, path, check) in all {
        if !seen.insert((provider, path, check)) {
            continue;
        }
        let find = |reports: &'_ [Report]| {
            let report = reports.iter().find(|report| report.provider.name == provider)?;
            let entry = report.entries.iter().find(|entry| &entry.path == path && entry.check == check)?;
            Some((entry.verdict, entry.reason.clone()))
        };
        let (old, new) = (find(before), find(after));
        let verdict = |entry: &Option<(Verdict, Option<String>)>| entry.as_ref().map(|(verdict, _)| *verdict);
        if verdict(&old) != verdict(&new) {
            changes.push(Change {
                provider: provider.to_owned(),
                path: path.clone(),
                check: check.to_owned(),
                before: verdict(&old),
                after: verdict(&new),
                reason: new.and_then(|(_, reason)| reason).or_else(|| old.and_then(|(_, reason)| reason)),
            });
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Entry;

    #[test]
    fn only_what_differs_is_told() {
        let before = Report::stand_in();
        let before = [before];
        assert_eq!(compare(&before, &before), []);
        let [mut after] = before.clone();
        after.entries[0].verdict = Verdict::Fail;
        after.entries.remove(1);
        let changes = compare(&before, &[after]);
        assert_eq!(changes.len(), 2);
        assert!(changes[0].is_regression() && !changes[1].is_regression());
        assert!(changes[0].to_string().starts_with("udmabuf export::pass: pass -> fail"), "{}", changes[0]);
        assert_eq!(changes[1].after, None);
    }

    #[test]
    fn the_same_check_on_two_paths_is_two() {
        let mut before = Report::stand_in();
        let on = |path: &str| Entry { path: Some(path.to_owned()), ..before.entries[0].clone() };
        let both = [on("devmem-tcp"), on("zcrx")];
        before.entries.extend(both);
        let mut after = before.clone();
        after.entries.last_mut().unwrap().verdict = Verdict::Fail;
        let changes = compare(&[before], &[after]);
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].to_string(), "udmabuf zcrx/export::pass: pass -> fail");
    }
}
