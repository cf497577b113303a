//! The evidence for each cell: what failed first, then what nothing can be said of, then what holds.

use super::machines;
use super::markup::{Page, mark, text, words};
use super::matrix::{bar, with};
use super::model::{Column, Counts, Model, Row};
use crate::checks::CHECKS;
use crate::report::Entry;
use crate::verdict::Verdict;

/// Entries that say the same, word for word.
struct Alike<'a> {
    first: &'a Entry,
    entries: Vec<&'a Entry>,
}

/// Writes it: an article for each provider, in it a section for each cell.
pub(super) fn write(page: &mut Page, model: &Model<'_>) {
    page.add(format_args!("<section aria-labelledby=\"evidence\">\n<h2 id=\"evidence\">Evidence</h2>\n"));
    let columns = model.columns();
    for site in &model.machines {
        if model.machines.len() > 1 {
            page.add(format_args!("<h3 class=\"machine\">{}</h3>\n", text(&machines::title(site))));
        }
        for row in &site.rows {
            provider(page, row, &columns);
        }
    }
    page.add(format_args!("</section>\n"));
}

fn provider(page: &mut Page, row: &Row<'_>, columns: &[Column<'_>]) {
    let provider = row.provider;
    page.add(format_args!(
        "<article id=\"{}\">\n<header><h3>{}</h3><p>{} &middot; driver {}",
        row.id,
        text(&provider.name),
        text(&provider.description),
        text(&provider.driver),
    ));
    if let Some(version) = &provider.driver_version {
        page.add(format_args!(" {}", text(version)));
    }
    if let Some(pci) = &provider.pci {
        page.add(format_args!(" &middot; <code>{}</code>", text(pci)));
    }
    page.add(format_args!("</p></header>\n"));
    for (index, column) in columns.iter().enumerate() {
        let entries = row.cell(*column);
        if !entries.is_empty() {
            cell(page, &format!("{}-{index}", row.id), *column, &entries);
        }
    }
    page.add(format_args!("</article>\n"));
}

fn cell(page: &mut Page, id: &str, column: Column<'_>, entries: &[&Entry]) {
    let counts = Counts::count(entries.iter().copied());
    page.add(format_args!(
        "<section class=\"column\" id=\"{id}\" tabindex=\"-1\">\n<div class=\"head\"><h4>{}</h4>{}<p>{}</p></div>\n",
        text(column.title()),
        bar(counts),
        words(counts, None),
    ));
    for verdict in [Verdict::Fail, Verdict::Known, Verdict::Degraded] {
        for alike in alike(&with(entries, verdict)) {
            finding(page, &alike);
        }
    }
    let skipped = alike(&with(entries, Verdict::Skip));
    if !skipped.is_empty() {
        let count = counts.of(Verdict::Skip);
        let reasons =
            if skipped.len() == 1 { "1 reason".to_owned() } else { format!("{} reasons", skipped.len()) };
        page.add(format_args!(
            "<details class=\"skips\"><summary><span class=\"badge skip\">{} {count} skip</span> for {reasons}\
             </summary>\n",
            mark(Verdict::Skip)
        ));
        for alike in skipped {
            finding(page, &alike);
        }
        page.add(format_args!("</details>\n"));
    }
    let (measured, passed): (Vec<&Entry>, Vec<&Entry>) =
        with(entries, Verdict::Pass).into_iter().partition(|entry| !entry.figures.is_empty());
    measured.into_iter().for_each(|entry| figures(page, entry));
    passes(page, &passed);
    page.add(format_args!("</section>\n"));
}

/// Checks that did not pass, with the reason that they share.
fn finding(page: &mut Page, alike: &Alike<'_>) {
    let verdict = alike.first.verdict;
    page.add(format_args!("<div class=\"finding {verdict}\">\n"));
    if let [entry] = alike.entries[..] {
        page.add(format_args!(
            "<p class=\"what\"><span class=\"badge {verdict}\">{} {verdict}</span> <code>{}</code> \
             <span class=\"time\">{}</span></p>\n",
            mark(verdict),
            text(&entry.check),
            seconds(entry.seconds),
        ));
        if let Some(proves) = proves(entry) {
            page.add(format_args!("<p class=\"proves\">{}</p>\n", text(proves)));
        }
    } else {
        page.add(format_args!(
            "<p class=\"what\"><span class=\"badge {verdict}\">{} {verdict}</span> {} checks</p>\n",
            mark(verdict),
            alike.entries.len(),
        ));
    }
    if let Some(reason) = &alike.first.reason {
        page.add(format_args!("<p class=\"reason\">{}</p>\n", text(reason)));
    }
    let (found_by, remedy) = (&alike.first.found_by, &alike.first.remedy);
    if found_by.is_some() || remedy.is_some() {
        page.add(format_args!("<dl>"));
        for (name, value) in [("found by", found_by), ("try", remedy)] {
            if let Some(value) = value {
                page.add(format_args!("<dt>{name}</dt><dd>{}</dd>", text(value)));
            }
        }
        page.add(format_args!("</dl>\n"));
    }
    if let [entry] = alike.entries[..] {
        printed(page, entry, verdict == Verdict::Fail);
    } else {
        list(page, &alike.entries);
    }
    page.add(format_args!("</div>\n"));
}

/// What a check measured: rates and times, which are not judged.
fn figures(page: &mut Page, entry: &Entry) {
    page.add(format_args!(
        "<div class=\"finding measured\">\n<p class=\"what\"><span class=\"badge pass\">{} measured</span> \
         <code>{}</code></p>\n",
        mark(Verdict::Pass),
        text(&entry.check),
    ));
    if let Some(proves) = proves(entry) {
        page.add(format_args!("<p class=\"proves\">{}</p>\n", text(proves)));
    }
    page.add(format_args!("<dl>"));
    for figure in &entry.figures {
        page.add(format_args!(
            "<dt>{}</dt><dd>{:.2} {}</dd>",
            text(&figure.name),
            figure.value,
            text(&figure.unit)
        ));
    }
    page.add(format_args!("</dl>\n"));
    printed(page, entry, false);
    page.add(format_args!("</div>\n"));
}

fn passes(page: &mut Page, entries: &[&Entry]) {
    if entries.is_empty() {
        return;
    }
    page.add(format_args!(
        "<details class=\"passes\"><summary><span class=\"badge pass\">{} {} pass</span></summary>\n",
        mark(Verdict::Pass),
        entries.len()
    ));
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let count = rest.iter().take_while(|entry| entry.group() == first.group()).count();
        page.add(format_args!("<h5>{}</h5>\n", text(first.group())));
        list(page, &rest[..count]);
        rest = &rest[count..];
    }
    page.add(format_args!("</details>\n"));
}

/// Checks with what they prove, and what they printed.
fn list(page: &mut Page, entries: &[&Entry]) {
    page.add(format_args!("<ul class=\"checks\">\n"));
    for entry in entries {
        page.add(format_args!("<li><code>{}</code> ", text(&entry.check)));
        if let Some(proves) = proves(entry) {
            page.add(format_args!("<span class=\"proves\">{}</span> ", text(proves)));
        }
        page.add(format_args!("<span class=\"time\">{}</span>", seconds(entry.seconds)));
        printed(page, entry, false);
        page.add(format_args!("</li>\n"));
    }
    page.add(format_args!("</ul>\n"));
}

/// What a check printed and what the kernel logged meanwhile, folded in unless `open`.
fn printed(page: &mut Page, entry: &Entry, open: bool) {
    let open = if open { " open" } else { "" };
    let log = entry.kernel_log.join("\n");
    for (name, lines) in [("kernel log", log.as_str()), ("output", entry.output.trim_end())] {
        if lines.is_empty() {
            continue;
        }
        let count = lines.lines().count();
        let unit = if count == 1 { "line" } else { "lines" };
        page.add(format_args!(
            "<details class=\"printed\"{open}><summary>{name}, {count} {unit}</summary>\
             <pre tabindex=\"0\">{}</pre></details>\n",
            text(lines)
        ));
    }
}

/// What a check proves, if this version of the suite has it.
fn proves(entry: &Entry) -> Option<&'static str> {
    let check =
        CHECKS.iter().find(|check| entry.check.split_once("::") == Some((check.group.name(), check.name)))?;
    Some(check.proves)
}

fn seconds(seconds: f64) -> String {
    if seconds < 0.01 { String::new() } else { format!("{seconds:.2} s") }
}

/// Entries of one verdict, in the order of the first of each kind.
fn alike<'a>(entries: &[&'a Entry]) -> Vec<Alike<'a>> {
    let mut all: Vec<Alike<'a>> = Vec::new();
    for &entry in entries {
        let known = all.iter_mut().find(|alike| {
            let first = alike.first;
            (&first.reason, &first.found_by, &first.remedy) == (&entry.reason, &entry.found_by, &entry.remedy)
        });
        match known {
            Some(alike) => alike.entries.push(entry),
            None => all.push(Alike { first: entry, entries: vec![entry] }),
        }
    }
    all
}
