//! Where two pieces of buffers differ first, found by the shader `difference.wgsl`.

use std::sync::Arc;

use devmem_provider::device_copy::check_piece;
use devmem_provider::{DmaBuf, Extent, Result};

use super::{Shared, scratch};
use crate::vulkan::copy::work::Work;
use crate::vulkan::sys::device::QueueRole;
use crate::vulkan::sys::pipeline::{Bindings, Window};

const COMPARE: &str = "compare bytes";

/// How many bytes are compared with one submission, from a multiple of a device's alignment on.
const STEP: u64 = 32 << 20;

/// The bytes that a workgroup of the shader compares.
const GROUP: u32 = 4096;

/// What the shader leaves where it finds no difference.
const NONE: u32 = u32::MAX;

pub(crate) fn first_difference(
    shared: &Arc<Shared>,
    left: &DmaBuf,
    piece: Extent,
    right: &DmaBuf,
    right_offset: u64,
) -> Result<Option<u64>> {
    shared.check_alive(COMPARE)?;
    let other = Extent::new(right_offset, piece.length);
    check_piece(piece, left)?;
    check_piece(other, right)?;
    if piece.length == 0 {
        return Ok(None);
    }
    let same = left.inode() == right.inode();
    let left = shared.import_for_shaders(left, COMPARE)?;
    let right = if same { Arc::clone(&left) } else { shared.import_for_shaders(right, COMPARE)? };
    let failed = |code| shared.failed(code, COMPARE);
    let pipeline = shared.pipeline(&shared.first_difference)?;
    let mut bindings = Arc::new(Bindings::new(&pipeline).map_err(failed)?);
    let mut found = scratch::scratch(shared, 4, scratch::FOR_SHADERS)?;
    let mut work = Work::new(shared, QueueRole::Main, COMPARE)?;
    let alignment = shared.device.limits().min_storage_buffer_offset_alignment.max(4);
    // A window of a buffer, and where the bytes begin in it.
    let window = |start: u64, length: u64| {
        let offset = start / alignment * alignment;
        let end = (start + length).next_multiple_of(4);
        (Window { offset, length: end - offset }, (start - offset) as u32)
    };
    for done in (0..piece.length).step_by(STEP as usize) {
        let length = STEP.min(piece.length - done);
        scratch::write(shared, &mut found, 0, &NONE.to_ne_bytes())?;
        let (left_window, left_start) = window(piece.offset + done, length);
        let (right_window, right_start) = window(other.offset + done, length);
        work.clear()?;
        let windows =
            [(&left, left_window), (&right, right_window), (found.buffer(), Window { offset: 0, length: 4 })];
        if let Some(bindings) = Arc::get_mut(&mut bindings) {
            for (binding, (buffer, window)) in (0..).zip(windows) {
                bindings.bind(binding, buffer, window).map_err(failed)?;
            }
        }
        let length = length as u32;
        work.run(|recording| {
            recording.acquire(&[&left, &right]);
            recording.dispatch(&bindings, &[left_start, right_start, length], length.div_ceil(GROUP))?;
            recording.release(&[&left, &right]);
            Ok(())
        })?;
        let mut position = [0; 4];
        scratch::read(shared, &found, 0, &mut position)?;
        let position = u32::from_ne_bytes(position);
        if position != NONE {
            return Ok(Some(done + u64::from(position)));
        }
    }
    Ok(None)
}
