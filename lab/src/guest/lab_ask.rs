//! The command `lab-ask JSON`: puts a question to the lab and prints the answer.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use super::{Context, Result};
use crate::protocol::SOCKET;

/// Returns the exit code: 0, 1 if the answer is an error, 2 if there is none.
pub(super) fn ask(arguments: &[OsString]) -> i32 {
    let [question] = arguments else {
        eprintln!(
            "usage: lab-ask JSON\nPuts a question to the lab, such as '{{\"op\":\"statistics\"}}', and prints its answer."
        );
        return 2;
    };
    match converse(&question.to_string_lossy()) {
        Ok(answer) => {
            print!("{answer}");
            let value: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
            i32::from(value.get("error").is_some())
        }
        Err(reason) => {
            eprintln!("lab-ask: {reason}");
            2
        }
    }
}

fn converse(question: &str) -> Result<String> {
    let mut stream = UnixStream::connect(SOCKET).context(|| format!("connect to {SOCKET}"))?;
    let line = format!("{}\n", question.replace('\n', " "));
    stream.write_all(line.as_bytes()).context(|| format!("write to {SOCKET}"))?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).context(|| format!("read from {SOCKET}"))?;
    Ok(answer)
}
