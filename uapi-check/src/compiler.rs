//! The C compiler that reads the headers.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Why something could not be compared, or that it is wrong.
pub type Failure = Box<dyn std::error::Error>;

pub(crate) enum Preprocessed {
    /// The program with everything included, definitions of macros too.
    Text(String),
    /// For this reason.
    Impossible(String),
}

/// Includes what a program includes.
pub(crate) fn preprocess(program: &str) -> Result<Preprocessed, Failure> {
    Ok(match compile(&["-E", "-dD"], program)? {
        Some(Ok(text)) => Preprocessed::Text(text),
        Some(Err(words)) => Preprocessed::Impossible(words.lines().next().unwrap_or_default().to_owned()),
        None => Preprocessed::Impossible("there is no C compiler, `cc`".to_owned()),
    })
}

/// Fails in the compiler's words if a program is wrong.
pub(crate) fn check_syntax(program: &str) -> Result<(), Failure> {
    let result = compile(&["-fsyntax-only"], program)?.ok_or("the compiler vanished")?;
    Ok(result.map(drop)?)
}

/// `None` if there is no compiler; otherwise what it wrote, as an error if it failed.
fn compile(options: &[&str], program: &str) -> Result<Option<Result<String, String>>, Failure> {
    let mut command = Command::new("cc");
    if let Some(folder) = std::env::var_os("UAPI_HEADERS") {
        let machine = Path::new(&folder).join(format!("{}-linux-gnu", std::env::consts::ARCH));
        command.arg("-isystem").arg(&folder).arg("-isystem").arg(machine);
    }
    // The reasons of a compiler are quoted, in one language for everyone.
    command.args(["-x", "c"]).args(options).arg("-").env("LC_ALL", "C");
    let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match started {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        started => started?,
    };
    child.stdin.take().ok_or("no input")?.write_all(program.as_bytes())?;
    let output = child.wait_with_output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Some(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }))
}
