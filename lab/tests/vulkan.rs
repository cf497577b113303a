//! Vulkan in the guest: the loader opens lavapipe, the driver of an emulated GPU, and the validation layer.

use devmem_lab::Machine;

/// Prints the devices; the layer's messages are on standard error. It says that it is active where something is switched
/// on that is off by default.
const SCRIPT: &str = "
    set -e
    export VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation
    export VK_KHRONOS_VALIDATION_LOG_FILENAME=/dev/stderr VK_KHRONOS_VALIDATION_REPORT_FLAGS=error,warn,info
    export VK_KHRONOS_VALIDATION_VALIDATE_SYNC=true VK_KHRONOS_VALIDATION_DEBUG_ACTION=VK_DBG_LAYER_ACTION_LOG_MSG
    vulkaninfo --summary";

#[test]
fn the_loader_finds_lavapipe_the_driver_of_the_gpu_and_the_validation_layer() {
    let outcome = Machine::new().vulkan().gpu("amdgpu").command(["sh", "-c", SCRIPT]).run().unwrap();
    assert!(outcome.is_success(), "{}", outcome.report());
    let (output, messages) = (outcome.stdout_text(), outcome.stderr_text());
    for device in ["= llvmpipe (LLVM", "(RADV HAINAN)"] {
        assert!(output.contains(device), "no {device}: {}", outcome.report());
    }
    // It says so itself, so its library was opened.
    assert!(messages.contains("Khronos Validation Layer Active"), "{}", outcome.report());
    assert!(!messages.contains("Validation Error"), "{}", outcome.report());
}
