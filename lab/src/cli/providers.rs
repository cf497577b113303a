//! What a machine needs so that a provider of memory exists in it.

use std::collections::BTreeSet;

use devmem_lab::{Flavour, Machine};

/// The emulated GPU, the kernel module or Vulkan, by which a provider comes to be. Providers that are not listed
/// are there in any machine.
const NEEDS: [(&str, Need); 7] = [
    ("amdgpu", Need::Gpu("amdgpu")),
    ("i915", Need::Gpu("i915:dg1")),
    ("xe", Need::Gpu("xe")),
    ("nouveau", Need::Gpu("nouveau")),
    ("virtio-gpu", Need::Gpu("virtio-gpu")),
    ("vgem", Need::Module("vgem")),
    // Without a GPU, it is there on the processor.
    ("vulkan", Need::Vulkan),
];

#[derive(Clone, Copy)]
enum Need {
    Gpu(&'static str),
    Module(&'static str),
    Vulkan,
}

/// Options of the tool that name a provider: the one that is received into, and the one that gathers.
const OPTIONS: [&str; 2] = ["--provider", "--gather"];

/// Adds what the providers need that the tool's options name; no GPUs if some were chosen already.
pub(super) fn add(machine: Machine, tool_options: &[String], has_gpus: bool) -> Machine {
    let add = |machine: Machine, backend: &str| match NEEDS.iter().find(|(name, _)| *name == backend) {
        Some((_, Need::Gpu(gpu))) if !has_gpus => machine.gpu(gpu),
        Some((_, Need::Module(module))) => machine.flavour(Flavour::Generic).module(module),
        Some((_, Need::Vulkan)) => machine.vulkan(),
        _ => machine,
    };
    backends(tool_options).into_iter().fold(machine, add)
}

/// The backends that the tool's options name, each once.
fn backends(tool_options: &[String]) -> BTreeSet<&str> {
    let named = OPTIONS.iter().filter_map(|option| value(tool_options, option));
    // A provider's name may say which of several it is, after a colon.
    named.filter_map(|provider| provider.split(':').next()).collect()
}

/// The value of an option.
pub(super) fn value<'a>(options: &'a [String], name: &str) -> Option<&'a str> {
    let mut options = options.iter();
    while let Some(option) = options.next() {
        if option == name {
            return options.next().map(String::as_str);
        }
        if let Some(value) = option.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_value_is_found_in_either_form() {
        assert_eq!(value(&options("--json --provider amdgpu --size 1M"), "--provider"), Some("amdgpu"));
        assert_eq!(value(&options("--provider=xe:0"), "--provider"), Some("xe:0"));
        assert_eq!(value(&options("--size 1M --provider"), "--provider"), None);
    }

    #[test]
    fn each_backend_is_named_once() {
        let named = |text| backends(&options(text)).into_iter().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(named("--provider amdgpu --gather=vulkan:llvmpipe --json"), ["amdgpu", "vulkan"]);
        assert_eq!(named("--provider=vulkan:0000:00:10.0 --gather=vulkan"), ["vulkan"]);
        assert!(named("--json").is_empty());
    }
}
