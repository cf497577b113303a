//! Mapping for the CPU, access guards, and coherence.

use devmem_provider::dma_buf::Access;
use devmem_provider::{Capabilities, ErrorKind, base_page_size};

use super::allocate::ONE_BUFFER;
use crate::check::{Check, Group, LIMIT};
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::need::Need;
use crate::verdict::{Finding, Outcome};

const MAPPING: Need = Need::Capability(Capabilities::CPU_MAPPING);

const fn check(
    name: &'static str,
    proves: &'static str,
    catches: &'static [Fault],
    run: fn(&Context<'_>) -> Outcome,
) -> Check {
    Check {
        group: Group::CpuAccess,
        name,
        proves,
        needs: &[MAPPING],
        after: &[ONE_BUFFER],
        limit: LIMIT,
        catches,
        run,
    }
}

pub(super) const CHECKS: &[Check] = &[
    check(
        "whole_buffer",
        "Every byte of a buffer is read as it was written, whatever the pattern.",
        &[Fault::ShortExport],
        whole_buffer,
    ),
    check(
        "two_mappings_agree",
        "What one mapping writes another reads, in both directions.",
        &[Fault::ExportsAnew],
        two_mappings_agree,
    ),
    check(
        "parts_are_their_place",
        "A mapping of a part shows the bytes of that part, at the first, a middle and the last page.",
        &[Fault::ShortExport],
        parts_are_their_place,
    ),
    check(
        "unaligned_copies",
        "Copies of odd lengths from odd places touch exactly their bytes.",
        &[Fault::ExportsNoDmaBuf],
        unaligned_copies,
    ),
    check(
        "outside_is_refused",
        "Ranges that are empty, unaligned or not inside the buffer are refused.",
        &[Fault::ShortExport],
        outside_is_refused,
    ),
    check(
        "accesses_nest",
        "Accesses of two mappings may be begun at the same time, and end in any order.",
        &[Fault::ExportsAnew],
        accesses_nest,
    ),
];

fn whole_buffer(context: &Context<'_>) -> Outcome {
    let size = context.size()?;
    let mapping = context.dma_buf()?.map(Access::ReadWrite)?;
    ensure!(mapping.length() as u64 == size, "{} bytes are mapped of {size}", mapping.length());
    for seed in [0u32, 0xff, 0x9e37_79b9] {
        let pattern: Vec<u8> = (0..mapping.length() as u32)
            .map(|index| (index.wrapping_mul(seed | 1).rotate_left(7) ^ seed) as u8)
            .collect();
        let access = mapping.write()?;
        access.copy_from(0, &pattern)?;
        access.finish()?;
        let mut content = vec![0; pattern.len()];
        let access = mapping.read()?;
        access.copy_to(0, &mut content)?;
        access.finish()?;
        let wrong = content.iter().zip(&pattern).position(|(read, written)| read != written);
        ensure!(wrong.is_none(), "byte {} is not what was written", wrong.unwrap_or_default());
    }
    Ok(Finding::Pass)
}

fn two_mappings_agree(context: &Context<'_>) -> Outcome {
    let buffer = context.buffer()?;
    let first = buffer.export()?.map(Access::ReadWrite)?;
    let second = buffer.export()?.map(Access::ReadWrite)?;
    for (writer, reader, byte) in [(&first, &second, 0x11), (&second, &first, 0x22)] {
        let access = writer.write()?;
        access.copy_from(0, &vec![byte; writer.length()])?;
        access.finish()?;
        let mut content = vec![0; reader.length()];
        let access = reader.read()?;
        access.copy_to(0, &mut content)?;
        access.finish()?;
        let wrong = content.iter().position(|&read| read != byte);
        ensure!(wrong.is_none(), "byte {} is not what the other mapping wrote", wrong.unwrap_or_default());
    }
    Ok(Finding::Pass)
}

fn parts_are_their_place(context: &Context<'_>) -> Outcome {
    let (size, page) = (context.size()?, base_page_size());
    let dma_buf = context.dma_buf()?;
    let whole = dma_buf.map(Access::ReadWrite)?;
    let access = whole.write()?;
    for index in 0..size / page {
        access.copy_from((index * page) as usize, &index.to_le_bytes())?;
    }
    access.finish()?;
    let last = size / page - 1;
    for index in [0, last / 2, last] {
        let part = dma_buf.map_range(index * page, page, Access::Read)?;
        ensure!(part.length() as u64 == page, "{} bytes are mapped of {page}", part.length());
        let mut found = [0; 8];
        part.read()?.copy_to(0, &mut found)?;
        let found = u64::from_le_bytes(found);
        ensure!(found == index, "the mapping of page {index} shows page {found}");
    }
    Ok(Finding::Pass)
}

fn unaligned_copies(context: &Context<'_>) -> Outcome {
    let mapping = context.dma_buf()?.map(Access::ReadWrite)?;
    let access = mapping.write()?;
    access.copy_from(0, &vec![0; mapping.length()])?;
    access.finish()?;
    let mut expected = vec![0; mapping.length()];
    let access = mapping.write()?;
    for (index, length) in [1usize, 2, 3, 7, 8, 9, 63, 65, 4095, 4097].into_iter().enumerate() {
        let offset = 13 + index * 5003;
        let bytes: Vec<u8> = (0..length).map(|at| (at % 241 + index + 1) as u8).collect();
        access.copy_from(offset, &bytes)?;
        expected[offset..offset + length].copy_from_slice(&bytes);
    }
    access.finish()?;
    let mut content = vec![0; mapping.length()];
    mapping.read()?.copy_to(0, &mut content)?;
    let wrong = content.iter().zip(&expected).position(|(read, written)| read != written);
    ensure!(wrong.is_none(), "byte {} is not what was written", wrong.unwrap_or_default());
    let mut beyond = [0; 2];
    let result = mapping.read()?.copy_to(mapping.length() - 1, &mut beyond);
    let kind = result.err().map(|error| error.kind());
    ensure!(kind == Some(ErrorKind::InvalidInput), "a read behind the end: {kind:?}");
    Ok(Finding::Pass)
}

fn outside_is_refused(context: &Context<'_>) -> Outcome {
    let (size, page) = (context.size()?, base_page_size());
    let dma_buf = context.dma_buf()?;
    dma_buf.map_range(size - page, page, Access::Read)?;
    for (offset, length) in [(0, 0), (0, size + page), (size, page), (u64::MAX - page + 1, page), (1, page)] {
        let kind = dma_buf.map_range(offset, length, Access::Read).err().map(|error| error.kind());
        ensure!(kind == Some(ErrorKind::InvalidInput), "{length} bytes from offset {offset}: {kind:?}");
    }
    Ok(Finding::Pass)
}

fn accesses_nest(context: &Context<'_>) -> Outcome {
    let buffer = context.buffer()?;
    let (first, second) = (buffer.export()?.map(Access::ReadWrite)?, buffer.export()?.map(Access::Read)?);
    let writing = first.write()?;
    let reading = second.read()?;
    writing.copy_from(0, &[7])?;
    writing.finish()?;
    let mut found = [0];
    reading.copy_to(0, &mut found)?;
    reading.finish()?;
    ensure!(found == [7], "what was written under one access is not read under the other: {found:?}");
    Ok(Finding::Pass)
}
