//! `man`: the manual pages, from the definition of the command line.

use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};
use devmem_provider::{Error, Result};

use super::Status;
use super::arguments::{Arguments, ManOptions};
use super::run::print;

/// What the pages belong to, for their head.
const MANUAL: &str = "devmem";

/// For the foot of the pages.
const SOURCE: &str = concat!("devmem-conformance ", env!("CARGO_PKG_VERSION"));

/// Pages have no date, so that they are the same whenever they are made. One that is empty would be left out, and what follows
/// it taken for the date.
const NO_DATE: &str = " ";

const EXIT_STATUS: [(Status, &str); 4] = [
    (Status::Success, "Nothing failed. Of doctor: at least one pair of provider and NIC can receive."),
    (
        Status::Failure,
        "A check failed; of compare: something that held no longer does; of restore: a setting is not as it was.",
    ),
    (Status::Usage, "Bad usage, or a file that cannot be read or written."),
    (
        Status::Nothing,
        "There is nothing to check on this machine. Of doctor: no pair can receive, or what decides could not be seen.",
    ),
];

const FILES: [(&str, &str); 4] = [
    (
        "/run/devmem/*.journal.json",
        "What a run has changed on a NIC, until it is put back. One that is left behind by a run that was killed is what \
         restore, and the next run, undo.",
    ),
    ("/run/devmem/*.lock", "Gives a NIC to one process at a time."),
    ("$XDG_RUNTIME_DIR/devmem", "The same for users who may not write to /run."),
    (
        "FOLDER/report.txt, report.ktap, report.xml, report.json, report.html",
        "The report in every format, where --out names a folder.",
    ),
];

const ENVIRONMENT: [(&str, &str); 2] = [
    (
        "DEVMEM_STATE_DIR",
        "The folder for journals and locks, instead of those above. It must be its user's alone.",
    ),
    (
        "DEVMEM_CONFORMANCE_CHECK",
        "Set by run for the processes that it starts, one for each check. Not to be set by others.",
    ),
];

/// What is typed, and what it does.
const EXAMPLES: [(&str, &str); 8] = [
    ("devmem-conformance doctor", "What this machine can do, and what stands in the way."),
    ("devmem-conformance run", "Every provider of this machine, without a NIC."),
    (
        "devmem-conformance run --nic eth1 --peer-namespace /run/netns/peer --provider amdgpu --out report",
        "A GPU with a NIC, to which the machine's other port sends from its network namespace; as root.",
    ),
    ("devmem-conformance run --filter receive:: --shard 1/4", "A quarter of the checks of one group."),
    ("devmem-conformance explain export::whole_size", "What a check proves."),
    ("devmem-conformance compare before/report.json after/report.json", "What changed between two runs."),
    ("devmem-conformance merge a/report.json b/report.json --out all", "One report of two machines."),
    ("devmem-conformance restore eth1", "After a kill: puts back what the NIC was left with."),
];

pub(super) fn man(options: &ManOptions) -> Result<Status> {
    match &options.out {
        Some(folder) => write(folder, &pages())?,
        None => print(&main_page(command()).text)?,
    }
    Ok(Status::Success)
}

/// A manual page.
struct Page {
    /// Such as `devmem-conformance-run.1`.
    file: String,
    text: String,
}

fn write(folder: &Path, pages: &[Page]) -> Result<()> {
    fs::create_dir_all(folder).map_err(|error| Error::from_io(error, "create").on(folder.display()))?;
    for page in pages {
        let path = folder.join(&page.file);
        fs::write(&path, &page.text)
            .map_err(|error| Error::from_io(error, "write a manual page").on(path.display()))?;
    }
    Ok(())
}

/// The program's definition, in which each command knows its full name.
fn command() -> clap::Command {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    command
}

/// The program's page, then those of its commands.
fn pages() -> Vec<Page> {
    let command = command();
    let commands: Vec<Page> = command.get_subcommands().cloned().map(command_page).collect();
    std::iter::once(main_page(command)).chain(commands).collect()
}

fn page_of(command: clap::Command) -> Man {
    Man::new(command).manual(MANUAL).source(SOURCE).date(NO_DATE)
}

fn main_page(command: clap::Command) -> Page {
    let man = page_of(command);
    let text = rendered(|to| {
        man.render_title(to)?;
        man.render_name_section(to)?;
        man.render_synopsis_section(to)?;
        man.render_description_section(to)?;
        man.render_options_section(to)?;
        man.render_subcommands_section(to)?;
        further_sections().to_writer(to)?;
        man.render_version_section(to)
    });
    Page { file: man.get_filename(), text }
}

fn command_page(command: clap::Command) -> Page {
    let man = page_of(command);
    let text = rendered(|to| {
        man.render(to)?;
        let mut roff = Roff::new();
        roff.control("SH", ["SEE ALSO"]);
        roff.text([bold("devmem-conformance"), roman("(1), which tells exit status, files and examples")]);
        roff.to_writer(to)
    });
    Page { file: man.get_filename(), text }
}

fn rendered(page: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> String {
    let mut text = Vec::new();
    // Writing to memory cannot fail.
    let _ = page(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// What the definition of the command line does not know.
fn further_sections() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (status, meaning) in EXIT_STATUS {
        roff.control("TP", []).text([bold((status as u8).to_string())]).text([roman(meaning)]);
    }
    for (heading, entries) in [("FILES", &FILES[..]), ("ENVIRONMENT", &ENVIRONMENT)] {
        roff.control("SH", [heading]);
        for (name, meaning) in entries {
            roff.control("TP", []).text([italic(*name)]).text([roman(*meaning)]);
        }
    }
    roff.control("SH", ["EXAMPLES"]);
    for (typed, meaning) in EXAMPLES {
        roff.control("PP", []).text([roman(meaning)]);
        roff.control("RS", ["4"]).control("nf", []).text([bold(typed)]).control("fi", []).control("RE", []);
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    /// The page as a reader sees it, with no markup of dashes.
    fn plain(page: &Page) -> String {
        page.text.replace("\\-", "-")
    }

    #[test]
    fn every_command_has_a_page_that_the_main_page_names_and_every_option_is_on_its_page() {
        let pages = pages();
        let command = command();
        assert_eq!(pages.len(), 1 + command.get_subcommands().count());
        for command in command.get_subcommands() {
            let name = format!("devmem-conformance-{}", command.get_name());
            assert!(plain(&pages[0]).contains(&format!("{name}(1)")), "{name}");
            let page = pages.iter().find(|page| page.file == format!("{name}.1"));
            let page = plain(page.unwrap_or_else(|| panic!("{name} has no page")));
            for argument in command.get_arguments() {
                let shown = match (argument.get_long(), argument.get_value_names()) {
                    (Some(long), _) => format!("--{long}"),
                    (None, Some([value, ..])) => value.to_string(),
                    other => panic!("{name}: {other:?}"),
                };
                let options = page.split(".SH OPTIONS").nth(1).unwrap_or_default();
                assert!(options.contains(&shown), "{shown} is not on the page of {name}");
            }
        }
    }

    #[test]
    fn the_main_page_has_the_sections_that_readers_look_for() {
        let page = plain(&pages()[0]);
        for section in ["EXIT STATUS", "FILES", "ENVIRONMENT", "EXAMPLES"] {
            assert!(
                page.contains(&format!(".SH \"{section}\"")) || page.contains(&format!(".SH {section}\n")),
                "{section}"
            );
        }
        for (name, _) in FILES.iter().chain(&ENVIRONMENT).chain(&EXAMPLES) {
            assert!(page.contains(name), "{name}");
        }
    }

    #[test]
    fn examples_are_commands_of_this_program() {
        for (typed, _) in EXAMPLES {
            if let Err(error) = Arguments::try_parse_from(typed.split_whitespace()) {
                panic!("{typed}: {error}");
            }
        }
    }
}
