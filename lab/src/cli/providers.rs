//! What a machine needs so that a provider of memory exists in it.

use devmem_lab::{Flavour, Machine};

/// The emulated GPU, or else the kernel module, by which a provider comes to be. Providers that are not listed
/// are there in any machine.
const NEEDS: [(&str, Need); 6] = [
    ("amdgpu", Need::Gpu("amdgpu")),
    ("i915", Need::Gpu("i915:dg1")),
    ("xe", Need::Gpu("xe")),
    ("nouveau", Need::Gpu("nouveau")),
    ("virtio-gpu", Need::Gpu("virtio-gpu")),
    ("vgem", Need::Module("vgem")),
];

#[derive(Clone, Copy)]
enum Need {
    Gpu(&'static str),
    Module(&'static str),
}

/// Adds what the provider needs that the tool's options name, unless GPUs were chosen already.
pub(super) fn add(machine: Machine, tool_options: &[String], has_gpus: bool) -> Machine {
    let provider = provider(tool_options).unwrap_or_default();
    // A provider's name may say which of several it is, after a colon.
    let backend = provider.split(':').next().unwrap_or_default();
    match NEEDS.iter().find(|(name, _)| *name == backend) {
        Some((_, Need::Gpu(gpu))) if !has_gpus => machine.gpu(gpu),
        Some((_, Need::Module(module))) => machine.flavour(Flavour::Generic).module(module),
        _ => machine,
    }
}

/// The value of `--provider`.
fn provider(options: &[String]) -> Option<&str> {
    let mut options = options.iter();
    while let Some(option) = options.next() {
        if option == "--provider" {
            return options.next().map(String::as_str);
        }
        if let Some(value) = option.strip_prefix("--provider=") {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_provider_is_found_in_either_form() {
        let options = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(provider(&options("--json --provider amdgpu --size 1M")), Some("amdgpu"));
        assert_eq!(provider(&options("--provider=xe:0")), Some("xe:0"));
        assert_eq!(provider(&options("--size 1M --provider")), None);
    }
}
