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

#[cfg(test)]
mod tests {
    use object::Endianness;
    use object::build::elf::{Builder, Relocation, SectionData};
    use object::elf::{
        EM_X86_64, ET_REL, R_X86_64_PC32, SHF_ALLOC, SHF_EXECINSTR, SHT_PROGBITS, SHT_RELA, SHT_STRTAB,
        SHT_SYMTAB, STB_GLOBAL, STT_FUNC,
    };

    use super::*;

    /// A relocatable file with two functions, of which a relocation names the second.
    fn module() -> Vec<u8> {
        let mut builder = Builder::new(Endianness::Little, true);
        (builder.header.e_type, builder.header.e_machine) = (ET_REL, EM_X86_64);
        let text = builder.sections.add();
        (text.name, text.sh_type, text.sh_flags) =
            (b".text"[..].into(), SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR);
        text.data = SectionData::Data(vec![0x90; 16].into());
        (text.sh_addralign, text.sh_offset) = (16, 64);
        let text = text.id();
        let ids = [&b"unneeded"[..], b"needed"].map(|name| {
            let symbol = builder.symbols.add();
            (symbol.name, symbol.section) = (name.into(), Some(text));
            symbol.set_st_info(STB_GLOBAL, STT_FUNC);
            symbol.id()
        });
        let tables = [
            (&b".symtab"[..], SHT_SYMTAB, SectionData::Symbol),
            (b".strtab", SHT_STRTAB, SectionData::String),
            (b".shstrtab", SHT_STRTAB, SectionData::SectionString),
        ]
        .map(|(name, kind, data)| {
            let section = builder.sections.add();
            (section.name, section.sh_type, section.data) = (name.into(), kind, data);
            section.id()
        });
        let relocation =
            Relocation { r_offset: 4, symbol: Some(ids[1]), r_type: R_X86_64_PC32, r_addend: -4 };
        let section = builder.sections.add();
        (section.name, section.sh_type) = (b".rela.text"[..].into(), SHT_RELA);
        (section.sh_link_section, section.sh_info_section) = (Some(tables[0]), Some(text));
        section.data = SectionData::Relocation(vec![relocation]);
        let mut file = Vec::new();
        builder.write(&mut file).unwrap();
        file
    }

    #[test]
    fn symbols_that_a_relocation_names_stay() {
        let stripped = without_unneeded(&module()).unwrap();
        let builder = Builder::read(stripped.as_slice()).unwrap();
        let names: Vec<_> = builder.symbols.iter().map(|symbol| symbol.name.to_vec()).collect();
        assert_eq!(names, [b"needed"]);
        let relocations = builder.sections.iter().find_map(|section| match &section.data {
            SectionData::Relocation(relocations) => Some(relocations),
            _ => None,
        });
        let symbol = relocations.unwrap()[0].symbol.unwrap();
        assert_eq!(builder.symbols.get(symbol).name.as_slice(), b"needed");
    }

    #[test]
    fn what_is_no_module_is_left_alone() {
        assert_eq!(without_unneeded(b"text"), None);
    }
}
