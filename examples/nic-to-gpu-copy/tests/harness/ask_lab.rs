//! The lab asked for its word.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ensure;
use crate::guest::{Failure, LIMIT, Outcome};

/// Asks the lab.
pub(crate) fn ask_lab(question: &Value) -> Result<Value, Failure> {
    let mut connection = UnixStream::connect("/run/devmem-lab.sock")?;
    writeln!(connection, "{question}")?;
    let mut answer = String::new();
    BufReader::new(connection).read_line(&mut answer)?;
    let answer: Value = serde_json::from_str(&answer)?;
    ensure!(answer.get("error").is_none(), "{question}: {answer}");
    Ok(answer)
}

/// Lets the lab count from here.
pub(crate) fn count_anew() -> Outcome {
    ask_lab(&json!({ "op": "ground_truth_start" }))?;
    Ok(())
}

/// Waits until one of the lab's counts has come to a mebibyte, while the sender goes on.
pub(crate) fn wait_for_a_mebibyte(count: &str, sender: &mut Child) -> Outcome {
    let deadline = Instant::now() + LIMIT;
    while ask_lab(&json!({ "op": "ground_truth" }))?[count].as_u64() < Some(1 << 20) {
        ensure!(sender.try_wait()?.is_none(), "the sender ended by itself");
        ensure!(Instant::now() < deadline, "nothing arrived");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
