//! Asks a C compiler what the headers say.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::expectations::Group;

pub(crate) enum Compared {
    All,
    /// Those that the headers lack; the others are right.
    AllBut(Vec<String>),
    /// For this reason.
    Nothing(String),
}

type Failure = Box<dyn std::error::Error>;

/// Compares every expectation that the headers know; fails if one is wrong.
pub(crate) fn compare(group: &Group) -> Result<Compared, Failure> {
    let include = format!("#include <linux/{}>\n", group.header);
    let text = match compile(&["-E", "-dD"], &include)? {
        Some((true, text)) => text,
        Some((false, _)) => return Ok(Compared::Nothing("the system has no such header".to_owned())),
        None => return Ok(Compared::Nothing("there is no C compiler (`cc`)".to_owned())),
    };
    let words: std::collections::HashSet<_> =
        text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').collect();
    // An expression is known if the last word of each of its parts is: a constant, a structure, a member.
    let known = |expression: &str| {
        expression
            .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
            .filter(|word| !["", "struct", "sizeof", "offsetof"].contains(word))
            .all(|word| words.contains(word))
    };
    let (present, absent): (Vec<_>, Vec<_>) =
        group.expected.iter().partition(|(expression, _)| known(expression));
    let mut program = format!("#include <stddef.h>\n{include}");
    for (expression, value) in &present {
        let message = format!("{expression} is not {value}");
        program.push_str(&format!("_Static_assert(({expression}) == {value}ull, \"{message}\");\n"));
    }
    let (success, output) = compile(&["-fsyntax-only"], &program)?.ok_or("the compiler vanished")?;
    if !success {
        return Err(output.into());
    }
    if absent.is_empty() {
        return Ok(Compared::All);
    }
    Ok(Compared::AllBut(absent.into_iter().map(|(expression, _)| expression.clone()).collect()))
}

/// `None` if there is no compiler; otherwise whether it succeeded, and what it wrote.
fn compile(options: &[&str], program: &str) -> Result<Option<(bool, String)>, Failure> {
    let mut command = Command::new("cc");
    if let Some(folder) = std::env::var_os("UAPI_HEADERS") {
        let machine = Path::new(&folder).join(format!("{}-linux-gnu", std::env::consts::ARCH));
        command.arg("-isystem").arg(&folder).arg("-isystem").arg(machine);
    }
    command.args(["-x", "c"]).args(options).arg("-");
    let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match started {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        started => started?,
    };
    child.stdin.take().ok_or("no input")?.write_all(program.as_bytes())?;
    let output = child.wait_with_output()?;
    let text = if output.status.success() { output.stdout } else { output.stderr };
    Ok(Some((output.status.success(), String::from_utf8_lossy(&text).into_owned())))
}
