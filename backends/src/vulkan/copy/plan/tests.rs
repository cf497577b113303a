use proptest::prelude::*;

use super::*;

const CONDITIONS: Conditions = Conditions {
    method: GatherMethod::Automatic,
    shaders: true,
    indirect: true,
    software: false,
    alignment: 64,
    most_window: 1 << 27,
};

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect()
}

/// What `gather.wgsl` does, byte by byte.
fn run_shader(list: &ShaderList, range: &ShaderRange, source: &[u8], destination: &mut [u8]) {
    let (fragments, tiles) = (words(&list.fragments), words(&list.tiles));
    let start = |fragment: u32| fragments[fragment as usize * 2];
    let source = &source[range.source.start as usize..];
    let destination = &mut destination[range.destination.start as usize..range.destination.end as usize];
    for group in 0..range.groups() {
        for unit in group * 256..range.count.min(group * 256 + 256) {
            for byte in 0..16 {
                let at = (range.first + unit) * 16 + byte;
                let (low, high) = (tiles[group as usize], tiles[group as usize + 1]);
                // The search of the shader stays between these for the first byte of a unit, and goes on from there.
                let fragment = (low..).find(|&fragment| start(fragment + 1) > at).unwrap();
                assert!(byte > 0 || fragment <= high, "tile {group} does not reach fragment {fragment}");
                let from = fragments[fragment as usize * 2 + 1] + (at - start(fragment));
                destination[at as usize] = source[from as usize];
            }
        }
    }
}

fn copy(regions: &[BufferCopy], source: &[u8], destination: &mut [u8]) {
    for region in regions {
        let (from, to, size) = (region.src_offset as usize, region.dst_offset as usize, region.size as usize);
        destination[to..to + size].copy_from_slice(&source[from..from + size]);
    }
}

fn expected(fragments: &[Extent], offset: u64, source: &[u8], destination: &mut [u8]) {
    let mut at = offset as usize;
    for fragment in fragments {
        let (from, length) = (fragment.offset as usize, fragment.length as usize);
        destination[at..at + length].copy_from_slice(&source[from..from + length]);
        at += length;
    }
}

fn a_source() -> Vec<u8> {
    (0..1 << 16).map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Fragments of 64 KiB: mostly short ones and mostly long ones, often one behind the other.
fn some_fragments() -> impl Strategy<Value = Vec<Extent>> {
    let one = (0_u64..60_000, prop_oneof![1_u64..40, 1_u64..5000], any::<bool>());
    prop::collection::vec(one, 1..60).prop_map(|list| {
        let mut fragments: Vec<Extent> = Vec::new();
        for (offset, length, follows) in list {
            let behind = fragments.last().and_then(|last| last.end()).filter(|&end| follows && end < 60_000);
            fragments.push(Extent::new(behind.unwrap_or(offset), length));
        }
        fragments
    })
}

proptest! {
    #[test]
    fn pieces_are_the_fragments_in_order(
        fragments in some_fragments(),
        offset in 0_u64..100,
        most_pieces in 1_usize..20,
        most_bytes in 1_u64..10_000,
    ) {
        let (mut plan, mut pieces) = (Pieces::new(&fragments, offset), Vec::new());
        let mut all = Vec::new();
        loop {
            plan.fill(&mut pieces, most_pieces, most_bytes);
            prop_assert!(pieces.len() <= most_pieces);
            prop_assert!(pieces.iter().map(|piece| piece.size).sum::<u64>() <= most_bytes);
            if pieces.is_empty() {
                break;
            }
            // Neighbours are one piece.
            prop_assert!(pieces.windows(2).all(|pair| pair[0].src_offset + pair[0].size != pair[1].src_offset));
            all.extend_from_slice(&pieces);
        }
        let source = a_source();
        let (mut wanted, mut had) = (vec![0x55; 400_000], vec![0x55; 400_000]);
        expected(&fragments, offset, &source, &mut wanted);
        copy(&all, &source, &mut had);
        prop_assert!(wanted == had);
    }

    #[test]
    fn indirect_copies_are_aligned_and_the_rest_is_copied_otherwise(
        fragments in some_fragments(),
        offset in 0_u64..300,
        addresses in (0_u64..9, 0_u64..9),
    ) {
        let (mut pieces, mut list) = (Vec::new(), IndirectList::default());
        Pieces::new(&fragments, offset).fill(&mut pieces, MOST_PIECES, u64::MAX);
        let (from, to) = (addresses.0 + (1 << 40), addresses.1 + (1 << 41));
        let count = list.build(&pieces, from, to);
        let words: Vec<u64> =
            list.copies.chunks(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect();
        prop_assert_eq!(words.len(), count as usize * 3);
        prop_assert!(words.iter().all(|word| word % 4 == 0));
        let mut regions: Vec<BufferCopy> = words
            .chunks(3)
            .map(|copy| BufferCopy { src_offset: copy[0] - from, dst_offset: copy[1] - to, size: copy[2] })
            .collect();
        regions.extend_from_slice(&list.rest);
        prop_assert!(regions.iter().all(|region| region.size > 0));
        let copied: u64 = regions.iter().map(|region| region.size).sum();
        prop_assert_eq!(copied, fragments.iter().map(|fragment| fragment.length).sum::<u64>());
        let source = a_source();
        let (mut wanted, mut had) = (vec![0x55; 400_000], vec![0x55; 400_000]);
        expected(&fragments, offset, &source, &mut wanted);
        copy(&regions, &source, &mut had);
        prop_assert!(wanted == had);
    }

    #[test]
    fn the_shader_and_its_edges_copy_every_byte_once(
        fragments in some_fragments(),
        offset in 0_u64..300,
        alignment in prop::sample::select(vec![1_u64, 4, 16, 64, 256]),
    ) {
        let conditions = Conditions { alignment, ..CONDITIONS };
        let (mut pieces, mut list) = (Vec::new(), ShaderList::default());
        Pieces::new(&fragments, offset).fill(&mut pieces, MOST_PIECES, MOST_SHADER_BYTES);
        let bytes: u64 = fragments.iter().map(|fragment| fragment.length).sum();
        let source = a_source();
        let (mut wanted, mut had) = (vec![0x55; 400_000], vec![0x55; 400_000]);
        expected(&fragments, offset, &source, &mut wanted);
        match list.build(&pieces, &conditions) {
            Some(range) => {
                prop_assert!(range.source.start % alignment == 0 && range.destination.start % alignment == 0);
                let edges: u64 = list.edges.iter().map(|edge| edge.size).sum();
                prop_assert_eq!(edges + u64::from(range.count) * 16, bytes);
                run_shader(&list, &range, &source, &mut had);
                copy(&list.edges, &source, &mut had);
            }
            None => {
                // No unit of 16 bytes lies inside.
                prop_assert!(bytes < 31);
                copy(&pieces, &source, &mut had);
            }
        }
        prop_assert!(wanted == had);
    }
}

#[test]
fn what_lies_too_far_apart_is_no_list() {
    let pieces = [
        BufferCopy { src_offset: 0, dst_offset: 0, size: 4096 },
        BufferCopy { src_offset: 1 << 28, dst_offset: 4096, size: 4096 },
    ];
    assert!(ShaderList::default().build(&pieces, &CONDITIONS).is_none());
    let far = Conditions { most_window: u64::MAX, ..CONDITIONS };
    assert!(ShaderList::default().build(&pieces, &far).is_some());
    let farther = [pieces[0], BufferCopy { src_offset: 1 << 32, ..pieces[1] }];
    assert!(ShaderList::default().build(&farther, &far).is_none());
}

#[test]
fn lists_are_for_many_small_pieces() {
    let pieces = |count: u64, size| -> Vec<BufferCopy> {
        (0..count)
            .map(|index| BufferCopy { src_offset: index * 2 * size, dst_offset: index * size, size })
            .collect()
    };
    let (many, few, large) = (pieces(1000, 4096), pieces(4, 4096), pieces(100, 1 << 20));
    let software = Conditions { software: true, ..CONDITIONS };
    for (conditions, expected) in [
        (CONDITIONS, GatherMethod::Shader),
        (software, GatherMethod::Indirect),
        (Conditions { indirect: false, ..software }, GatherMethod::Commands),
        (Conditions { shaders: false, ..CONDITIONS }, GatherMethod::Indirect),
        (Conditions { shaders: false, indirect: false, ..CONDITIONS }, GatherMethod::Commands),
    ] {
        assert_eq!(conditions.choose(&many), expected, "{conditions:?}");
        assert_eq!(conditions.choose(&few), GatherMethod::Commands, "{conditions:?}");
        assert_eq!(conditions.choose(&large), GatherMethod::Commands, "{conditions:?}");
    }
    for method in [GatherMethod::Shader, GatherMethod::Indirect, GatherMethod::Commands] {
        let forced = Conditions { method, ..software };
        assert!([&many, &few, &large].iter().all(|pieces| forced.choose(pieces) == method));
        let unable = Conditions { shaders: false, indirect: false, ..forced };
        assert_eq!(unable.choose(&many), GatherMethod::Commands);
    }
}

#[test]
fn a_full_list_has_room() {
    let pieces: Vec<BufferCopy> = (0..MOST_PIECES as u64)
        .map(|index| BufferCopy { src_offset: index * 8192, dst_offset: 15 + index * 4096, size: 4096 })
        .collect();
    let mut list = ShaderList::default();
    let range = list.build(&pieces, &Conditions { alignment: 256, ..CONDITIONS }).unwrap();
    assert!(list.fragments.len() <= FRAGMENT_BYTES && list.tiles.len() <= TILE_BYTES);
    assert!(range.groups() <= 65535 && range.destination.end - range.destination.start <= 1 << 27);
}
