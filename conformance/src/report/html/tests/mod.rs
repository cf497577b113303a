mod sample;

use proptest::prelude::*;

use super::write;
use crate::report::machine::{Class, IommuKind};
use crate::report::{Entry, Machine, Report};
use crate::verdict::Verdict;

/// Where the environment names a file, the sample is written there: for a look at it.
#[test]
fn the_sample_can_be_looked_at() {
    let page = write(&sample::reports());
    if let Some(file) = std::env::var_os("DEVMEM_SAMPLE_PAGE") {
        std::fs::write(file, &page).unwrap();
    }
    assert_eq!(page.matches("<tbody>").count(), page.matches("</tbody>").count());
}

#[test]
fn every_entry_is_there() {
    let reports = sample::reports();
    let page = write(&reports);
    let count = |needle: &str| page.matches(needle).count();
    for report in &reports {
        assert!(page.contains(&report.provider.description), "{}", report.provider.description);
        for entry in &report.entries {
            assert!(page.contains(&format!("<code>{}</code>", entry.check)), "{}", entry.check);
            for lines in [entry.output.trim(), &entry.kernel_log.join("\n")] {
                assert!(page.contains(lines), "{lines}");
            }
        }
    }
    let measured =
        reports.iter().flat_map(|report| &report.entries).filter(|entry| !entry.figures.is_empty()).count();
    assert!(measured > 0);
    assert_eq!(count("<dd>31.40 MiB/s</dd>"), measured);
    let all = reports.iter().map(|report| report.entries.len()).sum::<usize>();
    let named = reports[0].entries.iter().map(|entry| entry.check.as_str());
    let names: std::collections::BTreeSet<&str> = named.collect();
    assert_eq!(names.iter().map(|name| count(&format!("<code>{name}</code>"))).sum::<usize>(), all);
}

#[test]
fn nothing_is_loaded_from_elsewhere() {
    let page = write(&sample::reports());
    for foreign in ["http", "src=", "<script", "<link", "url(", "@import", "//"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[test]
fn every_link_has_its_end() {
    let page = write(&sample::reports());
    let mut ends: Vec<&str> =
        page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let links = page.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next());
    for link in links {
        assert!(ends.contains(&link), "{link}");
    }
    let count = ends.len();
    ends.sort_unstable();
    ends.dedup();
    assert_eq!(ends.len(), count, "two have one id");
}

#[test]
fn a_cell_has_the_worst_verdict_and_where_memory_went() {
    let page = write(&[sample::reports()[0].clone()]);
    assert!(page.contains("<h1>Nothing fails</h1>"), "{page}");
    assert!(page.contains("device-local (vram) \u{2192} system (gtt)"), "{page}");
    let mut report = Report::stand_in();
    report.entries.retain(|entry| matches!(entry.verdict, Verdict::Pass | Verdict::Skip));
    assert!(write(&[report.clone()]).contains("class=\"cell pass\""));
    report.entries.push(Entry::stand_in("export::wrong", Verdict::Fail));
    let page = write(&[report]);
    assert!(page.contains("class=\"cell fail\"") && page.contains("<h1>1 check fails</h1>"), "{page}");
}

#[test]
fn machines_are_told_apart_and_shards_put_together() {
    let one = Report::stand_in();
    let mut other = one.clone();
    other.machine.kernel = "6.18.2".to_owned();
    let mut shard = one.clone();
    shard.entries.truncate(1);
    // A link that slept makes no other machine.
    shard.machine.functions[0].link = None;
    let page = write(&[one.clone(), other, shard]);
    assert!(page.contains("Machine 1: Linux 7.3.4") && page.contains("Machine 2: Linux 6.18.2"), "{page}");
    assert_eq!(page.matches("<td role=\"cell\"").count(), 4, "two machines, two columns");
    assert!(page.contains("2 pass</strong>") || page.contains("1 degraded, 2 pass"), "{page}");
    assert!(!write(&[one]).contains("Machine 1"));
}

#[test]
fn memory_regions_have_a_column_of_their_own() {
    let mut report = Report::stand_in();
    let cells = |report: &Report| write(std::slice::from_ref(report)).matches("<td role=\"cell\"").count();
    assert_eq!(cells(&report), 2);
    report.entries.push(Entry::stand_in("rdma::one_region", Verdict::Pass));
    assert_eq!(cells(&report), 3);
    let page = write(&[report]);
    assert!(page.contains("role=\"columnheader\">rdma</th>"), "{page}");
}

#[test]
fn nothing_at_all_is_a_page_too() {
    assert!(write(&[]).contains("<h1>No check ran</h1>"));
    let mut report = Report::stand_in();
    report.entries.clear();
    report.machine = Machine::default();
    assert!(write(&[report]).ends_with("</html>\n"));
}

/// A report in which every text is the same prefix and `text`, so that its structure does not depend on it.
fn filled(text: &str) -> Report {
    let of = |name: &str| format!("{name}{text}");
    let some = |name: &str| Some(of(name));
    let mut report = Report::stand_in();
    report.suite = of("suite");
    let machine = &mut report.machine;
    (machine.kernel, machine.architecture, machine.processor) = (of("k"), some("a"), some("p"));
    machine.iommu_kind = IommuKind::Mixed;
    let function = &mut machine.functions[0];
    (function.address, function.identifiers, function.host_bridge) = (of("f"), of("i"), of("h"));
    (function.driver, function.driver_version, function.class) = (some("d"), some("v"), Class::Nic);
    function.firmware = [(of("name"), of("version"))].into();
    let link = function.link.as_mut().unwrap();
    (link.speed, link.width, link.maximum_speed) = (of("s"), of("w"), some("m"));
    (function.bridges[0].address, function.bridges[0].identifiers) = (of("b"), of("c"));
    let provider = &mut report.provider;
    (provider.name, provider.description, provider.driver) = (of("n"), of("e"), of("r"));
    (provider.driver_version, provider.pci) = (some("t"), some("l"));
    for (index, entry) in report.entries.iter_mut().enumerate() {
        // Groups are what precedes two colons.
        entry.check = format!("group{index}::{text}");
        entry.reason = some(&format!("reason{index}"));
        (entry.found_by, entry.remedy) = (some("found"), some("try"));
        (entry.output, entry.kernel_log) = (of("output"), vec![of("log")]);
        entry.path = entry.path.as_ref().map(|_| of("path"));
    }
    report
}

proptest! {
    #[test]
    fn no_text_becomes_markup(text in "[<>&\"'a/=!\\-\u{0}-\u{1f}\u{202e}]{0,24}|.*") {
        let (page, plain) = (write(&[filled(&text)]), write(&[filled("")]));
        for letter in ['<', '>', '"'] {
            prop_assert_eq!(page.matches(letter).count(), plain.matches(letter).count());
        }
        prop_assert!(!page.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')));
        let ampersands = page.matches('&').count();
        let entities = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;", "&middot;"];
        prop_assert_eq!(entities.map(|entity| page.matches(entity).count()).iter().sum::<usize>(), ampersands);
    }
}
