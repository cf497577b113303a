//! The table of groups of checks and providers.

use super::markup::{Page, mark, text, words};
use super::model::{Counts, Model};

/// Writes it, with a column for each provider on each machine.
pub(super) fn write(page: &mut Page, model: &Model<'_>) {
    page.add(format_args!(
        "<section aria-labelledby=\"groups\">\n<h2 id=\"groups\">Groups of checks</h2>\n\
         <div class=\"wide\" tabindex=\"0\">\n<table class=\"groups\">\n<thead><tr><th scope=\"col\">Group</th>"
    ));
    for site in &model.machines {
        for row in &site.rows {
            let name = text(&row.provider.name);
            page.add(format_args!("<th scope=\"col\"><a href=\"#{}\"><span>{name}", row.id));
            if model.machines.len() > 1 {
                page.add(format_args!(", machine {}", site.number));
            }
            page.add(format_args!("</span></a></th>"));
        }
    }
    page.add(format_args!("</tr></thead>\n"));
    for (index, column) in model.columns().iter().enumerate() {
        let mut groups: Vec<&str> = Vec::new();
        for entry in model.rows().flat_map(|row| row.cell(*column)) {
            if !groups.contains(&entry.group()) {
                groups.push(entry.group());
            }
        }
        page.add(format_args!(
            "<tbody><tr class=\"path\"><th scope=\"rowgroup\" colspan=\"{}\">{}</th></tr>\n",
            model.rows().count() + 1,
            text(column.title()),
        ));
        for group in groups {
            page.add(format_args!("<tr><th scope=\"row\">{}</th>", text(group)));
            for row in model.rows() {
                let entries = row.cell(*column);
                let counts = Counts::count(entries.iter().copied().filter(|entry| entry.group() == group));
                let Some(worst) = counts.worst() else {
                    page.add(format_args!("<td class=\"none\"><span class=\"unseen\">not run</span></td>"));
                    continue;
                };
                page.add(format_args!(
                    "<td class=\"{worst}\" title=\"{0}\"><a href=\"#{1}-{index}\">{2}{3}\
                     <span class=\"unseen\"> {worst} ({0})</span></a></td>",
                    words(counts, None),
                    row.id,
                    mark(worst),
                    counts.of(worst),
                ));
            }
            page.add(format_args!("</tr>\n"));
        }
        page.add(format_args!("</tbody>\n"));
    }
    page.add(format_args!("</table>\n</div>\n</section>\n"));
}
