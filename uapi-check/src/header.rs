//! What a header should say, and whether it does.

use std::collections::HashSet;
use std::fmt;
use std::io::Write;

use crate::compiler::{Failure, Preprocessed, check_syntax, preprocess};

/// What a header should say: expressions in C and their values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    path: &'static str,
    expected: Vec<(String, i128)>,
}

/// How much of what a header should say was compared. All of that is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// How many values were compared.
    pub compared: usize,
    /// The expressions that could not be compared.
    pub missing: Vec<String>,
    /// Why they could not.
    pub reason: String,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} compared and right", self.compared, self.compared + self.missing.len())?;
        match (self.missing.len(), self.compared) {
            (0, _) => Ok(()),
            (_, 0) => write!(f, ": {}", self.reason),
            (missing, _) => write!(f, "; {missing} {}: {}", self.reason, self.missing.join(", ")),
        }
    }
}

impl Header {
    /// Nothing is expected yet of the header with this path, as it is included: `linux/dma-buf.h`.
    #[must_use]
    pub fn new(path: &'static str) -> Self {
        Self { path, expected: Vec::new() }
    }

    /// Whether this system has the header, and a compiler that finds it.
    #[must_use]
    pub fn is_installed(&self) -> bool {
        matches!(preprocess(&format!("#include <{}>\n", self.path)), Ok(Preprocessed::Text(_)))
    }

    /// The path as it is included.
    #[must_use]
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// Expects a value of an expression: a constant, `sizeof(...)` or `offsetof(...)`.
    #[must_use]
    pub fn value(self, expression: impl Into<String>, value: impl Into<i128>) -> Self {
        self.values([(expression.into(), value.into())])
    }

    /// Expects values, such as those of [`constants!`](crate::constants) and [`layouts!`](crate::layouts).
    #[must_use]
    pub fn values(mut self, expected: impl IntoIterator<Item = (String, i128)>) -> Self {
        self.expected.extend(expected);
        self
    }

    /// Compares what the header knows.
    ///
    /// # Errors
    /// In the compiler's words: a value is another one, or the header does not compile.
    pub fn compare(&self) -> Result<Comparison, Failure> {
        let include = format!("#include <{}>\n", self.path);
        let text = match preprocess(&include)? {
            Preprocessed::Text(text) => text,
            Preprocessed::Impossible(reason) => {
                let missing = self.expected.iter().map(|(expression, _)| expression.clone()).collect();
                return Ok(Comparison { compared: 0, missing, reason });
            }
        };
        let known: HashSet<_> = words(&text).collect();
        // An expression is known if each of its names is: a constant, a structure, a member.
        let (present, absent): (Vec<_>, Vec<_>) = self.expected.iter().partition(|(expression, _)| {
            words(expression)
                .filter(|word| !["struct", "sizeof", "offsetof"].contains(word))
                .all(|word| known.contains(word))
        });
        let mut program = format!("#include <stddef.h>\n{include}");
        for (expression, value) in &present {
            let suffix = if *value < 0 { "ll" } else { "ull" };
            let message = format!("{expression} is not {value}");
            program.push_str(&format!("_Static_assert(({expression}) == {value}{suffix}, \"{message}\");\n"));
        }
        check_syntax(&program)?;
        Ok(Comparison {
            compared: present.len(),
            missing: absent.into_iter().map(|(expression, _)| expression.clone()).collect(),
            reason: "not in these headers".to_owned(),
        })
    }

    /// Compares what the header knows, for a unit test. What could not be compared is told on standard error,
    /// past the capture of a passing test's output.
    ///
    /// # Panics
    /// A value is another one, the header does not compile, or it is missing although `UAPI_HEADERS` names a folder
    /// of headers.
    pub fn assert(&self) {
        let comparison = match self.compare() {
            Ok(comparison) => comparison,
            Err(failure) => panic!("<{}>: {failure}", self.path),
        };
        assert!(
            comparison.compared > 0 || std::env::var_os("UAPI_HEADERS").is_none(),
            "<{}>, with the headers in UAPI_HEADERS: {comparison}",
            self.path
        );
        if !comparison.missing.is_empty() {
            // Nothing else is to be done where even that fails.
            let _ = std::io::stderr().write_all(format!("\n<{}>: {comparison}\n", self.path).as_bytes());
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_value_fails_in_the_compilers_words() {
        let header = |bits: i32| Header::new("limits.h").value("CHAR_BIT", bits).value("SCHAR_MIN", -128);
        let right = header(8).compare().unwrap();
        if right.compared == 0 {
            let _ = writeln!(std::io::stderr(), "{right}");
            return;
        }
        assert_eq!((right.compared, right.missing.len()), (2, 0), "{right}");
        let failure = header(9).compare().unwrap_err().to_string();
        assert!(failure.contains("CHAR_BIT is not 9"), "{failure}");
    }

    #[test]
    fn what_cannot_be_compared_is_told() {
        let absent = Header::new("linux/no-such-header.h").value("A", 1).value("B", -1).compare().unwrap();
        assert_eq!((absent.compared, absent.missing.len()), (0, 2));
        assert!(absent.to_string().starts_with("0 of 2 compared and right: "), "{absent}");
        let partly =
            Header::new("limits.h").value("CHAR_BIT", 8).value("NO_SUCH_LIMIT", 1).compare().unwrap();
        assert!(partly.missing.contains(&"NO_SUCH_LIMIT".to_owned()), "{partly}");
    }
}
