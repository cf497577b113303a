//! Acknowledgements: the error number and what the kernel adds to it.

use nix::errno::Errno;

use super::attribute::AttributeIter;
use super::error::{KernelError, Malformed, Policy};
use super::message::{self, ACK_ATTRIBUTES, CAPPED, Message};
use super::names::AttributeTable;

/// `NLMSGERR_ATTR_*` (include/uapi/linux/netlink.h).
mod attribute {
    pub(super) const MESSAGE: u16 = 1;
    pub(super) const OFFSET: u16 = 2;
    pub(super) const POLICY: u16 = 4;
    pub(super) const MISSING_TYPE: u16 = 5;
    pub(super) const MISSING_NEST: u16 = 6;
}

/// `NL_POLICY_TYPE_ATTR_*`.
mod policy {
    pub(super) const MIN_VALUE_S: u16 = 2;
    pub(super) const MAX_VALUE_S: u16 = 3;
    pub(super) const MIN_VALUE_U: u16 = 4;
    pub(super) const MAX_VALUE_U: u16 = 5;
    pub(super) const MIN_LENGTH: u16 = 6;
    pub(super) const MAX_LENGTH: u16 = 7;
    pub(super) const MASK: u16 = 12;
}

/// The request that an acknowledgement speaks of, to turn offsets into names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent<'a> {
    /// The bytes before the attributes: the message header and the family's own.
    pub(super) header: usize,
    pub(super) attributes: &'a [u8],
    pub(super) names: &'a AttributeTable,
}

/// Reads the message that ends an exchange: `NLMSG_ERROR`, or `NLMSG_DONE` after a dump.
///
/// `Ok(Err(..))` is the kernel's refusal. A success may carry a warning.
pub(super) fn decode(
    message: &Message<'_>,
    sent: Sent<'_>,
) -> Result<Result<Option<String>, KernelError>, Malformed> {
    let Some((number, rest)) = message.payload.split_first_chunk::<4>() else {
        return Err(Malformed("an acknowledgement without an error number"));
    };
    let number = i32::from_ne_bytes(*number);
    let mut said = Said::default();
    if message.flags & ACK_ATTRIBUTES != 0 {
        said = Said::decode(attributes_of(message, rest)?)?;
    }
    if number == 0 {
        return Ok(Ok(said.message));
    }
    let Some(errno) = number.checked_neg().filter(|&errno| errno > 0) else {
        return Err(Malformed("an acknowledgement with a positive error number"));
    };
    let in_attributes = |offset: u32| (offset as usize).checked_sub(sent.header);
    Ok(Err(KernelError {
        errno: Errno::from_raw(errno),
        message: said.message,
        attribute: said
            .offset
            .and_then(in_attributes)
            .and_then(|offset| sent.names.path_at(sent.attributes, offset)),
        missing: said.missing_type.map(|kind| {
            let nest = said.missing_nest.and_then(in_attributes);
            sent.names.missing_path(sent.attributes, nest, kind)
        }),
        policy: said.policy,
    }))
}

/// Where the extended acknowledgement begins in what follows the error number.
fn attributes_of<'a>(message: &Message<'_>, rest: &'a [u8]) -> Result<&'a [u8], Malformed> {
    if message.kind == message::DONE {
        return Ok(rest);
    }
    let request = if message.flags & CAPPED != 0 {
        message::HEADER
    } else {
        let length = rest.first_chunk::<4>().ok_or(Malformed("an acknowledgement without its request"))?;
        super::attribute::align(u32::from_ne_bytes(*length) as usize)
    };
    rest.get(request..).ok_or(Malformed("an acknowledgement that is cut off"))
}

/// The parts of an extended acknowledgement.
#[derive(Default)]
struct Said {
    message: Option<String>,
    offset: Option<u32>,
    policy: Option<Policy>,
    missing_type: Option<u16>,
    missing_nest: Option<u32>,
}

impl Said {
    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut said = Self::default();
        for attribute in AttributeIter::new(bytes) {
            let attribute = attribute?;
            match attribute.kind() {
                attribute::MESSAGE => said.message = Some(attribute.string()),
                attribute::OFFSET => said.offset = Some(attribute.u32()?),
                attribute::POLICY => said.policy = Some(decode_policy(attribute.nested())?),
                attribute::MISSING_TYPE => {
                    let kind = u16::try_from(attribute.u32()?);
                    said.missing_type =
                        Some(kind.map_err(|_| Malformed("an attribute type beyond 16 bits"))?);
                }
                attribute::MISSING_NEST => said.missing_nest = Some(attribute.u32()?),
                _ => {}
            }
        }
        Ok(said)
    }
}

fn decode_policy(attributes: AttributeIter<'_>) -> Result<Policy, Malformed> {
    let mut policy = Policy::default();
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind() {
            policy::MIN_VALUE_S => policy.minimum = Some(attribute.int()?.into()),
            policy::MAX_VALUE_S => policy.maximum = Some(attribute.int()?.into()),
            policy::MIN_VALUE_U => policy.minimum = Some(attribute.uint()?.into()),
            policy::MAX_VALUE_U => policy.maximum = Some(attribute.uint()?.into()),
            policy::MIN_LENGTH => policy.minimum_length = Some(attribute.u32()?),
            policy::MAX_LENGTH => policy.maximum_length = Some(attribute.u32()?),
            policy::MASK => policy.mask = Some(attribute.uint()?),
            _ => {}
        }
    }
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::super::attribute::Attributes;
    use super::super::names::AttributeName;
    use super::*;
    use proptest::prelude::*;

    static NAMES: AttributeTable =
        AttributeTable { attributes: &[AttributeName::plain(1, "ifindex"), AttributeName::plain(3, "fd")] };

    fn sent(attributes: &Attributes) -> Sent<'_> {
        Sent { header: 20, attributes: attributes.as_bytes(), names: &NAMES }
    }

    fn refusal(errno: i32, capped: bool, extended: &Attributes) -> Vec<u8> {
        let mut payload = (-errno).to_ne_bytes().to_vec();
        let request = message::encode(30, 5, 1, if capped { &[] } else { &[&[0; 8]] });
        payload.extend_from_slice(&request);
        payload.extend_from_slice(extended.as_bytes());
        payload
    }

    #[test]
    fn decodes_everything_that_the_kernel_says() {
        let request = Attributes::new().u32(1, 0).u32(3, 7);
        let policy = Attributes::new().bytes(4, &1u64.to_ne_bytes()).bytes(5, &8u64.to_ne_bytes());
        let extended =
            Attributes::new().string(1, "integer out of range").u32(2, 28).nest(4, policy).u32(5, 9);
        for capped in [false, true] {
            let flags = ACK_ATTRIBUTES | if capped { CAPPED } else { 0 };
            let payload = refusal(libc::ERANGE, capped, &extended);
            let message = Message { kind: message::ERROR, flags, sequence: 1, port: 1, payload: &payload };
            let error = decode(&message, sent(&request)).unwrap().unwrap_err();
            assert_eq!(error.errno, Errno::ERANGE);
            assert_eq!(error.attribute.as_deref(), Some("fd"));
            assert_eq!(error.missing.as_deref(), Some("#9"));
            assert_eq!(
                error.to_string(),
                "integer out of range; attribute fd; missing attribute #9; allowed 1 to 8 \
                 (ERANGE: Math result not representable)"
            );
        }
    }

    #[test]
    fn a_success_may_carry_a_warning() {
        let extended = Attributes::new().string(1, "beware");
        let payload = refusal(0, true, &extended);
        let flags = ACK_ATTRIBUTES | CAPPED;
        let message = Message { kind: message::ERROR, flags, sequence: 1, port: 1, payload: &payload };
        let warning = decode(&message, sent(&Attributes::new())).unwrap().unwrap();
        assert_eq!(warning.as_deref(), Some("beware"));
    }

    #[test]
    fn an_acknowledgement_that_is_cut_off_is_an_error() {
        let payload = refusal(libc::EINVAL, true, &Attributes::new().string(1, "no"));
        for length in [0, 3, 10, 23, payload.len() - 2] {
            let flags = ACK_ATTRIBUTES | CAPPED;
            let message =
                Message { kind: message::ERROR, flags, sequence: 1, port: 1, payload: &payload[..length] };
            assert!(decode(&message, sent(&Attributes::new())).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_acknowledgement_ends_without_panic(payload: Vec<u8>, flags: u16, done: bool) {
            let request = Attributes::new().u32(1, 0);
            let kind = if done { message::DONE } else { message::ERROR };
            let message = Message { kind, flags, sequence: 1, port: 1, payload: &payload };
            let _ = decode(&message, sent(&request));
        }

        #[test]
        fn any_extended_part_ends_without_panic(errno in 0i32..600, extended: Vec<u8>) {
            let mut payload = refusal(errno, true, &Attributes::new());
            payload.extend_from_slice(&extended);
            let flags = ACK_ATTRIBUTES | CAPPED;
            let message = Message { kind: message::ERROR, flags, sequence: 1, port: 1, payload: &payload };
            let request = Attributes::new().u32(1, 0);
            let _ = decode(&message, sent(&request));
        }
    }
}
