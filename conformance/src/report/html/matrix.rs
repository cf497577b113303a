//! The matrix: what works at a glance.

use super::machines;
use super::markup::{Page, mark, text, words};
use super::memory;
use super::model::{Column, Counts, Model, Row};
use crate::report::Entry;
use crate::verdict::Verdict;

/// Writes it: a row for each provider, a column for each thing that it was checked with.
pub(super) fn write(page: &mut Page, model: &Model<'_>) {
    let columns = model.columns();
    // Roles, because narrow windows lay the table out as blocks.
    page.add(format_args!(
        "<section aria-labelledby=\"matrix\">\n<h2 id=\"matrix\">Providers and receive paths</h2>\n\
         <table class=\"matrix\" role=\"table\">\n<thead><tr role=\"row\">\
         <th scope=\"col\" role=\"columnheader\">Provider</th>"
    ));
    for column in &columns {
        page.add(format_args!("<th scope=\"col\" role=\"columnheader\">{}</th>", text(column.title())));
    }
    page.add(format_args!("</tr></thead>\n"));
    for site in &model.machines {
        page.add(format_args!("<tbody>\n"));
        if model.machines.len() > 1 {
            page.add(format_args!(
                "<tr class=\"machine\" role=\"row\"><th scope=\"rowgroup\" role=\"rowheader\" colspan=\"{}\">\
                 <a href=\"#m{}\">{}</a></th></tr>\n",
                columns.len() + 1,
                site.number,
                text(&machines::title(site)),
            ));
        }
        for row in &site.rows {
            provider(page, row, &columns);
        }
        page.add(format_args!("</tbody>\n"));
    }
    page.add(format_args!("</table>\n"));
    legend(page);
    page.add(format_args!("</section>\n"));
}

fn provider(page: &mut Page, row: &Row<'_>, columns: &[Column<'_>]) {
    page.add(format_args!(
        "<tr role=\"row\"><th scope=\"row\" role=\"rowheader\"><a href=\"#{}\">{}</a><small>{}</small></th>",
        row.id,
        text(&row.provider.name),
        text(&row.provider.description),
    ));
    for (index, column) in columns.iter().enumerate() {
        cell(page, row, index, *column);
    }
    page.add(format_args!("</tr>\n"));
}

fn cell(page: &mut Page, row: &Row<'_>, index: usize, column: Column<'_>) {
    let entries = row.cell(column);
    let counts = Counts::count(entries.iter().copied());
    let label = text(column.title());
    let Some(worst) = counts.worst() else {
        page.add(format_args!(
            "<td role=\"cell\" class=\"cell none\"><span class=\"label\" aria-hidden=\"true\">{label}</span>not run</td>"
        ));
        return;
    };
    page.add(format_args!(
        "<td role=\"cell\" class=\"cell {worst}\"><a href=\"#{}-{index}\">\
         <span class=\"label\" aria-hidden=\"true\">{label}</span>\
         <strong>{} {} {worst}</strong>{}",
        row.id,
        mark(worst),
        counts.of(worst),
        bar(counts),
    ));
    let others = words(counts, Some(worst));
    if !others.is_empty() {
        page.add(format_args!("<small>{others}</small>"));
    }
    if column != Column::Alone
        && let Some(place) = memory::words(&entries)
    {
        page.add(format_args!("<small class=\"place\">{}</small>", text(&place)));
    }
    page.add(format_args!("</a></td>"));
}

/// How many of each, as lengths. The numbers stand beside it.
pub(super) fn bar(counts: Counts) -> String {
    let parts = Verdict::ALL.into_iter().filter(|&verdict| counts.of(verdict) > 0);
    let parts: String = parts
        .map(|verdict| format!("<i class=\"{verdict}\" style=\"flex-grow:{}\"></i>", counts.of(verdict)))
        .collect();
    format!("<span class=\"bar\" aria-hidden=\"true\">{parts}</span>")
}

fn legend(page: &mut Page) {
    page.add(format_args!("<dl class=\"legend\">\n"));
    for verdict in Verdict::ALL {
        let meaning = match verdict {
            Verdict::Pass => "what it proves holds",
            Verdict::Degraded => "works, but the memory is not where it was asked to be",
            Verdict::Skip => "nothing can be said here",
            Verdict::Known => "fails, as is known of this driver and kernel",
            Verdict::Fail => "what it proves does not hold",
        };
        page.add(format_args!(
            "<div><dt class=\"badge {verdict}\">{} {verdict}</dt><dd>{meaning}</dd></div>\n",
            mark(verdict)
        ));
    }
    page.add(format_args!(
        "</dl>\n<p class=\"note\">A cell shows its worst verdict; a skip only where there is nothing else. \
         It leads to its evidence.</p>\n"
    ));
}

/// The entries of a cell by verdict, worst first.
pub(super) fn with<'a>(entries: &[&'a Entry], verdict: Verdict) -> Vec<&'a Entry> {
    entries.iter().copied().filter(|entry| entry.verdict == verdict).collect()
}
