//! apt with configuration, lists and downloads of its own.
//!
//! The machine's configuration is not used, so that none of its hooks run and none of its folders are
//! touched; only how to reach the network (proxies and the like) is taken over from it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::mirror::Mirror;
use super::{Progress, readable_size};
use crate::cache::write_whole;
use crate::error::{Context, Error, Result};

/// Packages that the wanted ones depend on by their installation scripts only, or for features that
/// are not used. They are declared as installed.
const NOT_NEEDED: [&str; 18] = [
    "adduser",
    "base-files",
    "base-passwd",
    "debconf",
    "debianutils",
    "dpkg",
    "initramfs-tools",
    "ipxe-qemu",
    "kmod",
    "libasan8",
    "libhwasan0",
    "liblsan0",
    "libtsan2",
    "libubsan1",
    "linux-initramfs-tool",
    "login.defs",
    "passwd",
    "perl-base",
];

/// Settings of the machine's own configuration that say how to reach the network.
const TAKEN_OVER: [&str; 8] = [
    "Acquire::http",
    "Acquire::https",
    "Acquire::tor",
    "Acquire::Retries",
    "Acquire::ForceIPv",
    "Acquire::Check-",
    "Acquire::Max-",
    "Acquire::Queue-Mode",
];

/// Which packages to download.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted<'a> {
    /// These and all that they depend on.
    WithDependencies(&'a [&'a str]),
    /// These only.
    Alone(&'a [&'a str]),
}

impl<'a> Wanted<'a> {
    /// The names that are asked for.
    pub(crate) fn packages(self) -> &'a [&'a str] {
        let (Self::WithDependencies(packages) | Self::Alone(packages)) = self;
        packages
    }
}

/// How long package lists are good for without asking again.
const FRESH: Duration = Duration::from_secs(600);

/// A private apt.
#[derive(Debug)]
pub(crate) struct Apt {
    folder: PathBuf,
    target_release: String,
    sources: String,
}

/// A downloaded package whose digest apt has verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Archive {
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
}

impl Apt {
    /// Writes the configuration: these suites of this mirror, later ones preferred.
    pub(crate) fn prepare(folder: &Path, mirror: &Mirror, suites: &[String]) -> Result<Self> {
        let Some(target_release) = suites.last().cloned() else {
            return Err(Error::option("--suite", "at least one suite is needed"));
        };
        for name in ["lists/partial", "archives/partial", "no-archives/partial", "nothing"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).context(|| format!("create {}", path.display()))?;
        }
        write_whole(&folder.join("status"), status_file().as_bytes())?;
        let sources = sources(mirror, suites);
        write_whole(&folder.join("lab.sources"), sources.as_bytes())?;
        write_whole(&folder.join("apt.conf"), configuration(folder, &network_settings()).as_bytes())?;
        Ok(Self { folder: folder.to_owned(), target_release, sources })
    }

    /// Fetches the lists of packages and verifies their signatures, unless that was done a moment ago.
    pub(crate) fn update(&self, progress: &dyn Progress) -> Result<()> {
        let stamp = self.folder.join("updated");
        if fs::read_to_string(&stamp).is_ok_and(|text| text == self.sources) && is_fresh(&stamp) {
            return Ok(());
        }
        progress.step("fetching the package lists");
        let mut command = self.command("apt-get");
        command.args(["-qq", "-o", "APT::Status-Fd=1", "-o", "APT::Update::Error-Mode=any", "update"]);
        watch(command, "fetching the package lists", progress)?;
        write_whole(&stamp, self.sources.as_bytes())
    }

    /// The names of all real packages that begin with `prefix`.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let mut command = self.command("apt-cache");
        command.args(["pkgnames", prefix]);
        let output = finish(command, "listing packages")?;
        Ok(output.lines().map(str::to_owned).collect())
    }

    /// The versions of a package that are on offer.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let mut command = self.command("apt-cache");
        command.args(["madison", package]);
        // NAME | VERSION | SOURCE
        let output = finish(command, "listing versions")?;
        Ok(output.lines().filter_map(|line| Some(line.split('|').nth(1)?.trim().to_owned())).collect())
    }

    /// Downloads packages. What was downloaded before is used again.
    pub(crate) fn download(&self, wanted: Wanted<'_>, progress: &dyn Progress) -> Result<Vec<Archive>> {
        let packages = wanted.packages();
        let action: &[&str] = match wanted {
            Wanted::WithDependencies(_) => &["--download-only", "install"],
            Wanted::Alone(_) => &["download"],
        };
        let arguments = ["-qq", "-y", "-t", self.target_release.as_str()];
        // apt lists only what is not yet there, so it is shown a folder where nothing is.
        let nowhere = format!("Dir::Cache::archives={}/", self.folder.join("no-archives").display());
        let mut list = self.command("apt-get");
        list.args(arguments).args(["-o", &nowhere, "--print-uris"]).args(action).args(packages);
        let listed = finish(list, "resolving dependencies")?;
        let archives: Vec<Archive> = listed.lines().filter_map(|line| self.archive(line)).collect();
        if archives.is_empty() {
            return Err(Error::Packages {
                action: format!("resolving the dependencies of {}", packages.join(", ")),
                output: listed,
                remedy: "apt listed no package to download".into(),
            });
        }
        let total: u64 = archives.iter().map(|archive| archive.size).sum();
        let have: u64 =
            archives.iter().filter(|archive| archive.is_complete()).map(|archive| archive.size).sum();
        if have < total {
            let missing = archives.iter().filter(|archive| !archive.is_complete()).count();
            let size = readable_size(total - have);
            progress.step(&format!("downloading {missing} of {} packages, {size}", archives.len()));
            let mut command = self.command("apt-get");
            // Packages without dependencies are downloaded to the working folder.
            command.args(arguments).args(["-o", "APT::Status-Fd=1"]).args(action).args(packages);
            command.current_dir(self.folder.join("archives"));
            watch(command, "downloading packages", progress)?;
            for archive in &archives {
                // A copy of what was downloaded to the working folder.
                let _ = fs::remove_file(self.folder.join("archives/partial").join(archive.name()));
            }
        }
        match archives.iter().find(|archive| !archive.is_complete()) {
            None => Ok(archives),
            Some(missing) => Err(Error::Packages {
                action: "downloading packages".into(),
                output: format!("apt reported success, but {} is not there", missing.path.display()),
                remedy: "run `cargo lab fetch` again".into(),
            }),
        }
    }

    /// Reads a line of `--print-uris`: 'address' file-name size digest.
    fn archive(&self, line: &str) -> Option<Archive> {
        let mut words = line.strip_prefix('\'')?.split_once("' ")?.1.split(' ');
        let name = words.next()?;
        let size = words.next()?.parse().ok()?;
        (!name.contains('/')).then(|| Archive { path: self.folder.join("archives").join(name), size })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", self.folder.join("apt.conf"))
            .env("HOME", &self.folder)
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null());
        // Should the lab be killed, nobody else holds the lock on these folders.
        crate::child::prepare(&mut command, Vec::new());
        command
    }
}

impl Archive {
    fn is_complete(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| found.len() == self.size)
    }

    /// The package's file name.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

fn is_fresh(stamp: &Path) -> bool {
    let written = fs::metadata(stamp).and_then(|found| found.modified());
    written.is_ok_and(|written| written.elapsed().is_ok_and(|age| age < FRESH))
}

fn status_file() -> String {
    NOT_NEEDED
        .iter()
        .map(|name| {
            format!(
                "Package: {name}\nStatus: install ok installed\nArchitecture: all\nMulti-Arch: foreign\n\
                 Version: 9999:1\nMaintainer: none <none@localhost>\nDescription: not needed by the lab\n\n"
            )
        })
        .collect()
}

fn sources(mirror: &Mirror, suites: &[String]) -> String {
    format!(
        "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\nArchitectures: amd64\nSigned-By: {}\n",
        mirror.address,
        suites.join(" "),
        mirror.keyring.display()
    )
}

fn configuration(folder: &Path, network: &str) -> String {
    let folder = folder.display();
    format!(
        r#"Dir::Etc::parts "{folder}/nothing";
Dir::Etc::main "/dev/null";
Dir::Etc::sourcelist "{folder}/lab.sources";
Dir::Etc::sourceparts "{folder}/nothing";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "{folder}/nothing";
Dir::State "{folder}";
Dir::State::lists "{folder}/lists";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}";
Dir::Cache::archives "{folder}/archives";
Dir::Cache::srcpkgcache "";
Dir::Log "{folder}";
Debug::NoLocking "1";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Install-Recommends "false";
APT::Get::List-Cleanup "true";
APT::Sandbox::User "";
Binary::apt-get::APT::Keep-Downloaded-Packages "true";
{network}"#
    )
}

fn network_settings() -> String {
    let output = Command::new("apt-config").args(["dump", "Acquire"]).stdin(Stdio::null()).output();
    output.map(|output| take_over(&String::from_utf8_lossy(&output.stdout))).unwrap_or_default()
}

fn take_over(dump: &str) -> String {
    let wanted = |line: &&str| TAKEN_OVER.iter().any(|prefix| line.starts_with(prefix));
    dump.lines().filter(wanted).map(|line| format!("{line}\n")).collect()
}

fn missing(program: &str) -> Error {
    Error::MissingProgram {
        program: program.to_owned(),
        remedy:
            "install the packages apt and dpkg, or bring your own builds with --qemu PATH and --kernel PATH"
                .into(),
    }
}

fn finish(mut command: Command, action: &str) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|_| missing(&program))?;
    if !output.status.success() {
        return Err(failure(action, &output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn failure(action: &str, said: &[u8]) -> Error {
    Error::Packages {
        action: action.to_owned(),
        output: String::from_utf8_lossy(said).trim_end().to_owned(),
        remedy: "check the network, the free space, and the mirror (--mirror URL, --keyring FILE); what was downloaded \
                 is kept"
            .into(),
    }
}

/// Runs apt and passes on how far it is, from the status lines on its standard output.
fn watch(mut command: Command, action: &str, progress: &dyn Progress) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|_| missing(&program))?;
    let mut errors = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(errors) = &mut errors {
            // A broken pipe only shortens the message.
            let _ = errors.read_to_end(&mut said);
        }
        said
    });
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
            if let Some(done) = fraction(&line) {
                progress.fraction(done);
            }
        }
    }
    let status = child.wait().context(|| format!("wait for {program}"))?;
    let said = reader.join().unwrap_or_default();
    if status.success() { Ok(()) } else { Err(failure(action, &said)) }
}

/// Reads "dlstatus:FILE:PERCENT:TEXT".
fn fraction(line: &str) -> Option<f64> {
    let percent: f64 = line.strip_prefix("dlstatus:")?.split(':').nth(1)?.parse().ok()?;
    Some((percent / 100.0).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_are_read() {
        assert_eq!(fraction("dlstatus:6:50.0000:Retrieving file 6 of 6"), Some(0.5));
        assert_eq!(fraction("dlstatus:6:nonsense:x"), None);
        assert_eq!(fraction("Reading package lists..."), None);
    }

    #[test]
    fn download_lines_are_read() {
        let apt = Apt { folder: "/c".into(), target_release: "x".into(), sources: String::new() };
        let line = "'http://m.invalid/pool/q_11%2b1.deb' qemu_1%3a11.1_amd64.deb 10377056 SHA256:00";
        let expected = Archive { path: "/c/archives/qemu_1%3a11.1_amd64.deb".into(), size: 10_377_056 };
        assert_eq!(apt.archive(line), Some(expected));
        assert_eq!(apt.archive("'http://m.invalid/x' ../x 1"), None);
        assert_eq!(apt.archive("E: nothing"), None);
    }

    #[test]
    fn only_network_settings_are_taken_over() {
        let dump = "Acquire \"\";\nAcquire::http::Proxy \"http://p.invalid\";\nAcquire::IndexTargets::x \"\";\n\
                    Acquire::Check-Valid-Until \"false\";\nDir::Etc \"x\";\n";
        let expected = "Acquire::http::Proxy \"http://p.invalid\";\nAcquire::Check-Valid-Until \"false\";\n";
        assert_eq!(take_over(dump), expected);
    }
}
