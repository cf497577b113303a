//! A diagnosis for people: what works now, what to do, and then everything with its evidence.

use std::fmt::Write;

use super::finding::{Finding, State};
use super::pair::Conclusion;
use super::{Ability, Device, Diagnosis};

/// The widest line where words allow, in characters.
const WIDTH: usize = 110;
/// Where the text of a finding begins.
const MARGIN: usize = 12;

/// The whole of it.
#[must_use]
pub fn write(diagnosis: &Diagnosis) -> String {
    let mut text = String::new();
    verdict(&mut text, diagnosis);
    next_steps(&mut text, diagnosis);
    for pair in &diagnosis.pairs {
        heading(&mut text, &format!("{}: {}", pair.name(), pair.conclusion.words()));
        findings(&mut text, &pair.findings);
    }
    for nic in &diagnosis.nics {
        heading(&mut text, &format!("NIC {}", title(nic)));
        findings(&mut text, &nic.findings);
    }
    for provider in &diagnosis.providers {
        heading(&mut text, &format!("Provider {}", title(provider)));
        findings(&mut text, &provider.findings);
    }
    for (what, list) in [
        ("Without provider", &diagnosis.without_provider),
        ("Without NIC", &diagnosis.without_nic),
        ("Machine", &diagnosis.machine),
    ] {
        if !list.is_empty() {
            heading(&mut text, what);
            findings(&mut text, list);
        }
    }
    text
}

fn verdict(text: &mut String, diagnosis: &Diagnosis) {
    let who = if diagnosis.root { "as root" } else { "not as root" };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "Linux {}, looked at {who}\n", diagnosis.kernel);
    wrapped(text, 0, &summary(diagnosis));
    let width = diagnosis.pairs.iter().map(|pair| pair.name().len()).max().unwrap_or_default();
    for pair in &diagnosis.pairs {
        let line = format!("{:<width$}  {}: {}", pair.name(), pair.conclusion.words(), pair.says);
        let _ = write!(text, "  ");
        wrapped(text, width + 4, &line);
    }
}

/// The verdict in a sentence or two.
fn summary(diagnosis: &Diagnosis) -> String {
    let pairs = &diagnosis.pairs;
    let count = |wanted: fn(Conclusion) -> bool| pairs.iter().filter(|pair| wanted(pair.conclusion)).count();
    let (can, unseen) =
        (count(Conclusion::can_receive), count(|conclusion| conclusion == Conclusion::Unknown));
    if pairs.is_empty() {
        let missing = match (diagnosis.providers.is_empty(), diagnosis.nics.is_empty()) {
            (true, true) => "no provider of device memory and no NIC",
            (true, false) => "no provider of device memory",
            _ => "no NIC",
        };
        let unable = |device: &&Device| device.able == Ability::No;
        let unable: Vec<&str> = diagnosis.nics.iter().filter(unable).map(|nic| nic.name.as_str()).collect();
        let also = match unable.len() {
            0 => String::new(),
            _ => format!(" {} could not receive into it either.", unable.join(", ")),
        };
        return format!("Nothing can be received into device memory: there is {missing}.{also}");
    }
    let of = |number: usize| match pairs.len() {
        1 => "The only pair of provider and NIC".to_owned(),
        all if number == all => format!("All {all} pairs of provider and NIC"),
        all => format!("{number} of {all} pairs of provider and NIC"),
    };
    let hidden = if unseen > 0 { format!(" {unseen} could not be seen.") } else { String::new() };
    match (can, count(|conclusion| conclusion == Conclusion::DeviceMemory)) {
        (0, _) if unseen == pairs.len() => {
            "Whether anything can be received into device memory could not be seen.".to_owned()
        }
        (0, _) => format!("Nothing can be received into device memory now.{hidden}"),
        (can, 0) => {
            let verb = if can == 1 { "works" } else { "work" };
            format!("{} {verb} by devmem TCP; payload lands in system memory.{hidden}", of(can))
        }
        (can, device) => {
            let verb = if can == 1 { "works" } else { "work" };
            format!("{} {verb} by devmem TCP, {device} with payload in device memory.{hidden}", of(can))
        }
    }
}

/// The remedies, what stands in the way first, each once.
fn next_steps(text: &mut String, diagnosis: &Diagnosis) {
    let mut steps: Vec<(String, &str)> = Vec::new();
    for wanted in [State::Obstacle, State::Unknown, State::Caution] {
        for (of, finding) in diagnosis.findings().filter(|(_, finding)| finding.state == wanted) {
            let Some(remedy) = &finding.remedy else { continue };
            let about = match of {
                Some(of) => format!("{of}, {}", finding.about),
                None => finding.about.clone(),
            };
            match steps.iter_mut().find(|(_, known)| known == remedy) {
                Some((subjects, _)) if subjects.contains(&about) => {}
                Some((subjects, _)) => *subjects = format!("{subjects}; {about}"),
                None => steps.push((about, remedy)),
            }
        }
    }
    if steps.is_empty() {
        return;
    }
    heading(text, "What to do");
    for (number, (about, remedy)) in steps.iter().enumerate() {
        let mark = format!("  {}. ", number + 1);
        let _ = write!(text, "{mark}");
        wrapped(text, mark.len(), &format!("{remedy} [{about}]"));
    }
}

fn title(device: &Device) -> String {
    let version = device.driver_version.as_ref().map_or(String::new(), |version| format!(" {version}"));
    let driver = if device.driver.is_empty() { "no driver" } else { &device.driver };
    let place = device.pci.as_ref().map_or(String::new(), |pci| format!(" at {pci}"));
    let node = device.numa_node.map_or(String::new(), |node| format!(", NUMA node {node}"));
    format!("{}{place}: {}, driver {driver}{version}{node}", device.name, device.description)
}

fn heading(text: &mut String, heading: &str) {
    text.push('\n');
    wrapped(text, 2, heading);
}

fn findings(text: &mut String, findings: &[Finding]) {
    for finding in findings {
        let _ = write!(text, "  {:<10}", finding.state);
        wrapped(text, MARGIN, &format!("{}: {}", finding.about, finding.says));
        let mut line = |label: &str, of: &str| {
            let _ = write!(text, "{:MARGIN$}{label}: ", "");
            wrapped(text, MARGIN + 2, of);
        };
        line("found by", &finding.evidence);
        if let Some(remedy) = &finding.remedy {
            line("try", remedy);
        }
    }
}

/// Adds a paragraph to the line that has been begun; the lines after it are indented.
fn wrapped(text: &mut String, indent: usize, paragraph: &str) {
    let start = text.rfind('\n').map_or(0, |end| end + 1);
    let mut column = text[start..].chars().count();
    let mut first = true;
    for word in paragraph.split(' ') {
        let length = word.chars().count();
        if !first && column + 1 + length > WIDTH {
            let _ = write!(text, "\n{:indent$}", "");
            column = indent;
        } else if !first {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
        first = false;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::tests::stand_in;
    use super::*;

    #[test]
    fn the_verdict_comes_first_and_what_to_do_follows() {
        let text = write(&stand_in());
        let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part:?} is not in:\n{text}"));
        let order = [
            "The only pair of provider and NIC works by devmem TCP; payload lands in system memory.",
            "gpu and eth0  works, but lands in system memory: its driver moves it",
            "1. turn on resizable BAR [gpu, memory vram]",
            "caution   memory vram: small window",
            "found by: the driver's answer",
        ];
        let places = order.map(place);
        assert!(places.is_sorted(), "{places:?}\n{text}");
    }

    #[test]
    fn a_remedy_for_several_things_is_one_step() {
        let mut diagnosis = stand_in();
        let again = diagnosis.providers[0].findings[0].clone();
        diagnosis.nics[0].findings.push(again);
        let text = write(&diagnosis);
        assert!(text.contains("1. turn on resizable BAR [gpu, memory vram; eth0, memory vram]"), "{text}");
        assert!(!text.contains("  2. "), "{text}");
    }

    #[test]
    fn an_empty_machine_says_what_is_missing() {
        let mut diagnosis = stand_in();
        (diagnosis.pairs, diagnosis.providers) = (Vec::new(), Vec::new());
        assert!(write(&diagnosis).contains("there is no provider of device memory."));
        diagnosis.nics[0].able = Ability::No;
        assert!(write(&diagnosis).contains("eth0 could not receive"));
    }

    #[test]
    fn lines_are_no_wider_than_words_allow() {
        let mut text = String::new();
        wrapped(&mut text, 4, &"word ".repeat(100));
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with("    ")), "{text}");
    }
}
