//! The SPIR-V in this folder is what the WGSL beside it translates to.

use std::path::{Path, PathBuf};

use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ValidationFlags, Validator};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/vulkan/shaders");

/// Set to have the SPIR-V renewed.
const RENEW: &str = "DEVMEM_RENEW_SHADERS";

fn translate(path: &Path) -> Vec<u8> {
    let text = std::fs::read_to_string(path).unwrap();
    let module =
        naga::front::wgsl::parse_str(&text).unwrap_or_else(|error| panic!("{}", error.emit_to_string(&text)));
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::IMMEDIATES);
    let information =
        validator.validate(&module).unwrap_or_else(|error| panic!("{}", error.emit_to_string(&text)));
    let unchecked = BoundsCheckPolicy::Unchecked;
    let options = spv::Options {
        // What Vulkan 1.2 takes without asking.
        lang_version: (1, 3),
        flags: spv::WriterFlags::empty(),
        // The driver's `robustBufferAccess` does it.
        bounds_check_policies: BoundsCheckPolicies {
            index: unchecked,
            buffer: unchecked,
            image_load: unchecked,
            binding_array: unchecked,
        },
        force_loop_bounding: false,
        ..spv::Options::default()
    };
    let words = spv::write_vec(&module, &information, &options, None).unwrap();
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn sources() -> Vec<PathBuf> {
    let files = std::fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path());
    let mut sources: Vec<_> = files.filter(|path| path.extension() == Some("wgsl".as_ref())).collect();
    sources.sort();
    sources
}

#[test]
fn the_spirv_is_the_translation() {
    let sources = sources();
    assert_eq!(sources.len(), 3);
    for source in sources {
        let (translated, path) = (translate(&source), source.with_extension("spv"));
        if std::env::var_os(RENEW).is_some() {
            std::fs::write(&path, &translated).unwrap();
        }
        let committed = std::fs::read(&path).unwrap();
        assert!(committed == translated, "{}: renew it with {RENEW}=1, see CONTRIBUTING.md", path.display());
    }
}
