//! What the validation layer says of the tool.

use std::path::Path;

use crate::ensure;
use crate::guest::Outcome;

const SETTINGS_FILE: &str = "/tmp/vk_layer_settings.txt";
/// What the layer says of `VK_KHR_copy_memory_indirect`, which is younger.
const UNKNOWN_EXTENSION: &str = "WARNING-CreateDevice-extension-not-found";
/// Structures that are younger than the layer, with their sizes: those of `VK_KHR_copy_memory_indirect`.
const YOUNGER: &str = "1000549000,24";
const LOG: &str = "/tmp/validation.log";

/// What the loader and the layer read.
pub(crate) const ENVIRONMENT: [(&str, &str); 2] =
    [("VK_INSTANCE_LAYERS", "VK_LAYER_KHRONOS_validation"), ("VK_LAYER_SETTINGS_PATH", SETTINGS_FILE)];

/// Tells the layer what to write, and where.
pub(crate) fn set_up() -> std::io::Result<()> {
    let settings = format!(
        "khronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG\n\
         khronos_validation.log_filename = {LOG}\n\
         khronos_validation.report_flags = error,warn,perf\n\
         khronos_validation.validate_sync = true\n\
         khronos_validation.custom_stype_list = {YOUNGER}\n\
         khronos_validation.message_id_filter = {UNKNOWN_EXTENSION}\n"
    );
    std::fs::write(SETTINGS_FILE, settings)
}

/// Runs a test in which a process uses Vulkan; fails unless the layer was there and silent.
pub(crate) fn watch(test: impl FnOnce() -> Outcome) -> Outcome {
    if Path::new(LOG).exists() {
        std::fs::remove_file(LOG)?;
    }
    test()?;
    // The layer makes the file with the instance.
    ensure!(Path::new(LOG).exists(), "the layer was not loaded");
    let said = std::fs::read_to_string(LOG)?;
    ensure!(said.trim().is_empty(), "{said}");
    Ok(())
}
