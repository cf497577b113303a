//! Gathering within memory that is a device's alone: on any device of Vulkan, also of a driver that exports no DMA-bufs.

use std::fs::File;
use std::time::Instant;

use ash::vk::{self, BufferUsageFlags, MemoryPropertyFlags};

use super::*;
use crate::vulkan::copy::work::Work;
use crate::vulkan::copy::{CopyOptions, VulkanCopy, digest, scratch};
use crate::vulkan::instance;
use crate::vulkan::sys::device::{Device, Families};
use crate::vulkan::sys::mapping::MappedBuffer;
use crate::vulkan::sys::memory::{Buffer, Sharing, Source};

const FRAGMENTS: u64 = 16384;
const LENGTH: u64 = 4096;
const BYTES: u64 = FRAGMENTS * LENGTH;
const ROUNDS: usize = 9;
const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    shared: Arc<Shared>,
    source: Arc<BoundBuffer>,
    destination: Arc<BoundBuffer>,
    staging: MappedBuffer,
}

impl Bench {
    fn new(device: &Arc<Device>, kind: devmem_provider::DeviceKind, gather: GatherMethod) -> Self {
        let shared = VulkanCopy::new(device, &device.physical().name(), kind, CopyOptions { gather }).0;
        let both = BufferUsageFlags::TRANSFER_SRC | BufferUsageFlags::TRANSFER_DST;
        let staging = scratch::scratch(&shared, BYTES, both).unwrap();
        let buffer = || {
            let usage = both | BufferUsageFlags::STORAGE_BUFFER;
            let buffer = Buffer::new(device, BYTES, usage, Sharing::Private).unwrap();
            let memory = device.physical().memory();
            let mut types = memory.allowed(buffer.requirements().memory_types);
            let local = |(_, kind): &(u32, _)| {
                let kind: &crate::vulkan::memory_properties::MemoryType = kind;
                kind.flags.contains(MemoryPropertyFlags::DEVICE_LOCAL)
            };
            let (index, _) = types.find(local).unwrap();
            Arc::new(BoundBuffer::new(buffer, index, Source::Private).unwrap())
        };
        let (source, destination) = (buffer(), buffer());
        Self { shared, source, destination, staging }
    }

    fn copy(&self, from: &Arc<BoundBuffer>, to: &Arc<BoundBuffer>) {
        let mut work = Work::new(&self.shared, QueueRole::Main, GATHER).unwrap();
        work.run(|recording| {
            recording.acquire(&[from, to]);
            recording.copy(from, to, &[vk::BufferCopy { src_offset: 0, dst_offset: 0, size: BYTES }])?;
            recording.release(&[from, to]);
            Ok(())
        })
        .unwrap();
    }

    fn fill(&mut self, content: &[u8]) {
        scratch::write(&self.shared, &mut self.staging, 0, content).unwrap();
        self.copy(self.staging.buffer(), &self.source);
    }

    fn content(&self) -> Vec<u8> {
        self.copy(&self.destination, self.staging.buffer());
        let mut content = vec![0; BYTES as usize];
        scratch::read(&self.shared, &self.staging, 0, &mut content).unwrap();
        content
    }

    fn gather(&self) -> VulkanGather {
        // Nobody asks for a sync_file.
        let nothing = DmaBuf::from_exporter(File::open("/dev/null").unwrap().into(), BYTES);
        let (from, to) = (Arc::clone(&self.source), Arc::clone(&self.destination));
        VulkanGather::between(&self.shared, from, to, &nothing, None).unwrap()
    }
}

fn seconds(gather: &mut VulkanGather, fragments: &[Extent]) -> f64 {
    let started = Instant::now();
    let ticket = gather.submit(fragments, 0).unwrap();
    assert!(gather.wait(ticket, PATIENCE).unwrap());
    started.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Every page once, in an order that is the same each time. Odd lengths leave no page whole.
fn shuffled(odd: bool) -> Vec<Extent> {
    let page = |index: u64| (index.wrapping_mul(0x9e37_79b1) ^ 0x2a5a) % FRAGMENTS;
    let mut order: Vec<u64> = (0..FRAGMENTS).collect();
    order.sort_by_key(|&index| (page(index), index));
    let length = |index: u64| if odd { LENGTH - 1 - index % 7 } else { LENGTH };
    order.iter().map(|&index| Extent::new(index * LENGTH + u64::from(odd), length(index))).collect()
}

#[test]
#[ignore = "needs a device of Vulkan; prints what it measures: run it with --nocapture"]
fn many_fragments_against_one_contiguous_copy() {
    let instance = instance::shared().unwrap();
    for physical in instance.physical_devices().unwrap() {
        let extensions = physical.extensions().unwrap();
        let described = physical.describe(&extensions);
        let families = Families::choose(&physical.queue_families()).unwrap();
        let device = Arc::new(Device::open(&physical, &extensions, families).unwrap());
        println!("{} ({:?})", described.name, described.kind);
        let content: Vec<u8> =
            (0..BYTES as u32).map(|at| (at.wrapping_mul(0x9e37_79b1) >> 11) as u8).collect();
        for method in [GatherMethod::Automatic, GatherMethod::Commands, GatherMethod::Shader] {
            let mut bench = Bench::new(&device, described.kind, method);
            bench.fill(&content);
            let mut gather = bench.gather();
            for odd in [true, false] {
                let fragments = shuffled(odd);
                seconds(&mut gather, &fragments);
                let expected: Vec<u8> = fragments
                    .iter()
                    .flat_map(|fragment| &content[fragment.offset as usize..fragment.end().unwrap() as usize])
                    .copied()
                    .collect();
                assert!(bench.content()[..expected.len()] == expected[..], "{method:?}, odd: {odd}");
            }
            let contiguous = Bench::new(&device, described.kind, GatherMethod::Commands);
            let (fragments, whole) = (shuffled(false), [Extent::new(0, BYTES)]);
            let mut one = contiguous.gather();
            let rounds: Vec<(f64, f64)> =
                (0..ROUNDS).map(|_| (seconds(&mut gather, &fragments), seconds(&mut one, &whole))).collect();
            let gathered = median(rounds.iter().map(|round| round.0).collect());
            let copied = median(rounds.iter().map(|round| round.1).collect());
            let rate = |seconds: f64| BYTES as f64 / seconds / f64::from(1 << 30);
            println!(
                "  {method:?}: {:.2} GiB/s, contiguous {:.2} GiB/s, ratio {:.2}",
                rate(gathered),
                rate(copied),
                copied / gathered
            );
            for (count, length) in [(1, BYTES), (FRAGMENTS, LENGTH)] {
                let pieces: Vec<Extent> =
                    (0..count).map(|index| Extent::new(index * LENGTH, length.min(4 << 20))).collect();
                let started = Instant::now();
                let digests = digest::sha256_of(&bench.shared, Arc::clone(&bench.source), &pieces).unwrap();
                let part = &content[..pieces[0].length as usize];
                assert_eq!(digests[0], <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(part)));
                println!("  SHA-256 of {count} pieces: {:.3} s", started.elapsed().as_secs_f64());
            }
        }
    }
}
