//! The text of the tutorial: what it quotes, names and breaks.

use std::path::Path;

/// `docs/adding-a-backend.md`.
pub(crate) struct Tutorial {
    text: String,
    blocks: Vec<Block>,
}

/// A block of code in the text.
#[derive(Debug, Clone)]
struct Block {
    language: String,
    text: String,
    /// Where the text goes on behind it, in bytes.
    end: usize,
}

/// Code that must be a part of a file.
#[derive(Debug)]
pub(crate) struct Quote {
    /// Which files it may be from.
    pub(crate) extension: &'static str,
    pub(crate) text: String,
}

/// A change that breaks the backend.
#[derive(Debug)]
pub(crate) struct Break {
    /// The lines that are taken out, and those that come in their place.
    pub(crate) before: String,
    pub(crate) after: String,
    /// The check that the tutorial names for it.
    pub(crate) check: String,
    /// What the tutorial says that the report says.
    pub(crate) report: String,
}

impl Tutorial {
    pub(crate) fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/adding-a-backend.md");
        let text = std::fs::read_to_string(path).unwrap();
        let blocks = blocks(&text);
        Self { text, blocks }
    }

    pub(crate) fn quotes(&self) -> Vec<Quote> {
        let extension = |block: &Block| match block.language.as_str() {
            "rust" => Some("rs"),
            "toml" => Some("toml"),
            _ => None,
        };
        let quote = |block: &Block| Some(Quote { extension: extension(block)?, text: block.text.clone() });
        self.blocks.iter().filter_map(quote).collect()
    }

    /// The full names of checks in it.
    pub(crate) fn checks(&self) -> Vec<String> {
        let is_part =
            |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "_:-".contains(letter);
        let spans = self.text.split('`').filter(|span| span.split("::").count() == 2);
        // Paths of Rust have capitals, or parts that no check has.
        let names = spans
            .filter(|span| span.chars().all(is_part) && !span.starts_with("devmem_") && !span.ends_with(':'));
        names.map(str::to_owned).collect()
    }

    /// Each `diff`, with the check that is named behind it and the report that is shown.
    pub(crate) fn breaks(&self) -> Vec<Break> {
        let mut breaks = Vec::new();
        for pair in self.blocks.windows(2) {
            let [diff, report] = pair else { continue };
            if diff.language != "diff" {
                continue;
            }
            assert_eq!(report.language, "text", "behind a diff comes what the report says");
            let between = &self.text[diff.end..report.end];
            let check = between.split("--filter =").nth(1).and_then(|rest| rest.split(['`', ' ']).next());
            let lines = |sign: char| -> String {
                diff.text.lines().filter_map(|line| Some(format!("{}\n", line.strip_prefix(sign)?))).collect()
            };
            breaks.push(Break {
                before: lines('-'),
                after: lines('+'),
                check: check.expect("behind a diff the check is named").to_owned(),
                report: report.text.clone(),
            });
        }
        breaks
    }
}

impl Quote {
    /// Whether a file has these lines one after the other. Within a list they are indented by other spaces, all alike.
    pub(crate) fn is_part_of(&self, source: &str) -> bool {
        let wanted: Vec<&str> = self.text.lines().collect();
        let lines: Vec<&str> = source.lines().collect();
        let is_same = |found: &[&str]| without_indent(found) == without_indent(&wanted);
        lines.windows(wanted.len()).any(is_same)
    }
}

/// The lines without the spaces that all of them begin with.
fn without_indent(lines: &[&str]) -> Vec<String> {
    let spaces = |line: &&str| line.len() - line.trim_start().len();
    let common = lines.iter().filter(|line| !line.trim().is_empty()).map(spaces).min().unwrap_or(0);
    lines.iter().map(|line| line.get(common..).unwrap_or_default().to_owned()).collect()
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut position = 0;
    for line in text.split_inclusive('\n') {
        position += line.len();
        match (&mut open, line.trim().strip_prefix("```")) {
            (None, Some(language)) => {
                open = Some(Block { language: language.to_owned(), text: String::new(), end: 0 });
            }
            (Some(block), None) => block.text.push_str(line),
            (Some(block), Some(_)) => {
                block.end = position;
                blocks.extend(open.take());
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block of code has no end");
    blocks
}

#[test]
fn a_quote_that_differs_in_one_letter_is_found() {
    let source = "fn a() {\n    let b = 1;\n    let c = 2;\n}\n";
    let quote = |text: &str| Quote { extension: "rs", text: text.to_owned() };
    assert!(quote("    let b = 1;\n    let c = 2;\n").is_part_of(source));
    assert!(quote("   let b = 1;\n   let c = 2;\n").is_part_of(source));
    assert!(!quote("    let b = 1;\n    let c = 3;\n").is_part_of(source));
    assert!(!quote("    let b = 1;\n}\n").is_part_of(source));
}
