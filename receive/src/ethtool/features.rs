//! Features: the offloads of a device, by name.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Ethtool, about, uapi};
use crate::netlink::{Attribute, AttributeIter, Attributes, Malformed, Result};

/// The features of a device by the kernel's names, such as `rx-ntuple-filter`.
pub type Features = BTreeMap<String, Feature>;

/// One feature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// Whether the driver lets it be changed.
    pub changeable: bool,
    /// Whether it was asked for.
    pub wanted: bool,
    /// Whether it is on.
    pub active: bool,
}

impl Ethtool {
    /// The features of an interface.
    ///
    /// # Errors
    /// `ENODEV`: no such interface.
    pub fn features(&self, ifindex: u32) -> Result<Features> {
        let command = uapi::request::FEATURES_GET;
        let reply = self.family.request_one(command, &about(ifindex), &uapi::FEATURES_NAMES)?;
        Ok(decode(&reply)?)
    }

    /// Asks for a feature to be on or off. That the kernel accepts is no proof: the driver may keep a
    /// feature that others depend on, so read [`features`](Self::features) again.
    ///
    /// # Errors
    /// `EINVAL`: the kernel knows no such feature.
    pub fn set_feature(&self, ifindex: u32, name: &str, on: bool) -> Result<()> {
        let mut bit = Attributes::new().string(uapi::bitset::BIT_NAME, name);
        if on {
            bit = bit.flag(uapi::bitset::BIT_VALUE);
        }
        let bits = Attributes::new().nest(uapi::bitset::BITS_BIT, bit);
        let bitset = Attributes::new().nest(uapi::bitset::BITS, bits);
        let request = about(ifindex).nest(uapi::features::WANTED, bitset);
        self.family.request(uapi::request::FEATURES_SET, &request, &uapi::FEATURES_NAMES).map(drop)
    }
}

fn decode(reply: &[u8]) -> Result<Features, Malformed> {
    let (mut known, mut changeable) = (BTreeSet::new(), BTreeSet::new());
    let (mut wanted, mut active, mut fixed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for attribute in AttributeIter::new(reply) {
        let attribute = attribute?;
        match attribute.kind() {
            uapi::features::HW => {
                // This bitset alone has a mask of every feature: each is listed, with its value.
                for (name, value) in bits(&attribute)? {
                    if value {
                        changeable.insert(name.clone());
                    }
                    known.insert(name);
                }
            }
            // The others are plain lists of what is set.
            uapi::features::WANTED => wanted = names(&attribute)?,
            uapi::features::ACTIVE => active = names(&attribute)?,
            uapi::features::NOCHANGE => fixed = names(&attribute)?,
            _ => {}
        }
    }
    Ok(known
        .into_iter()
        .map(|name| {
            let feature = Feature {
                changeable: changeable.contains(&name) && !fixed.contains(&name),
                wanted: wanted.contains(&name),
                active: active.contains(&name),
            };
            (name, feature)
        })
        .collect())
}

fn names(bitset: &Attribute<'_>) -> Result<BTreeSet<String>, Malformed> {
    Ok(bits(bitset)?.into_iter().map(|(name, _)| name).collect())
}

/// The bits of a bitset in its verbose form: name, and whether it carries the value flag.
fn bits(bitset: &Attribute<'_>) -> Result<Vec<(String, bool)>, Malformed> {
    let mut bits = Vec::new();
    for part in bitset.nested() {
        let part = part?;
        if part.kind() != uapi::bitset::BITS {
            continue;
        }
        for bit in part.nested() {
            let (mut name, mut value) = (None, false);
            for attribute in bit?.nested() {
                let attribute = attribute?;
                match attribute.kind() {
                    uapi::bitset::BIT_NAME => name = Some(attribute.string()),
                    uapi::bitset::BIT_VALUE => value = true,
                    _ => {}
                }
            }
            bits.push((name.ok_or(Malformed("a feature without a name"))?, value));
        }
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Route;
    use nix::errno::Errno;
    use proptest::prelude::*;

    #[test]
    fn loopback_features_are_known_by_name() {
        let ethtool = Ethtool::open().unwrap();
        let lo = Route::open().unwrap().link_by_name("lo").unwrap().ifindex;
        let features = ethtool.features(lo).unwrap();
        assert_eq!(features["rx-ntuple-filter"], Feature::default());
        assert!(features["tx-scatter-gather"].active);
    }

    #[test]
    fn an_unknown_feature_is_refused_with_the_kernels_words() {
        let ethtool = Ethtool::open().unwrap();
        let lo = Route::open().unwrap().link_by_name("lo").unwrap().ifindex;
        let error = ethtool.set_feature(lo, "no-such-feature", true).unwrap_err();
        let kernel = error.kernel().unwrap();
        if kernel.errno != Errno::EPERM {
            assert_eq!(kernel.message.as_deref(), Some("bit name not found"), "{kernel}");
            assert_eq!(kernel.attribute.as_deref(), Some("wanted.bits.bit.name"), "{kernel}");
        }
    }

    proptest! {
        #[test]
        fn any_reply_ends_without_panic(bytes: Vec<u8>, kind in 1u16..6) {
            let nested = Attributes::new().nest(kind, Attributes::new().nest(3, Attributes::new().bytes(1, &bytes)));
            let _ = (decode(&bytes), decode(nested.as_bytes()));
        }
    }
}
