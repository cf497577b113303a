//! Two reports: what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Entry, Report};
use crate::verdict::Verdict;

/// A check whose verdict is another in the second report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The provider's name, with its description where another has the same name.
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
///
/// Two providers are the same if they have the same name and description; or the same name, which no other has.
#[must_use]
pub fn compare(before: &[Report], after: &[Report]) -> Vec<Change> {
    let (old, new) = (by_provider(before), by_provider(after));
    let mut changes = Vec::new();
    for provider in &old {
        let counterpart = counterpart(provider, &new, &old);
        changes.extend(differences(&label(provider, &old), Some(provider), counterpart));
    }
    for provider in new.iter().filter(|provider| counterpart(provider, &old, &new).is_none()) {
        changes.extend(differences(&label(provider, &new), None, Some(provider)));
    }
    changes
}

/// All that was found of one provider, which are several reports if shards of a run were merged.
#[derive(Debug)]
struct Of<'a> {
    name: &'a str,
    description: &'a str,
    entries: Vec<&'a Entry>,
}

fn by_provider(reports: &[Report]) -> Vec<Of<'_>> {
    let mut all: Vec<Of<'_>> = Vec::new();
    for report in reports {
        let (name, description) = (report.provider.name.as_str(), report.provider.description.as_str());
        match all.iter_mut().find(|of| (of.name, of.description) == (name, description)) {
            Some(of) => of.entries.extend(&report.entries),
            None => all.push(Of { name, description, entries: report.entries.iter().collect() }),
        }
    }
    all
}

/// The same provider among those of the other report.
fn counterpart<'a>(of: &Of<'_>, others: &'a [Of<'a>], own: &[Of<'_>]) -> Option<&'a Of<'a>> {
    let same = others.iter().find(|other| (other.name, other.description) == (of.name, of.description));
    same.or_else(|| {
        // A description may tell a version.
        let is_alone = |all: &[Of<'_>]| all.iter().filter(|other| other.name == of.name).count() == 1;
        (is_alone(own) && is_alone(others)).then(|| others.iter().find(|other| other.name == of.name))?
    })
}

/// A provider's name, with its description where another has the same name.
fn label(of: &Of<'_>, all: &[Of<'_>]) -> String {
    if all.iter().filter(|other| other.name == of.name).count() == 1 {
        return of.name.to_owned();
    }
    format!("{} ({})", of.name, of.description)
}

fn differences(label: &str, before: Option<&Of<'_>>, after: Option<&Of<'_>>) -> Vec<Change> {
    let entries = |of: Option<&Of<'_>>| {
        let all = of.into_iter().flat_map(|of| of.entries.clone());
        all.map(|entry| ((entry.path.clone(), entry.check.clone()), entry.clone()))
            .collect::<BTreeMap<_, _>>()
    };
    let (old, new) = (entries(before), entries(after));
    let order = [before, after].into_iter().flatten().flat_map(|of| &of.entries);
    let mut seen = BTreeSet::new();
    let mut changes = Vec::new();
    for entry in order {
        let key = (entry.path.clone(), entry.check.clone());
        let (was, is) = (old.get(&key), new.get(&key));
        if seen.insert(key) && was.map(|entry| entry.verdict) != is.map(|entry| entry.verdict) {
            let reason = |entry: Option<&Entry>| entry.and_then(|entry| entry.reason.clone());
            changes.push(Change {
                provider: label.to_owned(),
                path: entry.path.clone(),
                check: entry.check.clone(),
                before: was.map(|entry| entry.verdict),
                after: is.map(|entry| entry.verdict),
                reason: reason(is).or_else(|| reason(was)),
            });
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn two_providers_of_one_name_are_told_apart() {
        let of = |description: &str, verdict| {
            let mut report = Report::stand_in();
            report.provider.description = description.to_owned();
            report.entries[0].verdict = verdict;
            report
        };
        let before = [of("DG1", Verdict::Pass), of("Tiger Lake", Verdict::Pass)];
        let after = [of("Tiger Lake", Verdict::Fail), of("DG1", Verdict::Pass)];
        let changes = compare(&before, &after);
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].to_string(), "udmabuf (Tiger Lake) export::pass: pass -> fail");

        // The name is enough where it is the only one: LLVM's version is in a description.
        assert_eq!(compare(&[of("LLVM 19", Verdict::Pass)], &[of("LLVM 20", Verdict::Fail)]).len(), 1);

        // One that is gone and one that is new.
        let changes = compare(&before, &before[..1]);
        assert_eq!(changes.len(), before[1].entries.len());
        assert!(changes.iter().all(|change| change.after.is_none()));
        let changes = compare(&before[..1], &before);
        assert!(changes.iter().all(|change| change.before.is_none()));
        assert!(changes.iter().all(|change| change.provider == "udmabuf (Tiger Lake)"), "{changes:?}");
    }

    #[test]
    fn shards_are_one() {
        let whole = Report::stand_in();
        let (mut first, mut second) = (whole.clone(), whole.clone());
        second.entries = first.entries.split_off(3);
        assert_eq!(compare(&[whole], &[first, second]), []);
    }
}
