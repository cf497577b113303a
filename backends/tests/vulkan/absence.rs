//! Machines on which Vulkan exports nothing.

use std::path::Path;
use std::process::{Command, ExitCode};

use devmem_backends::find;

use crate::ensure;
use crate::harness::{Failure, Outcome};

/// Set for a copy of this program that only says what it finds.
const CHILD: &str = "DEVMEM_TEST_FINDS";
const LAVAPIPE: &str = "/usr/share/vulkan/icd.d/lvp_icd.json";
const UDMABUF: &str = "/dev/udmabuf";

pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Says what the selector means, or why it means nothing.
pub(crate) fn child() -> ExitCode {
    match find("vulkan") {
        Ok(provider) => println!("found {}", provider.identity()),
        Err(error) => println!("{:?} {error}", error.kind()),
    }
    ExitCode::SUCCESS
}

/// What a new process with these drivers finds.
fn found_with(drivers: &str) -> Result<String, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(CHILD, "1").env("VK_DRIVER_FILES", drivers).env_remove("VK_INSTANCE_LAYERS");
    let output = command.output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

pub(crate) fn without_a_driver() -> Outcome {
    let said = found_with("/nonexistent.json")?;
    ensure!(said.starts_with("Unsupported ") && said.contains("VK_ERROR_INCOMPATIBLE_DRIVER"), "{said}");
    ensure!(said.contains("install a Vulkan driver") && said.contains("libvulkan.so"), "{said}");
    Ok(())
}

/// Without udmabuf, lavapipe exports nothing, or hands out a memfd for a DMA-buf.
pub(crate) fn without_udmabuf() -> Outcome {
    let said = found_with(LAVAPIPE)?;
    ensure!(said.starts_with("found vulkan:llvmpipe"), "{said}");
    let away = Path::new("/dev/udmabuf-away");
    std::fs::rename(UDMABUF, away)?;
    let said = found_with(LAVAPIPE);
    std::fs::rename(away, UDMABUF)?;
    let said = said?;
    ensure!(said.starts_with("Unsupported ") && said.contains("load the module udmabuf"), "{said}");
    Ok(())
}
