//! Generic netlink: families that are found by name.

use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::socket::SockProtocol;

use super::attribute::{AttributeIter, Attributes};
use super::connection::{Connection, Request};
use super::error::{Error, Malformed, Result};
use super::names::{AttributeName, AttributeTable};
use super::sys;

/// The bytes of `struct genlmsghdr`: command, version, 16 reserved bits.
const HEADER: usize = 4;

/// The family that names the others (include/uapi/linux/genetlink.h).
mod control {
    pub(super) const FAMILY: u16 = 0x10;
    pub(super) const GET_FAMILY: u8 = 3;
    pub(super) const VERSION: u8 = 2;
    pub(super) const FAMILY_ID: u16 = 1;
    pub(super) const FAMILY_NAME: u16 = 2;
    pub(super) const FAMILY_VERSION: u16 = 3;
    pub(super) const MULTICAST_GROUPS: u16 = 7;
    pub(super) const GROUP_NAME: u16 = 1;
    pub(super) const GROUP_ID: u16 = 2;
}

static CONTROL_NAMES: AttributeTable = AttributeTable {
    attributes: &[
        AttributeName::plain(control::FAMILY_ID, "family-id"),
        AttributeName::plain(control::FAMILY_NAME, "family-name"),
    ],
};

/// A socket that speaks to one generic netlink family.
///
/// Requests may come from several threads; they take turns. What the kernel ties to the life of a socket,
/// such as a memory binding, lives as long as this value.
#[derive(Debug)]
pub struct Generic {
    connection: Mutex<Connection>,
    family: Family,
}

#[derive(Debug, Default)]
struct Family {
    number: u16,
    version: u8,
    groups: Vec<(String, u32)>,
}

/// What a multicast group was told: command and attributes of each message.
pub type Notifications = Vec<(u8, Vec<u8>)>;

impl Generic {
    /// Opens a socket of its own and looks the family up.
    ///
    /// # Errors
    /// No socket is to be had, or the kernel has no such family ([`Error::NoFamily`]).
    pub fn open(family: &'static str) -> Result<Self> {
        let mut connection = Connection::open(SockProtocol::NetlinkGeneric)?;
        let family = find(&mut connection, family)?;
        Ok(Self { connection: Mutex::new(connection), family })
    }

    /// Sends a command and returns the attributes of each reply; most commands have one or none.
    ///
    /// `names` are the names of the attributes sent, for errors.
    ///
    /// # Errors
    /// The kernel refused, the socket failed, or the reply is malformed.
    pub fn request(
        &self,
        command: u8,
        attributes: &Attributes,
        names: &AttributeTable,
    ) -> Result<Vec<Vec<u8>>> {
        let header = self.header(command);
        let request = Request { kind: self.family.number, header: &header, attributes, names };
        strip(self.lock().exchange(request)?.payloads)
    }

    /// Sends a command that must have exactly one reply and returns its attributes.
    ///
    /// # Errors
    /// As [`request`](Self::request), or there is no reply.
    pub fn request_one(
        &self,
        command: u8,
        attributes: &Attributes,
        names: &AttributeTable,
    ) -> Result<Vec<u8>> {
        let replies = self.request(command, attributes, names)?;
        replies.into_iter().next().ok_or_else(|| Malformed("an acknowledgement without its reply").into())
    }

    /// Lists every object that the command speaks of and returns the attributes of each.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn dump(&self, command: u8, attributes: &Attributes, names: &AttributeTable) -> Result<Vec<Vec<u8>>> {
        let header = self.header(command);
        let request = Request { kind: self.family.number, header: &header, attributes, names };
        strip(self.lock().dump(request)?.payloads)
    }

    /// Sends a command that changes something, and listens to a multicast group of the family meanwhile.
    ///
    /// Returns what the group was told, by us or by others, until the command was acknowledged: the kernel
    /// announces a change before it acknowledges it.
    ///
    /// # Errors
    /// As [`request`](Self::request), or the family has no such group.
    pub fn request_listening(
        &self,
        group: &str,
        command: u8,
        attributes: &Attributes,
        names: &AttributeTable,
    ) -> Result<Notifications> {
        let found = self.family.groups.iter().find(|(name, _)| name == group);
        let (_, group) = found.ok_or(Malformed("a family without the expected multicast group"))?;
        let header = self.header(command);
        let request = Request { kind: self.family.number, header: &header, attributes, names };
        let mut connection = self.lock();
        connection.join(*group)?;
        let result = connection.exchange(request);
        let notifications = connection.leave(*group);
        result?;
        Ok(notifications
            .into_iter()
            .filter_map(|payload| {
                let (header, attributes) = payload.split_first_chunk::<HEADER>()?;
                Some((header[0], attributes.to_vec()))
            })
            .collect())
    }

    /// The cookie of the network namespace that the socket belongs to; `None` before Linux 5.14.
    #[must_use]
    pub fn namespace_cookie(&self) -> Option<u64> {
        sys::namespace_cookie(self.lock().descriptor())
    }

    fn header(&self, command: u8) -> [u8; HEADER] {
        [command, self.family.version, 0, 0]
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // An exchange that panicked leaves at worst unread replies, which carry an old sequence number.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find(connection: &mut Connection, name: &'static str) -> Result<Family> {
    let attributes = Attributes::new().string(control::FAMILY_NAME, name);
    let header = [control::GET_FAMILY, control::VERSION, 0, 0];
    let request =
        Request { kind: control::FAMILY, header: &header, attributes: &attributes, names: &CONTROL_NAMES };
    let replies = match connection.exchange(request) {
        Err(error) if error.errno() == Some(nix::errno::Errno::ENOENT) => return Err(Error::NoFamily(name)),
        replies => strip(replies?.payloads)?,
    };
    let reply = replies.first().ok_or(Malformed("a family look-up without a reply"))?;
    decode_family(reply)
}

fn decode_family(reply: &[u8]) -> Result<Family> {
    let mut family = Family::default();
    for attribute in AttributeIter::new(reply) {
        let attribute = attribute?;
        let narrow = |number: Result<u64, Malformed>, what| number.map_err(|_| Malformed(what));
        match attribute.kind() {
            control::FAMILY_ID => {
                let number = narrow(attribute.uint(), "a family number of the wrong length")?;
                family.number =
                    u16::try_from(number).map_err(|_| Malformed("a family number beyond 16 bits"))?;
            }
            control::FAMILY_VERSION => {
                let version = narrow(attribute.uint(), "a family version of the wrong length")?;
                family.version =
                    u8::try_from(version).map_err(|_| Malformed("a family version beyond 8 bits"))?;
            }
            control::MULTICAST_GROUPS => {
                for group in attribute.nested() {
                    family.groups.push(decode_group(group?.nested())?);
                }
            }
            _ => {}
        }
    }
    if family.number == 0 {
        return Err(Malformed("a family look-up without a family number").into());
    }
    Ok(family)
}

fn decode_group(attributes: AttributeIter<'_>) -> Result<(String, u32)> {
    let mut group = (String::new(), 0);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind() {
            control::GROUP_NAME => group.0 = attribute.string(),
            control::GROUP_ID => group.1 = attribute.u32()?,
            _ => {}
        }
    }
    Ok(group)
}

/// Removes the generic netlink header from each payload.
fn strip(mut payloads: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
    for payload in &mut payloads {
        if payload.len() < HEADER {
            return Err(Malformed("a generic netlink header that is cut off").into());
        }
        payload.drain(..HEADER);
    }
    Ok(payloads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_family_that_does_not_exist_is_named() {
        let error = Generic::open("no-such-family").unwrap_err();
        assert_eq!(error, Error::NoFamily("no-such-family"));
    }

    #[test]
    fn the_control_family_finds_itself() {
        let control = Generic::open("nlctrl").unwrap();
        assert_eq!(control.family.number, control::FAMILY);
        assert!(control.family.groups.iter().any(|(name, _)| name == "notify"), "{control:?}");
        let families = control.dump(control::GET_FAMILY, &Attributes::new(), &CONTROL_NAMES).unwrap();
        assert!(families.len() > 1);
    }

    #[test]
    fn a_refusal_names_the_attribute() {
        let control = Generic::open("nlctrl").unwrap();
        let long = Attributes::new().string(control::FAMILY_NAME, "a-name-that-is-longer-than-allowed");
        let error = control.request(control::GET_FAMILY, &long, &CONTROL_NAMES).unwrap_err();
        let kernel = error.kernel().unwrap();
        assert!([nix::errno::Errno::ERANGE, nix::errno::Errno::EINVAL].contains(&kernel.errno), "{kernel:?}");
        assert_eq!(kernel.attribute.as_deref(), Some("family-name"));
        assert!(kernel.policy.is_some_and(|policy| policy.maximum_length == Some(15)), "{kernel:?}");
    }

    #[test]
    fn the_next_request_is_not_confused_by_a_refused_one() {
        let control = Generic::open("nlctrl").unwrap();
        for _ in 0..3 {
            assert!(control.request(250, &Attributes::new(), &CONTROL_NAMES).is_err());
            let name = Attributes::new().string(control::FAMILY_NAME, "nlctrl");
            assert_eq!(control.request(control::GET_FAMILY, &name, &CONTROL_NAMES).unwrap().len(), 1);
        }
    }

    #[test]
    fn the_namespace_has_a_cookie() {
        assert!(Generic::open("nlctrl").unwrap().namespace_cookie().is_some());
    }

    proptest! {
        #[test]
        fn any_family_reply_ends_without_panic(reply: Vec<u8>) {
            let _ = decode_family(&reply);
        }
    }
}
