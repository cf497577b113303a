//! What stands where: machines, providers and receive paths.

use std::collections::BTreeSet;

use crate::check::Group;
use crate::report::{Checked, Entry, Machine, Report};
use crate::verdict::Verdict;

/// Everything on the page.
#[derive(Debug)]
pub(super) struct Model<'a> {
    /// The machines, in the order of their reports.
    pub(super) machines: Vec<Site<'a>>,
    /// The receive paths, in the order in which reports name them.
    pub(super) paths: Vec<&'a str>,
    suites: Vec<&'a str>,
}

/// A machine and what was checked on it.
#[derive(Debug)]
pub(super) struct Site<'a> {
    /// Its number, from 1.
    pub(super) number: usize,
    /// The machine.
    pub(super) machine: &'a Machine,
    /// Its providers.
    pub(super) rows: Vec<Row<'a>>,
}

/// A provider on a machine.
#[derive(Debug)]
pub(super) struct Row<'a> {
    /// What it is called in this page.
    pub(super) id: String,
    /// The provider.
    pub(super) provider: &'a Checked,
    /// What was found.
    pub(super) entries: Vec<&'a Entry>,
}

/// What providers were checked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column<'a> {
    /// Nothing else.
    Alone,
    /// An RDMA device.
    Rdma,
    /// A NIC, by this receive path.
    Path(&'a str),
}

/// Verdicts by how much they tell: the worst of those that say something first, then those that say nothing.
pub(super) const BY_WEIGHT: [Verdict; Verdict::ALL.len()] =
    [Verdict::Fail, Verdict::Known, Verdict::Degraded, Verdict::Pass, Verdict::Skip];

/// How many entries have which verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts([usize; Verdict::ALL.len()]);

impl<'a> Model<'a> {
    /// From reports, of which those of one provider on one machine (shards) become one.
    pub(super) fn of(reports: &'a [Report]) -> Self {
        let mut model = Self { machines: Vec::new(), paths: Vec::new(), suites: Vec::new() };
        for report in reports {
            if !model.suites.contains(&report.suite.as_str()) {
                model.suites.push(&report.suite);
            }
            for path in report.entries.iter().filter_map(|entry| entry.path.as_deref()) {
                if !model.paths.contains(&path) {
                    model.paths.push(path);
                }
            }
            let site = model.site(&report.machine);
            let row = site.row(&report.provider);
            row.entries.extend(&report.entries);
        }
        model
    }

    fn site(&mut self, machine: &'a Machine) -> &mut Site<'a> {
        let known = self.machines.iter().position(|site| is_same(site.machine, machine));
        let index = known.unwrap_or_else(|| {
            self.machines.push(Site { number: self.machines.len() + 1, machine, rows: Vec::new() });
            self.machines.len() - 1
        });
        &mut self.machines[index]
    }

    /// All providers on all machines.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Row<'a>> {
        self.machines.iter().flat_map(|site| &site.rows)
    }

    /// The columns: those of the provider alone and of RDMA, if they were checked, and every receive path.
    pub(super) fn columns(&self) -> Vec<Column<'a>> {
        let was_checked = |column: &Column<'_>| self.rows().any(|row| !row.cell(*column).is_empty());
        let without_a_path = [Column::Alone, Column::Rdma].into_iter().filter(was_checked);
        without_a_path.chain(self.paths.iter().copied().map(Column::Path)).collect()
    }

    /// All verdicts.
    pub(super) fn counts(&self) -> Counts {
        Counts::count(self.rows().flat_map(|row| &row.entries).copied())
    }

    /// How many providers there are, whatever number of machines they are on.
    pub(super) fn providers(&self) -> usize {
        let named = self.rows().map(|row| (&row.provider.name, &row.provider.description));
        named.collect::<BTreeSet<_>>().len()
    }

    /// The kernels, each once.
    pub(super) fn kernels(&self) -> Vec<&'a str> {
        let mut kernels = Vec::new();
        for site in &self.machines {
            if !kernels.contains(&site.machine.kernel.as_str()) {
                kernels.push(site.machine.kernel.as_str());
            }
        }
        kernels
    }

    /// The versions of the suite, each once.
    pub(super) fn suites(&self) -> Vec<&'a str> {
        self.suites.clone()
    }
}

impl<'a> Site<'a> {
    fn row(&mut self, provider: &'a Checked) -> &mut Row<'a> {
        let known = self.rows.iter().position(|row| row.provider == provider);
        let index = known.unwrap_or_else(|| {
            let id = format!("m{}-p{}", self.number, self.rows.len() + 1);
            self.rows.push(Row { id, provider, entries: Vec::new() });
            self.rows.len() - 1
        });
        &mut self.rows[index]
    }
}

impl<'a> Row<'a> {
    /// What was found in a column.
    pub(super) fn cell(&self, column: Column<'_>) -> Vec<&'a Entry> {
        self.entries.iter().copied().filter(|entry| Column::of(entry) == column).collect()
    }
}

impl<'a> Column<'a> {
    fn of(entry: &'a Entry) -> Self {
        match &entry.path {
            Some(path) => Self::Path(path),
            None if entry.group() == Group::Rdma.name() => Self::Rdma,
            None => Self::Alone,
        }
    }

    /// What it is called.
    pub(super) fn title(self) -> &'a str {
        match self {
            Self::Alone => "provider alone",
            Self::Rdma => Group::Rdma.name(),
            Self::Path(path) => path,
        }
    }
}

impl Counts {
    pub(super) fn count<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut counts = Self::default();
        for entry in entries {
            if let Some(index) = Verdict::ALL.iter().position(|&verdict| verdict == entry.verdict) {
                counts.0[index] += 1;
            }
        }
        counts
    }

    pub(super) fn of(self, verdict: Verdict) -> usize {
        Verdict::ALL.iter().zip(self.0).find(|&(&known, _)| known == verdict).map_or(0, |(_, count)| count)
    }

    pub(super) fn total(self) -> usize {
        self.0.iter().sum()
    }

    /// The verdict that tells most.
    pub(super) fn worst(self) -> Option<Verdict> {
        BY_WEIGHT.into_iter().find(|&verdict| self.of(verdict) > 0)
    }
}

/// Whether two reports are of one machine. What changes while it runs, such as the speed of a link or the driver that is
/// bound, makes it no other.
fn is_same(one: &Machine, other: &Machine) -> bool {
    let facts = |machine: &'_ Machine| {
        let functions = machine.functions.iter().map(|function| (&function.address, &function.identifiers));
        let functions: Vec<_> = functions.map(|(address, ids)| (address.clone(), ids.clone())).collect();
        (
            machine.kernel.clone(),
            machine.architecture.clone(),
            machine.processor.clone(),
            machine.iommu_kind,
            functions,
        )
    };
    facts(one) == facts(other) && one.privileged == other.privileged
}
