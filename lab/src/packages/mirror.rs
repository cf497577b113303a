//! Which server the packages come from, and which keys prove that they are the distribution's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Context, Error, Result};

/// Where Debian keeps the keys that sign its archive; newer releases use the second name.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// Suites that stand for Debian's archive itself when a machine's configuration names them: those of
/// releases, without the separate archive of security updates.
const RELEASES: [&str; 12] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
    "experimental",
];

/// A server with the distribution's packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// Address, as apt understands it.
    pub(crate) address: String,
    /// Keys that sign the package lists.
    pub(crate) keyring: PathBuf,
}

impl Mirror {
    /// The named server, or the one that this machine's own package configuration uses.
    pub(crate) fn find(address: Option<&str>, keyring: Option<&Path>) -> Result<Self> {
        let address = match address {
            Some(address) => address.trim_end_matches('/').to_owned(),
            None => configured()?,
        };
        let keyring = match keyring {
            Some(path) if path.is_file() => path
                .canonicalize()
                .context(|| format!("resolve {}", path.display()))?,
            Some(path) => return Err(Error::option(format!("--keyring {}", path.display()), "no such file")),
            None => KEYRINGS.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or_else(|| {
                Error::option(
                    "--keyring",
                    format!(
                        "the keys of the Debian archive are not at {}; install the package debian-archive-keyring, \
                         or name a file with these keys",
                        KEYRINGS.join(" or ")
                    ),
                )
            })?,
        };
        if address.contains(char::is_whitespace) || address.is_empty() {
            return Err(Error::option(format!("--mirror {address:?}"), "is not an address"));
        }
        Ok(Self { address, keyring })
    }
}

fn configured() -> Result<String> {
    // Without `--no-release-info` only those targets are shown whose lists were downloaded already,
    // and a fresh container has none.
    let arguments =
        ["indextargets", "--no-release-info", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages"];
    let output = Command::new("apt-get").args(arguments).output().map_err(|_| Error::MissingProgram {
        program: "apt-get".into(),
        remedy: "the lab fetches its packages with it: install the packages apt and dpkg, or bring your own builds \
                 with --qemu PATH and --kernel PATH"
            .into(),
    })?;
    choose(&String::from_utf8_lossy(&output.stdout)).ok_or(Error::NoMirror)
}

/// Picks the archive's address from lines of "address suite". The first that serves a release wins;
/// media that are not servers are passed over.
fn choose(targets: &str) -> Option<String> {
    let releases: BTreeSet<&str> = RELEASES.into();
    targets
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(address, suite)| {
            let release =
                suite.strip_suffix("-updates").or_else(|| suite.strip_suffix("-backports")).unwrap_or(suite);
            !address.starts_with("cdrom:") && releases.contains(release)
        })
        .map(|(address, _)| address.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_told_from_other_sources() {
        let targets = "cdrom:[Debian] bookworm\nhttps://tools.invalid nodistro\n\
                       http://security.invalid/debian-security bookworm-security\n\
                       http://mirror.invalid/debian/ bookworm-updates\nhttp://other.invalid/debian bookworm\n";
        assert_eq!(choose(targets).as_deref(), Some("http://mirror.invalid/debian"));
    }

    #[test]
    fn another_distribution_has_no_such_server() {
        assert_eq!(choose("http://archive.invalid/ubuntu noble\n"), None);
        assert_eq!(choose(""), None);
    }

    #[test]
    fn an_address_with_spaces_is_refused() {
        let keyring = tempfile::NamedTempFile::new().unwrap();
        assert!(Mirror::find(Some("http://a b"), Some(keyring.path())).is_err());
        assert!(
            Mirror::find(Some("http://a/"), Some(keyring.path()))
                .is_ok_and(|found| found.address == "http://a")
        );
        assert!(Mirror::find(Some("http://a"), Some(Path::new("/nonexistent"))).is_err());
    }
}
