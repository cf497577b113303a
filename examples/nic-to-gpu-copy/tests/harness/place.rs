//! Where the driver and the lab say that received bytes are.

use serde_json::Value;

use crate::ensure;
use crate::guest::{Outcome, copy};

const BYTES: usize = 16 << 20;
const SIZE: &str = "16M";

/// Where memory is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Device,
    System,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Device => "device-local",
            Self::System => "system",
        }
    }
}

/// Receives into a provider's memory in a placement, which lies in the first place before the bind and in the
/// second after it.
pub(crate) fn receive(provider: &str, placement: &str, before: Place, after: Place) -> Outcome {
    let summary = copy(BYTES, &["--provider", provider, "--placement", placement, "--size", SIZE], &[])?;
    is_in(&summary, before, after)
}

/// As [`receive`], with io_uring zero-copy receive: 64 MiB, which is four times what the buffer holds, and the kernel has
/// copied none of it.
pub(crate) fn receive_by_zcrx(provider: &str, placement: &str, before: Place, after: Place) -> Outcome {
    let options = ["--path", "zcrx", "--provider", provider, "--placement", placement, "--size", SIZE];
    let summary = copy(64 << 20, &options, &[])?;
    ensure!(summary["path"] == "zcrx" && summary["kernel_copied_bytes"] == 0, "{summary}");
    is_in(&summary, before, after)
}

/// Every byte is in the buffer, and buffer and bytes are where driver and lab both say.
pub(crate) fn is_in(summary: &Value, before: Place, after: Place) -> Outcome {
    let truth = &summary["ground_truth"];
    ensure!(summary["sha256_match"] == true, "{summary}");
    ensure!(summary["fragment_bytes"] == summary["bytes"], "{summary}");
    ensure!(truth["dmabuf_bytes"] == summary["bytes"], "{summary}");
    ensure!(truth["elsewhere_bytes"] == 0, "{summary}");
    ensure!(summary["residency_before"] == before.name(), "{summary}");
    ensure!(summary["residency_after"] == after.name(), "{summary}");
    let pages = summary["buffer_bytes"].as_u64().unwrap_or_default() / 4096;
    for (when, place) in [("pages_before", before), ("pages_after", after)] {
        let found = match place {
            Place::Device => &truth[when]["device_window_pages"],
            Place::System => &truth[when]["guest_ram_pages"],
        };
        ensure!(*found == pages, "{when}: {summary}");
    }
    let (inside, outside) = match after {
        Place::Device => ("device_window_bytes", "guest_ram_bytes"),
        Place::System => ("guest_ram_bytes", "device_window_bytes"),
    };
    ensure!(truth[inside] == summary["bytes"], "{summary}");
    ensure!(truth[outside] == 0, "{summary}");
    Ok(())
}
