use super::*;
use crate::drm::headers;
use devmem_uapi_check::layouts;

#[test]
fn the_kernel_headers_agree() {
    headers::drm("i915_drm.h")
        .value("I915_MEMORY_CLASS_SYSTEM", CLASS_SYSTEM)
        .value("I915_MEMORY_CLASS_DEVICE", CLASS_DEVICE)
        .value("I915_GEM_CREATE_EXT_FLAG_NEEDS_CPU_ACCESS", CREATE_NEEDS_CPU_ACCESS)
        .value("I915_GEM_CREATE_EXT_MEMORY_REGIONS", CREATE_EXT_MEMORY_REGIONS)
        .value("DRM_I915_QUERY_MEMORY_REGIONS", QUERY_MEMORY_REGIONS)
        .value("DRM_IOCTL_I915_GEM_THROTTLE", nix::request_code_none!(BASE, COMMAND + 0x18))
        .value("DRM_IOCTL_I915_QUERY", nix::request_code_readwrite!(BASE, COMMAND + 0x39, size_of::<Query>()))
        .value(
            "DRM_IOCTL_I915_GEM_CREATE_EXT",
            nix::request_code_readwrite!(BASE, COMMAND + 0x3c, size_of::<GemCreateExt>()),
        )
        .value("offsetof(struct drm_i915_query_memory_regions, regions)", 16)
        .values(layouts! {
            Region as "drm_i915_gem_memory_class_instance" { memory_class, memory_instance }
            RegionInfo as "drm_i915_memory_region_info" {
                region, probed_size, unallocated_size, probed_cpu_visible_size, unallocated_cpu_visible_size
            }
            Query as "drm_i915_query" { num_items, flags, items_ptr }
            QueryItem as "drm_i915_query_item" { query_id, length, flags, data_ptr }
            GemCreateExt as "drm_i915_gem_create_ext" { size, handle, flags, extensions }
            UserExtension as "i915_user_extension" { next_extension, name, flags }
            MemoryRegions as "drm_i915_gem_create_ext_memory_regions" { base, num_regions, regions }
        })
        .assert();
}

/// A reply as the kernel writes it, of a GPU with 4 GiB of its own behind a window of 256 MiB.
fn reply() -> Vec<u8> {
    let region = |class: u16, sizes: [u64; 4]| {
        let mut bytes = [class.to_ne_bytes(), 0u16.to_ne_bytes()].concat();
        bytes.extend([0; 4]);
        bytes.extend(sizes.iter().flat_map(|size| size.to_ne_bytes()));
        bytes.extend([0; 48]);
        bytes
    };
    let mut bytes = 2u32.to_ne_bytes().to_vec();
    bytes.extend([0; 12]);
    bytes.extend(region(CLASS_SYSTEM, [16 << 30, 15 << 30, 16 << 30, 15 << 30]));
    bytes.extend(region(CLASS_DEVICE, [4 << 30, 3 << 30, 256 << 20, 200 << 20]));
    bytes
}

#[test]
fn reads_what_the_kernel_writes() {
    let regions = parse_regions(&reply()).unwrap();
    assert_eq!(regions.len(), 2);
    assert_eq!(regions[1].region, Region { memory_class: CLASS_DEVICE, memory_instance: 0 });
    assert_eq!((regions[1].probed_size, regions[1].unallocated_size), (4 << 30, 3 << 30));
    assert_eq!(regions[1].probed_cpu_visible_size, 256 << 20);
}

#[test]
fn a_reply_that_is_cut_off_is_refused() {
    let reply = reply();
    for length in [0, 3, 15, 16, 16 + 88, reply.len() - 1] {
        assert_eq!(parse_regions(&reply[..length]), None, "{length} bytes");
    }
}
