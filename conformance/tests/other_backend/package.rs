//! The package of the tutorial, as it is and broken.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::tutorial::Break;

/// The name of its program.
const PROGRAM: &str = "conformance";

/// What the copies of a package need.
const FILES: [&str; 5] = ["Cargo.toml", "Cargo.lock", "src/lib.rs", "src/sys.rs", "examples/conformance.rs"];

/// A package on its own.
pub(crate) struct Package {
    folder: PathBuf,
}

impl Package {
    /// `docs/tutorial-backend`.
    pub(crate) fn original() -> Self {
        Self { folder: repository().join("docs/tutorial-backend") }
    }

    /// A copy with something broken, in a folder of that name.
    pub(crate) fn broken(name: &str, how: &Break) -> Self {
        let folder = scratch().join(name);
        let from = Self::original();
        let mut places = 0;
        for file in FILES {
            let to = folder.join(file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            let text = fs::read_to_string(from.folder.join(file)).unwrap();
            places += text.matches(&how.before).count();
            let text = text.replace(&how.before, &how.after);
            fs::write(to, elsewhere(file, &text, name)).unwrap();
        }
        assert_eq!(places, 1, "the lines that are taken out are in {places} places:\n{}", how.before);
        Self { folder }
    }

    /// Its files with this extension.
    pub(crate) fn files_with(&self, extension: &str) -> Vec<(PathBuf, String)> {
        let paths = FILES.map(|file| self.folder.join(file)).into_iter();
        let paths = paths.filter(|path| path.extension().is_some_and(|found| found == extension));
        paths.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
    }

    /// Builds its program without the network, with the versions of its own lock file, and puts it aside.
    pub(crate) fn build(&self) -> PathBuf {
        // One at a time: all build into the same place, where they share what they depend on.
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let target = scratch();
        let output = Command::new(env!("CARGO"))
            .args(["build", "--offline", "--locked", "--quiet", "--example", PROGRAM, "--manifest-path"])
            .arg(self.folder.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            // Four of them are put into the guest.
            .env("CARGO_PROFILE_DEV_DEBUG", "none")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\nCONTRIBUTING.md tells how its lock file is renewed");
        let aside = target.join(format!("program-of-{}", self.folder.file_name().unwrap().display()));
        fs::copy(target.join("debug/examples").join(PROGRAM), &aside).unwrap();
        aside
    }
}

/// A file of the package as it must be in a copy of that name.
///
/// The copy has another name, for packages of the same name at the root of their workspaces are one to cargo, which would
/// take what it built of one for the other's.
fn elsewhere(file: &str, text: &str, name: &str) -> String {
    let own_name =
        |text: &str| text.replace("name = \"system-heap\"", &format!("name = \"system-heap-{name}\""));
    match file {
        "Cargo.toml" => {
            let paths = text.replace("\"../../", &format!("\"{}/", repository().display()));
            format!("{}\n[lib]\nname = \"system_heap\"\n", own_name(&paths))
        }
        "Cargo.lock" => own_name(text),
        _ => text.to_owned(),
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Where the package and its copies are built: a folder of their own beside what cargo builds here.
fn scratch() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("tutorial")
}

/// Every crate that the package needs is one of this repository's lock file, so that nothing is to be fetched.
#[test]
fn the_lock_file_asks_for_nothing_new() {
    let crates = |path: PathBuf| -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        let packages = text.split("[[package]]\n").skip(1);
        packages.filter(|package| package.contains("source = ")).map(head).collect()
    };
    let ours = crates(repository().join("Cargo.lock"));
    let its = crates(Package::original().folder.join("Cargo.lock"));
    assert!(!its.is_empty());
    for package in its {
        assert!(ours.contains(&package), "the repository's lock file has no {package}; see CONTRIBUTING.md");
    }
}

/// The name and the version of a package of a lock file.
fn head(package: &str) -> String {
    package.lines().take(2).collect::<Vec<_>>().join(" ")
}
