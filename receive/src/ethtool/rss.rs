//! RSS: the table that spreads packets over receive queues by a hash of their headers.

use std::collections::BTreeMap;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::{Ethtool, about, uapi};
use crate::netlink::{AttributeIter, Malformed, Result};

/// The number of the table that every packet goes through unless a flow rule names another.
pub const DEFAULT_CONTEXT: u32 = 0;

/// The setting of one RSS context.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Rss {
    /// The queue for each value of the hash, modulo the table's length.
    pub indirection: Vec<u32>,
    /// The key of the hash function; empty where the driver does not tell.
    pub key: Vec<u8>,
    /// The hash function (`ETH_RSS_HASH_*`, a bit mask with one bit set).
    pub hash_function: u32,
    /// What is done to the headers before hashing (`RXH_XFRM_*`).
    pub input_transformation: u32,
}

impl Rss {
    /// Whether the table is the one that the kernel makes for `queues` receive queues by itself.
    #[must_use]
    pub fn is_default_for(&self, queues: u32) -> bool {
        queues > 0 && self.indirection.iter().zip((0..queues).cycle()).all(|(&entry, queue)| entry == queue)
    }
}

impl Ethtool {
    /// The setting of an RSS context.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: the driver has no RSS, or no contexts. `ENOENT`: there is no such context.
    pub fn rss(&self, ifindex: u32, context: u32) -> Result<Rss> {
        let mut request = about(ifindex);
        if context != DEFAULT_CONTEXT {
            request = request.u32(uapi::rss::CONTEXT, context);
        }
        let reply = self.family.request_one(uapi::request::RSS_GET, &request, &uapi::RSS_NAMES)?;
        Ok(decode(&reply)?.1)
    }

    /// Every RSS context of an interface by its number, the default one included; none where the driver
    /// has no RSS.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: the kernel (before 6.12) cannot list them. `ENODEV`: no such interface.
    pub fn rss_contexts(&self, ifindex: u32) -> Result<BTreeMap<u32, Rss>> {
        let replies = self.family.dump(uapi::request::RSS_GET, &about(ifindex), &uapi::RSS_NAMES)?;
        Ok(replies.iter().map(|reply| decode(reply)).collect::<Result<_, _>>()?)
    }

    /// Sets the table of an RSS context.
    ///
    /// # Errors
    /// `EINVAL` with the kernel's words: a queue beyond the last, or a length that the device cannot have.
    pub fn set_rss_indirection(&self, ifindex: u32, context: u32, table: &[u32]) -> Result<()> {
        self.write_rss_indirection(ifindex, context, table)
    }

    /// Gives the default context back to the kernel, which then spreads evenly over all queues and
    /// follows changes of their number.
    ///
    /// # Errors
    /// As [`set_rss_indirection`](Self::set_rss_indirection).
    pub fn reset_rss_indirection(&self, ifindex: u32) -> Result<()> {
        self.write_rss_indirection(ifindex, DEFAULT_CONTEXT, &[])
    }

    /// Makes an RSS context with this table; returns its number.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: the driver has no contexts.
    pub fn create_rss_context(&self, ifindex: u32, table: &[u32]) -> Result<u32> {
        let request = about(ifindex).bytes(uapi::rss::INDIR, &encode(table));
        match self.family.request_one(uapi::request::RSS_CREATE_ACT, &request, &uapi::RSS_NAMES) {
            Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
                self.control.create_rss_context(ifindex, table)
            }
            reply => match decode(&reply?)? {
                (DEFAULT_CONTEXT, _) => Err(Malformed("a new RSS context without its number").into()),
                (context, _) => Ok(context),
            },
        }
    }

    /// Removes an RSS context.
    ///
    /// # Errors
    /// `ENOENT`: there is none. `EBUSY`: a flow rule uses it.
    pub fn delete_rss_context(&self, ifindex: u32, context: u32) -> Result<()> {
        let request = about(ifindex).u32(uapi::rss::CONTEXT, context);
        match self.family.request(uapi::request::RSS_DELETE_ACT, &request, &uapi::RSS_NAMES) {
            Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
                self.control.delete_rss_context(ifindex, context)
            }
            result => result.map(drop),
        }
    }

    /// An empty table resets.
    fn write_rss_indirection(&self, ifindex: u32, context: u32, table: &[u32]) -> Result<()> {
        let mut request = about(ifindex).bytes(uapi::rss::INDIR, &encode(table));
        if context != DEFAULT_CONTEXT {
            request = request.u32(uapi::rss::CONTEXT, context);
        }
        match self.family.request(uapi::request::RSS_SET, &request, &uapi::RSS_NAMES) {
            // Before Linux 6.17 there is no such command.
            Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
                self.control.set_rss_indirection(ifindex, context, table)
            }
            result => result.map(drop),
        }
    }
}

fn encode(table: &[u32]) -> Vec<u8> {
    table.iter().flat_map(|entry| entry.to_ne_bytes()).collect()
}

fn decode(reply: &[u8]) -> Result<(u32, Rss), Malformed> {
    let (mut context, mut rss) = (DEFAULT_CONTEXT, Rss::default());
    for attribute in AttributeIter::new(reply) {
        let attribute = attribute?;
        match attribute.kind() {
            uapi::rss::CONTEXT => context = attribute.u32()?,
            uapi::rss::HFUNC => rss.hash_function = attribute.u32()?,
            uapi::rss::INDIR => rss.indirection = attribute.u32_table()?,
            uapi::rss::HKEY => rss.key = attribute.payload().to_vec(),
            uapi::rss::INPUT_XFRM => rss.input_transformation = attribute.u32()?,
            _ => {}
        }
    }
    Ok((context, rss))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn knows_the_kernels_own_table() {
        let rss = |table: &[u32]| Rss { indirection: table.to_vec(), ..Rss::default() };
        assert!(rss(&[0, 1, 2, 0, 1, 2, 0, 1]).is_default_for(3));
        assert!(!rss(&[0, 1, 2, 0, 1, 2, 0, 1]).is_default_for(4));
        assert!(!rss(&[0, 0, 0]).is_default_for(0));
        assert!(rss(&[0, 0]).is_default_for(1));
    }

    #[test]
    fn reads_a_table_with_its_key() {
        let table = [3u32, 1, 2, 0];
        let reply = about(2)
            .u32(uapi::rss::CONTEXT, 5)
            .bytes(uapi::rss::INDIR, &encode(&table))
            .bytes(uapi::rss::HKEY, &[7; 40]);
        let (context, rss) = decode(reply.as_bytes()).unwrap();
        assert_eq!((context, rss.indirection, rss.key), (5, table.to_vec(), vec![7; 40]));
        let odd = about(2).bytes(uapi::rss::INDIR, &[0; 5]);
        assert!(decode(odd.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_reply_ends_without_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
