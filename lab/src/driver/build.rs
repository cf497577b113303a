//! Builds a module with the kernel's own build system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::SourceDriver;
use super::programs::make_runnable;
use crate::error::{Context, Error, Result};

/// The file in the folder of the source that is the driver.
const BUILD: &str = "driver";

/// Builds `driver`, whose source lies in `source`, for the kernel `release`. In `root` lie its headers, the compiler and
/// the tools, unpacked. Returns the module's file, below `root`.
pub(crate) fn build(root: &Path, source: &Path, driver: &SourceDriver, release: &str) -> Result<PathBuf> {
    make_runnable(root)?;
    let folder = root.join(BUILD);
    copy(source, &folder)?;
    let headers = root.join(format!("usr/src/linux-headers-{release}"));
    let common = common_headers(root, &headers)?;
    let bin = root.join("usr/bin");
    let make = bin.join("make");
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let variable = |name: &str, value: &Path| format!("{name}={}", value.display());
    let mut command = clean(&make, &bin);
    command
        .arg("-C")
        .arg(&common)
        .arg(format!("-j{processors}"))
        // What make starts for a part of the work is make itself, not the program behind the script.
        .arg(variable("MAKE", &make))
        .arg(variable("KBUILD_OUTPUT", &headers))
        .arg(variable("M", &folder))
        .arg(format!("{}=m", driver.option))
        .arg("modules");
    run(command, driver, release)?;
    let module = folder.join(format!("{}.ko", driver.module));
    let mut strip = clean(&bin.join("x86_64-linux-gnu-strip"), &bin);
    strip.arg("--strip-debug").arg(&module);
    run(strip, driver, release)?;
    Ok(module)
}

/// A program without anything of this process's environment but a path to other programs.
fn clean(program: &Path, bin: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", format!("{}:/usr/bin:/bin", bin.display())).env("LC_ALL", "C");
    command.stdin(Stdio::null());
    crate::child::prepare(&mut command, Vec::new());
    command
}

fn run(mut command: Command, driver: &SourceDriver, release: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().context(|| format!("start {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    Err(Error::Packages {
        action: format!("building the driver {} for the kernel {release}", driver.module),
        output: lines[lines.len().saturating_sub(30)..].join("\n"),
        remedy: "choose another kernel (`cargo lab kernels`), or bring one that has the driver with --kernel PATH and \
                 --modules FOLDER"
            .into(),
    })
}

/// The folder with what the headers of all flavours have in common: the makefile in `headers` names it, by where it would
/// be if it were installed.
fn common_headers(root: &Path, headers: &Path) -> Result<PathBuf> {
    let makefile = headers.join("Makefile");
    let text = fs::read_to_string(&makefile).context(|| format!("read {}", makefile.display()))?;
    let included = text.lines().find_map(|line| line.strip_prefix("include /")?.strip_suffix("/Makefile"));
    included
        .map(|path| root.join(path))
        .filter(|path| path.is_dir())
        .ok_or_else(|| Error::format(&makefile, "names no folder with the kernel's makefile"))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let action = || format!("copy {} to {}", from.display(), to.display());
    fs::create_dir_all(to).context(action)?;
    for entry in fs::read_dir(from).context(action)? {
        let entry = entry.context(action)?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target).context(action)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::EFA;

    #[test]
    fn the_common_headers_are_found_below_the_root() {
        let root = tempfile::tempdir().unwrap();
        let headers = root.path().join("usr/src/linux-headers-7.2-cloud");
        let common = root.path().join("usr/src/linux-headers-7.2-common");
        fs::create_dir_all(&headers).unwrap();
        let text = "KBUILD_OUTPUT=/usr/src/x\ninclude /usr/src/linux-headers-7.2-common/Makefile\n";
        fs::write(headers.join("Makefile"), text).unwrap();
        assert!(common_headers(root.path(), &headers).is_err());
        fs::create_dir_all(&common).unwrap();
        assert_eq!(common_headers(root.path(), &headers).unwrap(), common);
    }

    #[test]
    fn what_the_compiler_said_is_told() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo 'efa.c:7: error: no' >&2; exit 2"]);
        let error = run(command, &EFA, "7.2.12").unwrap_err().to_string();
        assert!(error.contains("efa for the kernel 7.2.12") && error.contains("efa.c:7: error"), "{error}");
    }
}
