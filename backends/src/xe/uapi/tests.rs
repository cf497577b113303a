use super::*;
use crate::drm::headers;
use devmem_uapi_check::layouts;

#[test]
fn the_kernel_headers_agree() {
    headers::drm("xe_drm.h")
        .value("DRM_XE_MEM_REGION_CLASS_SYSMEM", CLASS_SYSTEM)
        .value("DRM_XE_MEM_REGION_CLASS_VRAM", CLASS_VRAM)
        .value("DRM_XE_GEM_CREATE_FLAG_NEEDS_VISIBLE_VRAM", CREATE_NEEDS_VISIBLE_VRAM)
        .value("DRM_XE_GEM_CPU_CACHING_WB", CACHING_WRITE_BACK)
        .value("DRM_XE_GEM_CPU_CACHING_WC", CACHING_WRITE_COMBINED)
        .value("DRM_XE_DEVICE_QUERY_MEM_REGIONS", QUERY_MEMORY_REGIONS)
        .value("DRM_XE_MMAP_OFFSET_FLAG_PCI_BARRIER", MMAP_FLAG_PCI_BARRIER)
        .value(
            "DRM_IOCTL_XE_DEVICE_QUERY",
            nix::request_code_readwrite!(BASE, COMMAND, size_of::<DeviceQuery>()),
        )
        .value(
            "DRM_IOCTL_XE_GEM_CREATE",
            nix::request_code_readwrite!(BASE, COMMAND + 1, size_of::<GemCreate>()),
        )
        .value(
            "DRM_IOCTL_XE_GEM_MMAP_OFFSET",
            nix::request_code_readwrite!(BASE, COMMAND + 2, size_of::<MmapOffset>()),
        )
        .value("offsetof(struct drm_xe_query_mem_regions, mem_regions)", 8)
        .values(layouts! {
            MemoryRegion as "drm_xe_mem_region" {
                mem_class, instance, min_page_size, total_size, used, cpu_visible_size, cpu_visible_used
            }
            DeviceQuery as "drm_xe_device_query" { extensions, query, size, data }
            GemCreate as "drm_xe_gem_create" {
                extensions, size, placement, flags, vm_id, handle, cpu_caching
            }
            MmapOffset as "drm_xe_gem_mmap_offset" { extensions, handle, flags, offset }
        })
        .assert();
}

/// A reply as the kernel writes it, of a GPU with 12 GiB of its own behind a window of 256 MiB.
fn reply() -> Vec<u8> {
    let region = |class: u16, instance: u16, page: u32, sizes: [u64; 4]| {
        let mut bytes = [class.to_ne_bytes(), instance.to_ne_bytes()].concat();
        bytes.extend(page.to_ne_bytes());
        bytes.extend(sizes.iter().flat_map(|size| size.to_ne_bytes()));
        bytes.extend([0; 48]);
        bytes
    };
    let mut bytes = 2u32.to_ne_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(region(CLASS_SYSTEM, 0, 4096, [16 << 30, 1 << 20, 0, 0]));
    bytes.extend(region(CLASS_VRAM, 1, 65536, [12 << 30, 64 << 20, 256 << 20, 8 << 20]));
    bytes
}

#[test]
fn reads_what_the_kernel_writes() {
    let regions = parse_regions(&reply()).unwrap();
    assert_eq!(regions.len(), 2);
    assert_eq!((regions[1].mem_class, regions[1].instance), (CLASS_VRAM, 1));
    assert_eq!((regions[1].min_page_size, regions[1].total_size), (65536, 12 << 30));
    assert_eq!((regions[1].used, regions[1].cpu_visible_size), (64 << 20, 256 << 20));
}

#[test]
fn a_reply_that_is_cut_off_is_refused() {
    let reply = reply();
    for length in [0, 3, 7, 8, 8 + 88, reply.len() - 1] {
        assert_eq!(parse_regions(&reply[..length]), None, "{length} bytes");
    }
}
