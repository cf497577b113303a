//! Leaves out of kernel modules the symbols that nothing refers to.
//!
//! The kernel's function tracer looks up every function of a module in the module's symbol table when it
//! loads it. For a graphics driver with tens of thousands of symbols that takes an emulated processor
//! ten seconds and more. Code and data stay as the distribution built them; the signature does not fit any
//! more, which the distribution's kernels note and accept.

use object::build::elf::{Builder, SectionData};

/// The module without the symbols that no relocation names; `None` if it is no module.
pub(super) fn without_unneeded(module: &[u8]) -> Option<Vec<u8>> {
    let mut builder = Builder::read(module).ok()?;
    let relocations = builder.sections.iter().filter_map(|section| match &section.data {
        SectionData::Relocation(relocations) => Some(relocations),
        _ => None,
    });
    let needed: Vec<_> = relocations.flatten().filter_map(|relocation| relocation.symbol).collect();
    for symbol in &mut builder.symbols {
        symbol.delete = true;
    }
    for symbol in needed {
        builder.symbols.get_mut(symbol).delete = false;
    }
    let mut stripped = Vec::new();
    builder.write(&mut stripped).ok()?;
    Some(stripped)
}
