//! The benchmark of gathering: what it prints, and that it verifies. No figure is judged.

use std::process::Command;

use crate::ensure;
use crate::guest::{Outcome, TOOL, printed_object, succeed};

pub(crate) fn ratios_are_measured_and_every_gather_verified() -> Outcome {
    let mut command = Command::new(TOOL);
    command.args(["gather", "--provider", "vulkan:llvmpipe", "--rounds", "1", "--json"]);
    command.args(["--fragments", "1024", "--fragment-bytes", "512"]);
    let report = printed_object(&succeed(&mut command)?)?;
    ensure!(report["worker"] == "device" && report["verified"] == true, "{report}");
    for ratio in ["ratio_to_contiguous", "ratio_to_cpu", "sweep_largest_ratio"] {
        ensure!(report[ratio].as_f64() > Some(0.0), "{ratio}: {report}");
    }
    let listed = |key: &str| report["sweep"][key].as_array().map_or(0, Vec::len);
    ensure!(listed("rows") + listed("left_out") == 6 && listed("rows") >= 4, "{report}");
    Ok(())
}
