//! What the lab may ask of its hardware, as JSON.
//!
//! A request is an object whose `op` names it; the reply is an object, with `error` in it when the
//! request was not understood or not possible.
//!
//! | request | reply |
//! |---|---|
//! | `{"op":"locate","name":"buffer","nonce":"<32 hex digits>","pages":N}` | [`locate`](Request::Locate) |
//! | `{"op":"ground_truth_start","nic":0,"tcp_destination_port":5201}`, both optional | `{}` |
//! | `{"op":"ground_truth_start","rdma_only":true}` | `{}` |
//! | `{"op":"ground_truth"}` | [`ground_truth`](Request::GroundTruth) |
//! | `{"op":"switch","drop":0.01,"reorder":0,"duplicate":0,"delay_us":0,"seed":7}`, all optional | `{}` |
//! | `{"op":"link","nic":0,"up":false}` | `{}` |
//! | `{"op":"statistics"}` | [`statistics`](Request::Statistics) |
//! | `{"op":"rdma_regions","rdma":0}` | [`rdma_regions`](Request::RdmaRegions) |
//! | `{"op":"nic_fault","nic":0,"fault":"linear","bytes":16}` | `{}` |
//! | `{"op":"nic_fault","nic":0,"fault":"steering","every":20}` | `{}` |
//! | `{"op":"nic_fault","nic":0,"fault":"none"}` | `{}` |

use serde::{Deserialize, Serialize};

use crate::config::SwitchFaults;

/// A request to the hardware; see the table above.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Finds the pages of a buffer in all memory on the bus.
    ///
    /// The guest wrote 32 bytes at the start of every page of the buffer: the nonce, the page's index
    /// as a little-endian 64-bit number, and that index XOR 0x9e3779b97f4a7c15 in the same form.
    ///
    /// Reply: `{"pages":N,"found":n,"guest_ram_pages":a,"device_window_pages":b,"devices":{"gpu0":b},
    /// "duplicates":d}`, where n = a + b counts each page of the buffer once, `devices` says whose the memory is,
    /// and d counts further places with the mark of a page that was already found. Locating a name again replaces what was known of it.
    Locate {
        /// By what name the buffer appears in the ground truth.
        name: String,
        /// What the marks begin with: 16 bytes as hexadecimal digits.
        nonce: String,
        /// How many pages of 4096 bytes the buffer has.
        pages: u64,
    },
    /// Forgets all counts and located buffers and begins to count anew.
    GroundTruthStart {
        /// Count only what this NIC receives.
        #[serde(default)]
        nic: Option<usize>,
        /// Count only TCP packets to this port.
        #[serde(default)]
        tcp_destination_port: Option<u16>,
        /// Count only what RDMA devices write.
        #[serde(default)]
        rdma_only: bool,
    },
    /// Tells where the payload went since, of TCP and UDP packets that NICs received, and of messages and RDMA that
    /// RDMA devices wrote to memory.
    ///
    /// Reply: `{"dmabuf_bytes":…,"elsewhere_bytes":…,"guest_ram_bytes":…,"device_window_bytes":…,
    /// "devices":{"gpu0":bytes},"header_buffer_bytes":…,"repeated_bytes":…,"buffers":{"name":bytes},"nics":[…],
    /// "rdma":[…]}`, each of `nics` and of `rdma` with the same fields. `dmabuf_bytes` went to located buffers and `elsewhere_bytes` did not;
    /// the same bytes divide into `guest_ram_bytes` and `device_window_bytes`, and these by `devices`. Headers are not counted; payload that a
    /// fault put into header buffers is only in `header_buffer_bytes`. A byte of a TCP stream counts where
    /// it was written first; bytes that a sender sends again are only in `repeated_bytes`. With a filter for a NIC or a port,
    /// RDMA is not counted.
    GroundTruth,
    /// Replaces the faults of the switch; what is left out is off.
    Switch(SwitchFaults),
    /// Sets the link of a NIC up or down, and tells the driver.
    Link {
        /// Which NIC.
        nic: usize,
        /// Whether the link is up.
        up: bool,
    },
    /// Tells the counters of every NIC, of every RDMA device and of the switch:
    /// `{"nics":[{…,"receive_queues":[…],"transmit_queues":[…]}],"rdma":[{…}],"switch":{…}}`.
    Statistics,
    /// Tells where the memory of an RDMA device's regions is, by the addresses of pages that the driver gave the device:
    /// what an access by DMA would hit.
    ///
    /// Reply: `{"regions":[{"key":…,"address":…,"length":…,"page_size":…,"first_page":…,"guest_ram_bytes":…,
    /// "device_window_bytes":…,"devices":{"gpu0":bytes},"unreachable_bytes":…}]}`.
    RdmaRegions {
        /// Which RDMA device.
        rdma: usize,
    },
    /// Lets a NIC make a mistake that real ones are known for.
    NicFault {
        /// Which NIC.
        nic: usize,
        /// Which mistake.
        #[serde(flatten)]
        fault: NicFault,
    },
}

/// A mistake of a receiving NIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum NicFault {
    /// None.
    #[default]
    None,
    /// With header split, payload also goes to the header buffer: the driver makes linear data of it.
    Linear {
        /// The first bytes of the payload that do; as many as fit behind the headers.
        bytes: u16,
        /// Only in every so many packets with payload; in all by default.
        #[serde(default = "one")]
        every: u32,
    },
    /// Packets that match a flow rule go to queue 0 instead of the queue of the rule.
    Steering {
        /// Every so many of them.
        every: u32,
    },
}

fn one() -> u32 {
    1
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ControlError(String);

impl ControlError {
    pub(crate) fn new(text: impl Into<String>) -> ControlError {
        ControlError(text.into())
    }
}

/// Reads a nonce of 32 hexadecimal digits.
pub(crate) fn parse_nonce(text: &str) -> Result<[u8; 16], ControlError> {
    let error = || ControlError::new(format!("nonce \"{text}\" is not 32 hexadecimal digits"));
    if text.len() != 32 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(error());
    }
    u128::from_str_radix(text, 16).map(u128::to_be_bytes).map_err(|_| error())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_from_json() {
        let parse = |value| serde_json::from_value::<Request>(value);
        let linear = json!({"op":"nic_fault","nic":1,"fault":"linear","bytes":16});
        assert_eq!(
            parse(linear).unwrap(),
            Request::NicFault { nic: 1, fault: NicFault::Linear { bytes: 16, every: 1 } }
        );
        let none = json!({"op":"nic_fault","nic":1,"fault":"none"});
        assert_eq!(parse(none).unwrap(), Request::NicFault { nic: 1, fault: NicFault::None });
        let start = json!({"op":"ground_truth_start"});
        assert_eq!(
            parse(start).unwrap(),
            Request::GroundTruthStart { nic: None, tcp_destination_port: None, rdma_only: false }
        );
        let switch = json!({"op":"switch","drop":0.5,"seed":3});
        let faults = SwitchFaults { drop: 0.5, seed: 3, ..SwitchFaults::default() };
        assert_eq!(parse(switch).unwrap(), Request::Switch(faults));
        assert!(parse(json!({"op":"explode"})).is_err());
        assert!(parse(json!({"op":"link","nic":0})).is_err());
    }

    #[test]
    fn nonces_from_text() {
        assert_eq!(parse_nonce("000102030405060708090a0b0c0d0eff").unwrap()[14..], [0x0e, 0xff]);
        for wrong in ["", "00", "+00102030405060708090a0b0c0d0eff", "zz0102030405060708090a0b0c0d0e0f"] {
            assert!(parse_nonce(wrong).is_err(), "{wrong}");
        }
    }
}
