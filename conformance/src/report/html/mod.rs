//! Reports as one HTML page: the matrix of providers, memory regions and receive paths, and the evidence for each cell.
//!
//! The page holds all it needs and loads nothing: no scripts, no fonts, no pictures from elsewhere. It can be read
//! by the keyboard, without colours, on paper, and on a telephone. Reports of several machines, kernels and shards
//! may stand in one page.

mod evidence;
mod groups;
mod machines;
mod markup;
mod matrix;
mod memory;
mod model;

use crate::report::Report;
use crate::verdict::Verdict;
use markup::{Page, text};
use model::Model;

/// The style sheet.
const STYLE: &str = include_str!("style.css");

/// One page of all reports.
#[must_use]
pub fn write(reports: &[Report]) -> String {
    let model = Model::of(reports);
    let mut page = Page::default();
    head(&mut page, &model);
    matrix::write(&mut page, &model);
    evidence::write(&mut page, &model);
    groups::write(&mut page, &model);
    machines::write(&mut page, &model);
    page.add(format_args!("</main>\n<footer>"));
    for (index, suite) in model.suites().into_iter().enumerate() {
        let separator = if index == 0 { "devmem-conformance " } else { ", " };
        page.add(format_args!("{separator}{}", text(suite)));
    }
    page.add(format_args!("</footer>\n</body>\n</html>\n"));
    page.into_text()
}

fn head(page: &mut Page, model: &Model<'_>) {
    let counts = model.counts();
    let failures = counts.of(Verdict::Fail);
    let headline = match (counts.total(), failures) {
        (0, _) => "No check ran".to_owned(),
        (_, 0) => "Nothing fails".to_owned(),
        (_, 1) => "1 check fails".to_owned(),
        (_, many) => format!("{many} checks fail"),
    };
    page.add(format_args!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{headline} - device memory conformance</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    ));
    let class = if failures > 0 { "fail" } else { "pass" };
    page.add(format_args!(
        "<header class=\"{class}\">\n<p class=\"kind\">Device memory conformance</p>\n<h1>{headline}</h1>\n<p>"
    ));
    let plural =
        |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    page.add(format_args!("{} of ", plural(counts.total(), "verdict", "verdicts")));
    page.add(format_args!("{}", plural(model.providers(), "provider", "providers")));
    if !model.paths.is_empty() {
        page.add(format_args!(" and {}", plural(model.paths.len(), "receive path", "receive paths")));
    }
    if model.machines.len() > 1 {
        page.add(format_args!(" on {} machines", model.machines.len()));
    }
    for (index, kernel) in model.kernels().into_iter().enumerate() {
        page.add(format_args!("{}{}", if index == 0 { ", Linux " } else { " and " }, text(kernel)));
    }
    page.add(format_args!("</p>\n<ul class=\"totals\">\n"));
    for verdict in Verdict::ALL {
        let count = counts.of(verdict);
        let class = if count == 0 { "none" } else { verdict.word() };
        page.add(format_args!(
            "<li class=\"{class}\"><b>{count}</b> <span>{} {verdict}</span></li>\n",
            markup::mark(verdict)
        ));
    }
    page.add(format_args!("</ul>\n</header>\n<main>\n"));
}

#[cfg(test)]
mod tests;
