//! What Vulkan's result codes mean (Vulkan specification, "Return Codes").

use ash::vk;
use devmem_provider::{Error, ErrorKind};

/// A function of Vulkan that failed on `object`.
pub(crate) fn failed(
    code: vk::Result,
    operation: impl Into<String>,
    object: impl std::fmt::Display,
) -> Error {
    let (kind, remedy) = meaning(code);
    let error = Error::new(kind, operation.into()).on(object).because(words(code));
    match remedy {
        Some(remedy) => error.remedy(remedy),
        None => error,
    }
}

/// Vulkan's name of a code and its words for it.
pub(crate) fn words(code: vk::Result) -> String {
    // The numbers of the codes that matter have names; a code of an extension may have none.
    let name = format!("{code:?}");
    let name = if name.starts_with("ERROR_") { format!("VK_{name}") } else { format!("VkResult {name}") };
    let words = match code {
        vk::Result::ERROR_INVALID_EXTERNAL_HANDLE => {
            "An external handle is not a valid handle of the specified type".to_owned()
        }
        // The words of the interface's description end with an address.
        vk::Result::ERROR_DEVICE_LOST => "The logical device has been lost".to_owned(),
        _ => code.to_string(),
    };
    format!("Vulkan said {name} ({words})")
}

fn meaning(code: vk::Result) -> (ErrorKind, Option<&'static str>) {
    match code {
        vk::Result::ERROR_OUT_OF_DEVICE_MEMORY | vk::Result::ERROR_OUT_OF_HOST_MEMORY => {
            (ErrorKind::OutOfMemory, Some("ask for less, or free memory"))
        }
        vk::Result::ERROR_TOO_MANY_OBJECTS => {
            (ErrorKind::OutOfMemory, Some("keep fewer buffers at a time: the device limits their number"))
        }
        vk::Result::ERROR_DEVICE_LOST => (
            ErrorKind::Gone,
            Some("read the kernel's log: the GPU hung or was removed; then look for providers again"),
        ),
        vk::Result::ERROR_INVALID_EXTERNAL_HANDLE => {
            (ErrorKind::InvalidInput, Some("pass a DMA-buf that this device's driver can import"))
        }
        vk::Result::ERROR_INCOMPATIBLE_DRIVER => (
            ErrorKind::Unsupported,
            Some(
                "install a Vulkan driver; Mesa's are in the package mesa-vulkan-drivers of most distributions",
            ),
        ),
        vk::Result::ERROR_LAYER_NOT_PRESENT => {
            (ErrorKind::Unsupported, Some("install the layer, or name another in VK_INSTANCE_LAYERS"))
        }
        vk::Result::ERROR_EXTENSION_NOT_PRESENT | vk::Result::ERROR_FEATURE_NOT_PRESENT => {
            (ErrorKind::Unsupported, Some("use a newer driver, or another device"))
        }
        vk::Result::ERROR_INITIALIZATION_FAILED => (
            ErrorKind::Io,
            Some(
                "see what the driver says with VK_LOADER_DEBUG=all, and whether this user may open its node",
            ),
        ),
        vk::Result::ERROR_MEMORY_MAP_FAILED => (ErrorKind::Unsupported, None),
        _ => (ErrorKind::Io, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_kinds_words_and_a_remedy() {
        for (code, kind, part) in [
            (vk::Result::ERROR_OUT_OF_DEVICE_MEMORY, ErrorKind::OutOfMemory, "VK_ERROR_OUT_OF_DEVICE_MEMORY"),
            (vk::Result::ERROR_OUT_OF_HOST_MEMORY, ErrorKind::OutOfMemory, "host memory"),
            (vk::Result::ERROR_TOO_MANY_OBJECTS, ErrorKind::OutOfMemory, "VK_ERROR_TOO_MANY_OBJECTS"),
            (vk::Result::ERROR_DEVICE_LOST, ErrorKind::Gone, "VK_ERROR_DEVICE_LOST"),
            (vk::Result::ERROR_INVALID_EXTERNAL_HANDLE, ErrorKind::InvalidInput, "external handle"),
            (vk::Result::ERROR_INCOMPATIBLE_DRIVER, ErrorKind::Unsupported, "VK_ERROR_INCOMPATIBLE_DRIVER"),
            (vk::Result::ERROR_FEATURE_NOT_PRESENT, ErrorKind::Unsupported, "VK_ERROR_FEATURE_NOT_PRESENT"),
        ] {
            let error = failed(code, "allocate 4096 bytes", "vulkan:test");
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(part) && error.to_string().contains("vulkan:test"), "{error}");
            assert!(error.remedy_text().is_some() && !error.to_string().contains("http"), "{error}");
        }
    }

    #[test]
    fn a_code_that_nobody_knows_is_told_as_its_number() {
        let error = failed(vk::Result::from_raw(-1_000_999_999), "allocate", "vulkan:test");
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("-1000999999"), "{error}");
    }
}
