//! Reads what the lab needs from ELF files: sections of kernel modules, needs of programs.

/// A 64-bit little-endian ELF file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Elf<'a> {
    content: &'a [u8],
}

/// What a program or library asks the dynamic loader for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// The dynamic loader; `None` for a static program or a library.
    pub(crate) interpreter: Option<String>,
    /// Names of libraries.
    pub(crate) libraries: Vec<String>,
    /// Folders to look in first, with `$ORIGIN` as written.
    pub(crate) search: Vec<String>,
}

const SEGMENT_LOAD: u32 = 1;
const SEGMENT_DYNAMIC: u32 = 2;
const SEGMENT_INTERPRETER: u32 = 3;

const DYNAMIC_NEEDED: u64 = 1;
const DYNAMIC_STRINGS: u64 = 5;
const DYNAMIC_RPATH: u64 = 15;
const DYNAMIC_RUNPATH: u64 = 29;

struct Segment {
    kind: u32,
    offset: usize,
    address: u64,
    size: usize,
}

impl<'a> Elf<'a> {
    /// `None` if the content is no 64-bit little-endian ELF file.
    pub(crate) fn parse(content: &'a [u8]) -> Option<Self> {
        content.starts_with(b"\x7fELF\x02\x01").then_some(Self { content })
    }

    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.content.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn half(&self, at: usize) -> Option<usize> {
        self.bytes(at).map(|bytes| usize::from(u16::from_le_bytes(bytes)))
    }

    fn word(&self, at: usize) -> Option<u32> {
        self.bytes(at).map(u32::from_le_bytes)
    }

    fn long(&self, at: usize) -> Option<u64> {
        self.bytes(at).map(u64::from_le_bytes)
    }

    fn offset(&self, at: usize) -> Option<usize> {
        usize::try_from(self.long(at)?).ok()
    }

    fn text(&self, at: usize) -> Option<String> {
        let rest = self.content.get(at..)?;
        let end = rest.iter().position(|&byte| byte == 0)?;
        String::from_utf8(rest[..end].to_vec()).ok()
    }

    /// The content of the section with this name.
    pub(crate) fn section(&self, name: &str) -> Option<&'a [u8]> {
        let (table, size, count, names) =
            (self.offset(0x28)?, self.half(0x3a)?, self.half(0x3c)?, self.half(0x3e)?);
        let header = |index: usize| table.checked_add(index.checked_mul(size)?);
        let names = self.offset(header(names)?.checked_add(0x18)?)?;
        (0..count).find_map(|index| {
            let header = header(index)?;
            let found = self.text(names.checked_add(self.word(header)? as usize)?)?;
            if found != name {
                return None;
            }
            let (offset, size) =
                (self.offset(header.checked_add(0x18)?)?, self.offset(header.checked_add(0x20)?)?);
            self.content.get(offset..offset.checked_add(size)?)
        })
    }

    fn segments(&self) -> Option<Vec<Segment>> {
        let (table, size, count) = (self.offset(0x20)?, self.half(0x36)?, self.half(0x38)?);
        (0..count)
            .map(|index| {
                let header = table.checked_add(index.checked_mul(size)?)?;
                Some(Segment {
                    kind: self.word(header)?,
                    offset: self.offset(header.checked_add(0x08)?)?,
                    address: self.long(header.checked_add(0x10)?)?,
                    size: self.offset(header.checked_add(0x20)?)?,
                })
            })
            .collect()
    }

    /// What the dynamic loader is asked for; `None` if the file is damaged.
    pub(crate) fn needs(&self) -> Option<Needs> {
        let segments = self.segments()?;
        let place = |address: u64| {
            segments.iter().filter(|segment| segment.kind == SEGMENT_LOAD).find_map(|segment| {
                let within = usize::try_from(address.checked_sub(segment.address)?).ok()?;
                (within < segment.size).then(|| segment.offset.checked_add(within))?
            })
        };
        let mut needs = Needs::default();
        if let Some(segment) = segments.iter().find(|segment| segment.kind == SEGMENT_INTERPRETER) {
            needs.interpreter = Some(self.text(segment.offset)?);
        }
        let Some(dynamic) = segments.iter().find(|segment| segment.kind == SEGMENT_DYNAMIC) else {
            return Some(needs);
        };
        let entries: Vec<(u64, u64)> = (0..dynamic.size / 16)
            .map_while(|index| {
                let at = dynamic.offset.checked_add(index * 16)?;
                Some((self.long(at)?, self.long(at.checked_add(8)?)?))
            })
            .take_while(|&(tag, _)| tag != 0)
            .collect();
        let Some(&(_, strings)) = entries.iter().find(|&&(tag, _)| tag == DYNAMIC_STRINGS) else {
            return Some(needs);
        };
        let strings = place(strings)?;
        for (tag, value) in entries {
            let text = || self.text(strings.checked_add(usize::try_from(value).ok()?)?);
            match tag {
                DYNAMIC_NEEDED => needs.libraries.push(text()?),
                DYNAMIC_RPATH | DYNAMIC_RUNPATH => needs.search.extend(text()?.split(':').map(str::to_owned)),
                _ => {}
            }
        }
        Some(needs)
    }

    /// The file without what is not loaded when it runs (debugging information, symbols): its
    /// beginning up to the end of the last segment, with the section table taken out of the header.
    pub(crate) fn loadable_part(&self) -> Option<Vec<u8>> {
        let mut end = self.offset(0x20)?.checked_add(self.half(0x36)?.checked_mul(self.half(0x38)?)?)?;
        for segment in self.segments()? {
            end = end.max(segment.offset.checked_add(segment.size)?);
        }
        let mut part = self.content.get(..end)?.to_vec();
        part.get_mut(0x28..0x30)?.fill(0);
        part.get_mut(0x3c..0x40)?.fill(0);
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this_program() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn the_needs_of_this_very_program_are_found() {
        let content = this_program();
        let needs = Elf::parse(&content).unwrap().needs().unwrap();
        assert!(needs.interpreter.unwrap().contains("ld-linux"));
        assert!(needs.libraries.iter().any(|name| name == "libc.so.6"), "{:?}", needs.libraries);
    }

    #[test]
    fn sections_are_found_by_name() {
        let content = this_program();
        let elf = Elf::parse(&content).unwrap();
        assert!(elf.section(".interp").unwrap().starts_with(b"/"));
        assert!(elf.section(".no-such-section").is_none());
    }

    #[test]
    fn the_loadable_part_is_smaller_and_has_the_same_needs() {
        let content = this_program();
        let part = Elf::parse(&content).unwrap().loadable_part().unwrap();
        assert!(part.len() < content.len());
        let stripped = Elf::parse(&part).unwrap();
        assert_eq!(stripped.needs(), Elf::parse(&content).unwrap().needs());
        assert!(stripped.section(".interp").is_none());
    }

    proptest::proptest! {
        #[test]
        fn damaged_files_are_refused_not_followed(
            damage in proptest::collection::vec((0usize..0x400, proptest::num::u8::ANY), 1..24),
            length in 0usize..0x4000,
        ) {
            let mut content = this_program();
            for (at, value) in damage {
                content[at.max(6)] = value;
            }
            content.truncate(length);
            if let Some(elf) = Elf::parse(&content) {
                let _ = (elf.needs(), elf.section(".modinfo"), elf.loadable_part());
            }
        }
    }
}
