//! Lets programs of packages run from the folder that they were unpacked to, on the packages' own C library.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};
use crate::kernel::elf::Elf;

/// Added to the name of a program whose place a script has taken.
const REAL: &str = ".real";

/// Folders with programs that building a kernel module starts: the compiler, its parts, and the kernel's own tools.
const FOLDERS: [&str; 3] = ["usr/bin", "usr/libexec/gcc", "usr/lib"];

/// Puts a script in the place of every dynamically linked program below `root`, which starts the program with the
/// loader and the libraries there. A program still finds what lies beside it, as it is told its own name.
pub(super) fn make_runnable(root: &Path) -> Result<()> {
    for folder in FOLDERS {
        let folder = root.join(folder);
        if folder.is_dir() {
            replace_below(root, &folder)?;
        }
    }
    // By these names the compiler looks for them.
    for name in ["as", "ld"] {
        let link = root.join("usr/bin").join(name);
        if fs::symlink_metadata(&link).is_err() {
            let target = format!("x86_64-linux-gnu-{name}");
            std::os::unix::fs::symlink(target, &link).context(|| format!("create {}", link.display()))?;
        }
    }
    Ok(())
}

fn replace_below(root: &Path, folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).context(|| format!("list {}", folder.display()))? {
        let path = entry.context(|| format!("list {}", folder.display()))?.path();
        let found = fs::symlink_metadata(&path).context(|| format!("look at {}", path.display()))?;
        if found.is_dir() {
            replace_below(root, &path)?;
        } else if found.is_file() && found.permissions().mode() & 0o111 != 0 && is_program(&path)? {
            replace(root, &path)?;
        }
    }
    Ok(())
}

/// Whether a file is a program that needs a loader. The C library is one as well, but others load it.
fn is_program(path: &Path) -> Result<bool> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(REAL) || name.contains(".so") {
        return Ok(false);
    }
    let content = fs::read(path).context(|| format!("read {}", path.display()))?;
    let needs = Elf::parse(&content).and_then(|elf| elf.needs());
    Ok(needs.is_some_and(|needs| needs.interpreter.is_some()))
}

fn replace(root: &Path, program: &Path) -> Result<()> {
    let mut real = program.as_os_str().to_owned();
    real.push(REAL);
    let real = PathBuf::from(real);
    fs::rename(program, &real).context(|| format!("rename {}", program.display()))?;
    let action = || format!("write {}", program.display());
    fs::write(program, script(root, program, &real)).context(action)?;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).context(action)
}

fn script(root: &Path, program: &Path, real: &Path) -> String {
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    format!(
        "#!/bin/sh\nexec {} --library-path {} --argv0 {} {} \"$@\"\n",
        quoted(&root.join("usr/lib64/ld-linux-x86-64.so.2")),
        quoted(&root.join("usr/lib/x86_64-linux-gnu")),
        quoted(program),
        quoted(real)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_program_runs_on_the_loader_beside_it_and_knows_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("it's a root");
        for name in ["usr/bin", "usr/lib64", "usr/lib/x86_64-linux-gnu"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        // This system's own loader and C library stand for the packages'.
        let loader = fs::canonicalize("/lib64/ld-linux-x86-64.so.2").unwrap();
        fs::copy(&loader, root.join("usr/lib64/ld-linux-x86-64.so.2")).unwrap();
        let libraries = loader.parent().unwrap();
        let program = root.join("usr/bin/dash");
        fs::copy("/bin/dash", &program).unwrap();
        let _ = fs::copy(libraries.join("libc.so.6"), root.join("usr/lib/x86_64-linux-gnu/libc.so.6"));
        make_runnable(&root).unwrap();
        make_runnable(&root).unwrap();
        assert!(fs::read(&program).unwrap().starts_with(b"#!/bin/sh"));
        let said = |arguments: &[&str]| {
            let output = Command::new(&program).args(arguments).output().unwrap();
            String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
        };
        assert_eq!(said(&["-c", "echo $0"]), program.to_str().unwrap());
        assert_eq!(said(&["-c", "echo $1 $2", "x", "a b", "c"]), "a b c");
        // The loader that runs it is the one beside it.
        let started = said(&["-c", "readlink /proc/$$/exe"]);
        assert!(started.ends_with("usr/lib64/ld-linux-x86-64.so.2"), "{started}");
        assert!(root.join("usr/bin/as").is_symlink());
    }
}
