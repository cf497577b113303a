//! Reports as JSON, and back.

use devmem_provider::{Error, ErrorKind, Result};

use super::{Report, SCHEMA};

/// One JSON object with a `schema` number; the keys are those of [`Report`].
#[must_use]
pub fn write(reports: &[Report]) -> String {
    let value = serde_json::json!({ "schema": SCHEMA, "reports": reports });
    // Keys are strings and numbers are finite, so that nothing in it cannot be written.
    format!("{value:#}\n")
}

/// Reads what [`write()`] wrote.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] if it is something else, or of a later schema.
pub fn read(text: &str) -> Result<Vec<Report>> {
    #[derive(serde::Deserialize)]
    struct File {
        schema: u32,
        reports: Vec<Report>,
    }
    let refused = |reason: String| Error::new(ErrorKind::InvalidInput, "read a report").because(reason);
    let file: File = serde_json::from_str(text).map_err(|error| refused(error.to_string()))?;
    if file.schema > SCHEMA {
        return Err(refused(format!("its schema is {}, and this version knows {SCHEMA}", file.schema))
            .remedy("read it with the version that wrote it, or a later one"));
    }
    Ok(file.reports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let reports = [Report::stand_in()];
        assert_eq!(read(&write(&reports)).unwrap(), reports);
    }

    #[test]
    fn the_schema_is_what_is_documented() {
        let text = write(&[Report::stand_in()]);
        let expected = include_str!("example.json");
        assert_eq!(text, expected, "keys are only ever added, and a change of meaning raises the schema");
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for text in ["", "{}", "[]", r#"{"schema": 2, "reports": []}"#] {
            assert_eq!(read(text).unwrap_err().kind(), ErrorKind::InvalidInput, "{text}");
        }
    }
}
