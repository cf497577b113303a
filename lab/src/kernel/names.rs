//! Versions and flavours of kernels, read from the names of their packages.
//!
//! Debian has three layouts. Up to 6.18 one package `linux-image-RELEASE` holds image, configuration
//! and modules. From 6.19 on the image is in `linux-binary-RELEASE` and the modules are in
//! `linux-modules-RELEASE`; `linux-image-RELEASE` holds nothing. A kernel whose signed packages have
//! not been made yet has `linux-binary-unsigned-RELEASE` only.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// Which of the distribution's configurations a kernel was built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Flavour {
    /// For virtual machines: small, no DRM drivers.
    #[default]
    Cloud,
    /// For everything: all drivers.
    Generic,
}

impl Flavour {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Cloud => "-cloud-amd64",
            Self::Generic => "-amd64",
        }
    }
}

impl FromStr for Flavour {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "cloud" => Ok(Self::Cloud),
            "generic" => Ok(Self::Generic),
            other => Err(Error::option(format!("flavour '{other}'"), "known are: cloud, generic")),
        }
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Cloud => "cloud",
            Self::Generic => "generic",
        })
    }
}

/// A kernel release such as `7.2.12+deb13-cloud-amd64`, ordered by version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release {
    version: Vec<u32>,
    pub(crate) flavour: Flavour,
    pub(crate) name: String,
}

impl Release {
    /// Reads a release; `None` for anything else (real-time flavours, debug symbols, headers).
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (rest, flavour) = match name.strip_suffix(Flavour::Cloud.suffix()) {
            Some(rest) => (rest, Flavour::Cloud),
            None => (name.strip_suffix(Flavour::Generic.suffix())?, Flavour::Generic),
        };
        let (numbers, build) = rest.split_at(rest.find(['+', '-']).unwrap_or(rest.len()));
        if build.contains("-rt") || build.contains("cloud") {
            return None;
        }
        Some(Self { version: numbers_of(numbers)?, flavour, name: name.to_owned() })
    }

    /// Its first two numbers, by which the distribution names its source: `7.2`.
    pub(crate) fn series(&self) -> Option<String> {
        let [major, minor, ..] = self.version.as_slice() else { return None };
        Some(format!("{major}.{minor}"))
    }

    /// Whether this release is at least `version`, component by component.
    pub(crate) fn is_at_least(&self, version: &[u32]) -> bool {
        self.version.as_slice() >= version
    }
}

fn numbers_of(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

/// Which kernel is wished for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// The newest that has the whole receive path.
    Newest(Flavour),
    /// The newest whose version begins with these numbers.
    Version(Vec<u32>, Flavour),
    /// Exactly this release.
    Exactly(String),
}

/// The first version with everything that the receive path needs.
const OLDEST_BY_DEFAULT: [u32; 2] = [7, 2];

impl Wish {
    /// Reads `6.12`, `7.2.12` or a whole release name.
    pub(crate) fn parse(text: Option<&str>, flavour: Flavour) -> Result<Self, Error> {
        let Some(text) = text else { return Ok(Self::Newest(flavour)) };
        if let Some(release) = Release::parse(text) {
            return Ok(Self::Exactly(release.name));
        }
        match numbers_of(text) {
            Some(numbers) => Ok(Self::Version(numbers, flavour)),
            None => Err(Error::option(
                format!("--kernel {text}"),
                "is neither a version (6.12, 7.2.12), nor a release (7.2.12+deb13-cloud-amd64), nor the path of an image",
            )),
        }
    }

    /// Whether no particular version is wished for.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Newest(_))
    }

    fn fits(&self, release: &Release) -> bool {
        match self {
            Self::Newest(flavour) => release.flavour == *flavour && release.is_at_least(&OLDEST_BY_DEFAULT),
            Self::Version(numbers, flavour) => {
                release.flavour == *flavour && release.version.starts_with(numbers)
            }
            Self::Exactly(name) => release.name == *name,
        }
    }

    /// The newest of `releases` that fits.
    pub(crate) fn choose<'a>(&self, releases: impl Iterator<Item = &'a Release>) -> Option<&'a Release> {
        releases.filter(|release| self.fits(release)).max()
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor] = OLDEST_BY_DEFAULT;
        match self {
            Self::Newest(flavour) => write!(formatter, "{major}.{minor} or newer, {flavour}"),
            Self::Version(numbers, flavour) => {
                let text: Vec<String> = numbers.iter().map(u32::to_string).collect();
                write!(formatter, "{}, {flavour}", text.join("."))
            }
            Self::Exactly(name) => formatter.write_str(name),
        }
    }
}

/// A kernel that the suites offer completely, and the packages it consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) release: Release,
    pub(crate) packages: Vec<String>,
    /// Whether the distribution has published it to its users, with its signature in the image.
    pub(crate) signed: bool,
}

/// Whether a package holds a kernel that the distribution has not published to its users yet.
pub(crate) fn is_unsigned(package: &str) -> bool {
    package.starts_with("linux-binary-unsigned-")
}

/// The kernels that can be put together from the packages named.
pub(crate) fn offers(names: &[String]) -> Vec<Offer> {
    let known: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let releases: BTreeSet<Release> = names
        .iter()
        .filter_map(|name| {
            let rest = name.strip_prefix("linux-")?;
            let rest = rest.strip_prefix("binary-unsigned-").or_else(|| rest.strip_prefix("binary-"));
            Release::parse(rest.or_else(|| name.strip_prefix("linux-image-"))?)
        })
        .collect();
    let offer = |release: Release| {
        let name = |part: &str| format!("linux-{part}-{}", release.name);
        let (signed, unsigned, whole) = (name("binary"), name("binary-unsigned"), name("image"));
        let is_split = known.contains(signed.as_str()) || known.contains(unsigned.as_str());
        let (mut packages, signed) = if is_split {
            let has_signed = known.contains(signed.as_str());
            (vec![if has_signed { signed } else { unsigned }, name("modules")], has_signed)
        } else {
            (vec![whole], true)
        };
        let is_complete = packages.iter().all(|package| known.contains(package.as_str()));
        // The configuration and the list of what is built in: useful, but not always on offer.
        packages.extend(Some(name("base")).filter(|base| known.contains(base.as_str())));
        is_complete.then_some(Offer { release, packages, signed })
    };
    releases.into_iter().filter_map(offer).collect()
}

/// The newest offer that fits the wish. A kernel that the distribution has not yet published in signed
/// form is taken only if its version was asked for.
pub(crate) fn choose_offer<'a>(offers: &'a [Offer], wish: &Wish) -> Option<&'a Offer> {
    let candidates = || offers.iter().filter(|offer| offer.signed || !wish.is_open());
    let release = wish.choose(candidates().map(|offer| &offer.release))?;
    candidates().find(|offer| offer.release == *release)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        [
            "linux-image-6.12.94+deb13-cloud-amd64",
            "linux-image-6.12.107+deb13-cloud-amd64",
            "linux-image-6.12.107+deb13-amd64",
            "linux-image-6.12.107+deb13-cloud-amd64-dbg",
            "linux-image-6.12.107+deb13-rt-amd64",
            "linux-image-cloud-amd64",
            "linux-binary-7.0.13+deb13-cloud-amd64",
            "linux-image-7.0.13+deb13-cloud-amd64",
            "linux-binary-7.2.9+deb13-cloud-amd64",
            "linux-modules-7.2.9+deb13-cloud-amd64",
            "linux-base-7.2.12+deb13-cloud-amd64",
            "linux-binary-7.2.12+deb13-cloud-amd64",
            "linux-binary-unsigned-7.2.12+deb13-cloud-amd64",
            "linux-modules-7.2.12+deb13-cloud-amd64",
            "linux-image-7.2.12+deb13-cloud-amd64",
            "linux-binary-unsigned-7.3.4+deb13-cloud-amd64",
            "linux-modules-7.3.4+deb13-cloud-amd64",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn chosen(wish: Option<&str>, flavour: Flavour) -> Option<Vec<String>> {
        let offers = offers(&names());
        choose_offer(&offers, &Wish::parse(wish, flavour).unwrap()).map(|offer| offer.packages.clone())
    }

    #[test]
    fn the_newest_published_kernel_is_the_default() {
        let expected = [
            "linux-binary-7.2.12+deb13-cloud-amd64",
            "linux-modules-7.2.12+deb13-cloud-amd64",
            "linux-base-7.2.12+deb13-cloud-amd64",
        ];
        assert_eq!(chosen(None, Flavour::Cloud).unwrap(), expected);
    }

    #[test]
    fn an_unpublished_kernel_can_be_asked_for() {
        let expected =
            ["linux-binary-unsigned-7.3.4+deb13-cloud-amd64", "linux-modules-7.3.4+deb13-cloud-amd64"];
        assert_eq!(chosen(Some("7.3"), Flavour::Cloud).unwrap(), expected);
    }

    #[test]
    fn versions_are_numbers_and_flavours_are_told_apart() {
        assert_eq!(chosen(Some("6.12"), Flavour::Cloud).unwrap(), ["linux-image-6.12.107+deb13-cloud-amd64"]);
        assert_eq!(chosen(Some("6.12"), Flavour::Generic).unwrap(), ["linux-image-6.12.107+deb13-amd64"]);
        let exact = "6.12.94+deb13-cloud-amd64";
        assert_eq!(chosen(Some(exact), Flavour::Cloud).unwrap(), ["linux-image-6.12.94+deb13-cloud-amd64"]);
        assert_eq!(chosen(Some("6.1"), Flavour::Cloud), None);
    }

    #[test]
    fn a_kernel_without_its_modules_is_not_offered() {
        assert_eq!(chosen(Some("7.0"), Flavour::Cloud), None);
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", "seven", "7.x", "7..2", "-1"] {
            assert!(Wish::parse(Some(text), Flavour::Cloud).is_err(), "{text:?}");
        }
    }
}
