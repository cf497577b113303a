//! What the validation layer says.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use devmem_backends::vulkan::{self, Vulkan};

use crate::ensure;
use crate::harness::{Failure, Outcome};

const SETTINGS_FILE: &str = "/tmp/vk_layer_settings.txt";
/// What the layer says of `VK_KHR_copy_memory_indirect`, which is younger.
const UNKNOWN_EXTENSION: &str = "WARNING-CreateDevice-extension-not-found";
/// Structures that are younger than the layer, with their sizes: those of `VK_KHR_copy_memory_indirect`.
const YOUNGER: &str = "1000549000,24";
const LOG: &str = "/tmp/validation.log";

/// The layer writes to a file, which it begins anew with each instance: the devices are held through all tests, so that
/// there is only one.
#[derive(Clone)]
pub(crate) struct Validation {
    held: Arc<Mutex<Option<Vec<Vulkan>>>>,
}

impl Validation {
    /// What the loader and the layer read.
    pub(crate) const SETTINGS: [(&str, &str); 2] =
        [("VK_INSTANCE_LAYERS", "VK_LAYER_KHRONOS_validation"), ("VK_LAYER_SETTINGS_PATH", SETTINGS_FILE)];

    /// Tells the layer where to write, and makes the instance.
    pub(crate) fn begin() -> Result<Self, Failure> {
        if std::env::args().any(|argument| argument == "--list") {
            return Ok(Self { held: Arc::default() });
        }
        let settings = format!(
            "khronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG\n\
             khronos_validation.log_filename = {LOG}\n\
             khronos_validation.report_flags = error,warn,perf\n\
             khronos_validation.validate_sync = true\n\
             khronos_validation.custom_stype_list = {YOUNGER}\n\
             khronos_validation.message_id_filter = {UNKNOWN_EXTENSION}\n"
        );
        std::fs::write(SETTINGS_FILE, settings)?;
        let devices = vulkan::devices()?;
        Ok(Self { held: Arc::new(Mutex::new(Some(devices))) })
    }

    /// Fails if the layer has said anything.
    pub(crate) fn was_silent(&self) -> Outcome {
        let said = said()?;
        ensure!(said.trim().is_empty(), "{said}");
        Ok(())
    }

    /// Whether the layer is in the process at all.
    pub(crate) fn is_on(&self) -> Outcome {
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        ensure!(maps.contains("libVkLayer_khronos_validation"), "the layer is not loaded");
        ensure!(Path::new(LOG).exists(), "the layer does not write to {LOG}");
        Ok(())
    }

    /// Lets the devices go, of which the layer then says what was left behind.
    pub(crate) fn end(&self) -> Outcome {
        drop(self.held.lock().unwrap_or_else(PoisonError::into_inner).take());
        if Path::new(LOG).exists() { self.was_silent() } else { Ok(()) }
    }
}

fn said() -> Result<String, Failure> {
    Ok(std::fs::read_to_string(LOG)?)
}
