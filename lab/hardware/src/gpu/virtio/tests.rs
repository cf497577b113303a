//! The model as its driver sees it: configuration, queues in the driver's memory, and the window.

use std::fs::File;

use proptest::prelude::*;

use super::transport::{QUEUE_SIZE, status};
use super::*;
use crate::bus::{Bus, PAGE_SIZE, SharedMemory, work};
use crate::pci::Function;

/// The driver's memory, and what is where in it.
const MEMORY_SIZE: u64 = 1 << 20;
const DESCRIPTORS: u64 = 0x1000;
const DRIVER: u64 = 0x2000;
const DEVICE: u64 = 0x3000;
const REQUEST: u64 = 0x1_0000;
const ANSWER: u64 = 0x8_0000;

struct Bench {
    gpu: Arc<Gpu>,
    bus: Arc<Bus>,
    ram: SharedMemory,
    sent: u16,
}

impl Bench {
    /// A device that its driver knows nothing of yet.
    fn new() -> Bench {
        let config: GpuConfig = "virtio-gpu:vram=64M,window=32M".parse().unwrap();
        let bus = Bus::new();
        let memory = bus.address_space();
        let ram = SharedMemory::create("ram", MEMORY_SIZE).unwrap();
        let file: File = ram.file().try_clone().unwrap();
        memory.map(0, MEMORY_SIZE, Some((file, 0)), true).unwrap();
        let vectors = Arc::new(Vectors::new(VECTORS.into()));
        let misuse = Arc::new(MisuseLog::new(false));
        let bus_of_gpu = Arc::clone(&bus);
        let connections = Connections { name: "gpu0".to_owned(), memory, vectors, bus: bus_of_gpu, misuse };
        Bench { gpu: Arc::new(Gpu::new(&config, connections).unwrap()), bus, ram, sent: 0 }
    }

    /// A device whose driver is ready.
    fn ready() -> Bench {
        let bench = Bench::new();
        bench.accept(FEATURES);
        bench.set(22, &0u16.to_le_bytes());
        bench.set(26, &1u16.to_le_bytes());
        bench.set(32, &DESCRIPTORS.to_le_bytes());
        bench.set(40, &(DRIVER as u32).to_le_bytes());
        bench.set(44, &0u32.to_le_bytes());
        bench.set(48, &DEVICE.to_le_bytes());
        bench.set(28, &1u16.to_le_bytes());
        bench.set(20, &[0xf]);
        bench
    }

    fn accept(&self, features: u64) {
        for half in 0..2u32 {
            self.set(8, &half.to_le_bytes());
            self.set(12, &((features >> (half * 32)) as u32).to_le_bytes());
        }
        self.set(20, &[0xb]);
    }

    fn get<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.gpu.read(BAR_REGISTERS, offset, &mut bytes);
        bytes
    }

    fn set(&self, offset: u64, bytes: &[u8]) {
        self.gpu.write(BAR_REGISTERS, offset, bytes);
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        self.ram.write(address, bytes).unwrap();
    }

    fn read_u32(&self, address: u64) -> u32 {
        let mut bytes = [0; 4];
        self.ram.read(address, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    fn descriptor(&self, number: u16, address: u64, length: u32, flags: u16, next: u16) {
        let fields =
            [&address.to_le_bytes()[..], &length.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()];
        self.write(DESCRIPTORS + u64::from(number) * 16, &fields.concat());
    }

    /// Makes a chain available and tells the device.
    fn send(&mut self, head: u16) {
        let slot = u64::from(self.sent % QUEUE_SIZE);
        self.write(DRIVER + 4 + slot * 2, &head.to_le_bytes());
        self.sent += 1;
        self.write(DRIVER + 2, &self.sent.to_le_bytes());
        self.set(at::NOTIFY, &0u16.to_le_bytes());
    }

    /// Executes a command of words behind the header, and gives the number of the answer.
    fn command(&mut self, number: u32, context: u32, words: &[u32]) -> u32 {
        let mut request: Vec<u32> = vec![number, 1, 77, 0, context, 0];
        request.extend(words);
        let bytes: Vec<u8> = request.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.write(REQUEST, &bytes);
        self.write(ANSWER, &[0xee; 64]);
        self.descriptor(0, REQUEST, bytes.len() as u32, 1, 1);
        self.descriptor(1, ANSWER, 64, 2, 0);
        self.send(0);
        assert_eq!(self.read_u32(DEVICE) >> 16, u32::from(self.sent), "answered");
        assert_eq!((self.read_u32(ANSWER + 4), self.read_u32(ANSWER + 8)), (1, 77), "the fence is repeated");
        self.read_u32(ANSWER)
    }

    fn create_blob(&mut self, id: u32, kind: u32, size: u32, entries: &[u32]) -> u32 {
        let count = entries.len() as u32 / 4;
        let words = [&[id, kind, 3, count, 0, 0, size, 0], entries].concat();
        self.command(0x10c, 1, &words)
    }

    fn misuse(&self) -> Vec<String> {
        self.gpu.misuse.entries()
    }

    fn needs_reset(&self) -> bool {
        self.get::<1>(20)[0] & status::NEEDS_RESET != 0
    }
}

#[test]
fn features_are_agreed_on() {
    let bench = Bench::new();
    bench.set(0, &1u32.to_le_bytes());
    assert_eq!(bench.get(4), 3u32.to_le_bytes(), "version 1, behind the platform's IOMMU");
    bench.accept(FEATURES & !feature::VERSION_1);
    assert_eq!(bench.get::<1>(20), [3], "not without version 1");
    bench.accept(FEATURES | 1 << 40);
    assert_eq!(bench.get::<1>(20), [3], "not what was not offered");
    bench.accept(FEATURES);
    assert_eq!(bench.get::<1>(20), [0xb]);
    bench.set(12, &0u32.to_le_bytes());
    assert_eq!(bench.get(12), 3u32.to_le_bytes(), "settled");
    bench.set(20, &[0]);
    assert_eq!((bench.get::<1>(20), bench.get::<4>(12)), ([0], [0; 4]));
    assert_eq!(bench.misuse(), [""; 0]);
}

#[test]
fn queues_are_set_up_as_the_driver_says() {
    let bench = Bench::ready();
    assert_eq!((bench.get::<2>(18), bench.get::<2>(24)), (2u16.to_le_bytes(), QUEUE_SIZE.to_le_bytes()));
    assert_eq!(bench.get(40), DRIVER.to_le_bytes(), "written in halves");
    bench.set(26, &9u16.to_le_bytes());
    assert_eq!(bench.get::<2>(26), [0xff, 0xff], "there is no vector 9");
    bench.set(22, &7u16.to_le_bytes());
    assert_eq!((bench.get::<2>(24), bench.get::<8>(32)), ([0; 2], [0; 8]), "there is no queue 7");
    assert_eq!(bench.misuse(), [""; 0]);
    bench.set(24, &3u16.to_le_bytes());
    bench.set(18, &3u16.to_le_bytes());
    bench.set(21, &[0; 4]);
    bench.set(at::NOTIFY + 4 * 7, &[7, 0]);
    assert_eq!(bench.misuse().len(), 4);
}

#[test]
fn a_blob_is_made_mapped_and_reached_by_a_peer() {
    let mut bench = Bench::ready();
    assert_eq!(bench.command(0x200, 1, &[0; 18]), 0x1100);
    assert_eq!(bench.create_blob(5, 2, 3 << 20, &[]), 0x1100);
    assert_eq!(bench.command(0x208, 0, &[5, 0, 0x10_0000, 0]), 0x1106);
    assert_eq!(bench.read_u32(ANSWER + 24), 1, "cached");
    assert_eq!(bench.command(0x202, 1, &[5, 0]), 0x1100);
    // The function at its place on the bus.
    let config: GpuConfig = "virtio-gpu:vram=64M,window=32M".parse().unwrap();
    let vectors = Arc::new(Vectors::new(VECTORS.into()));
    let device: Arc<Gpu> = Arc::clone(&bench.gpu);
    let function = Function::new(device, identity(&config), vectors, bench.bus.address_space());
    function.write_configuration(0x18, &0xc_0000_0000u64.to_le_bytes()).unwrap();
    function.write_configuration(0x04, &[6]).unwrap();
    let nic = bench.bus.address_space();
    let mut devices = Vec::new();
    nic.write_telling(0xc_0010_0100, b"payload", |page, _| devices.push(bench.bus.device_of(page))).unwrap();
    assert_eq!(devices, [Some("gpu0".to_owned())]);
    let mut bytes = [0; 7];
    bench.gpu.window.memory().read(0x10_0100, &mut bytes).unwrap();
    assert_eq!(&bytes, b"payload");
    assert_eq!(bench.command(0x209, 0, &[5, 0]), 0x1100);
    assert_eq!(bench.command(0x102, 0, &[5, 0]), 0x1100);
    assert_eq!(bench.command(0x102, 0, &[5, 0]), 0x1203);
    assert_eq!(bench.misuse(), [""; 0]);
}

#[test]
fn resources_in_the_drivers_memory() {
    let mut bench = Bench::ready();
    assert_eq!(bench.command(0x101, 0, &[1, 2, 64, 64]), 0x1100);
    let transfer = [0, 0, 64, 64, 0, 0, 1, 0];
    assert_eq!(bench.command(0x105, 0, &transfer), 0x1200, "no memory behind it");
    assert_eq!(bench.command(0x106, 0, &[1, 1, 0x4000, 0, 0x4000, 0]), 0x1100);
    assert_eq!(bench.command(0x105, 0, &transfer), 0x1100);
    assert_eq!(bench.command(0x104, 0, &[0, 0, 64, 64, 1, 0]), 0x1100);
    assert_eq!(bench.command(0x107, 0, &[1, 0]), 0x1100);
    assert_eq!(bench.create_blob(2, 1, 0x2000, &[0x4000, 0, 0x1000, 0, 0x6000, 0, 0x1000, 0]), 0x1100);
    assert_eq!(bench.create_blob(3, 1, 0x3000, &[0x4000, 0, 0x1000, 0]), 0x1205, "fewer than its size");
    assert_eq!(bench.command(0x106, 0, &[1, 9, 0x4000, 0, 0x4000, 0]), 0x1205, "fewer than said");
    assert_eq!(bench.misuse(), [""; 0]);
    assert_eq!(bench.create_blob(3, 1, 0x1000, &[0, 0x100, 0x1000, 0]), 0x1205, "out of reach");
    assert_eq!(bench.misuse().len(), 1);
}

#[test]
fn what_the_device_has_not_is_refused() {
    let mut bench = Bench::ready();
    assert_eq!(bench.create_blob(1, 2, 4096, &[]), 0x1204, "no context");
    assert_eq!(bench.command(0x200, 1, &[0; 18]), 0x1100);
    assert_eq!(bench.create_blob(1, 2, 65 << 20, &[]), 0x1201);
    assert_eq!(bench.create_blob(1, 9, 4096, &[]), 0x1205);
    assert_eq!(bench.command(0x100, 0, &[]), 0x1101);
    assert_eq!(bench.read_u32(DEVICE + 4 + 8 * 4 + 4), 64, "cut off at what the driver gave room for");
    assert_eq!(bench.command(0x103, 0, &[0; 6]), 0x1202);
    assert_eq!(bench.command(0x108, 0, &[0; 2]), 0x1205);
    assert_eq!(bench.command(0x10a, 0, &[0; 2]), 0x1200);
    assert_eq!(bench.command(0x207, 1, &[0, 0]), 0x1100);
    assert_eq!(bench.command(0x207, 1, &[8, 0, 0, 0]), 0x1200);
    assert_eq!(bench.misuse(), [""; 0]);
    assert_eq!(bench.command(0x999, 0, &[]), 0x1200);
    assert_eq!(bench.command(0x102, 0, &[1]), 0x1200, "cut short");
    assert_eq!(bench.misuse().len(), 2);
    assert!(!bench.needs_reset());
}

#[test]
fn an_indirect_table_is_read() {
    let mut bench = Bench::ready();
    bench.write(REQUEST, &0x100u32.to_le_bytes());
    let entry = |address: u64, length: u32, flags: u16, next: u16| {
        [&address.to_le_bytes()[..], &length.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()]
            .concat()
    };
    bench.write(0x5000, &[entry(REQUEST, 24, 1, 1), entry(ANSWER, 408, 2, 0)].concat());
    bench.descriptor(3, 0x5000, 32, 4, 0);
    bench.send(3);
    assert_eq!(bench.read_u32(ANSWER), 0x1101);
    assert_eq!((bench.read_u32(DEVICE + 4), bench.read_u32(DEVICE + 8)), (3, 408));
    assert_eq!(bench.get(at::INTERRUPT_STATUS), [1]);
    assert_eq!(bench.get(at::INTERRUPT_STATUS), [0]);
}

#[test]
fn malformed_chains_stop_the_device_until_it_is_reset() {
    type Build = fn(&Bench);
    let cases: [(&str, Build); 7] = [
        ("a loop", |bench| bench.descriptor(0, REQUEST, 8, 1, 0)),
        ("no such descriptor", |bench| bench.descriptor(0, REQUEST, 8, 1, QUEUE_SIZE)),
        ("read after write", |bench| {
            bench.descriptor(0, ANSWER, 8, 3, 1);
            bench.descriptor(1, REQUEST, 8, 0, 0);
        }),
        ("indirect in indirect", |bench| {
            bench.descriptor(0, DESCRIPTORS + 16, 16, 4, 0);
            bench.descriptor(1, DESCRIPTORS, 16, 4, 0);
        }),
        ("a part of a descriptor", |bench| bench.descriptor(0, REQUEST, 17, 4, 0)),
        ("out of reach", |bench| bench.descriptor(0, MEMORY_SIZE - 4, 8, 0, 0)),
        ("too large", |bench| bench.descriptor(0, 0, u32::MAX, 0, 0)),
    ];
    for (name, build) in cases {
        let mut bench = Bench::ready();
        build(&bench);
        bench.send(0);
        assert!(bench.needs_reset() && bench.misuse().len() == 1, "{name}: {:?}", bench.misuse());
        bench.send(0);
        assert_eq!(bench.misuse().len(), 2, "{name}: not in use any more");
        bench.set(20, &[0]);
        assert!(!bench.needs_reset(), "{name}");
    }
    let bench = Bench::ready();
    bench.write(DRIVER + 2, &(QUEUE_SIZE + 1).to_le_bytes());
    bench.set(at::NOTIFY, &[0, 0]);
    assert!(bench.needs_reset());
}

#[test]
fn what_one_notification_may_cost_is_bounded() {
    let bench = Bench::ready();
    // One request with as many memory entries as a chain can bring, made available as often as the queue allows.
    for number in 0..QUEUE_SIZE - 1 {
        bench.descriptor(number, REQUEST, 0x8000, 1, number + 1);
    }
    bench.descriptor(QUEUE_SIZE - 1, ANSWER, 64, 2, 0);
    let count = u32::from(QUEUE_SIZE - 1) * 0x8000 / 16 - 2;
    let header = [0x106u32, 0, 0, 0, 0, 0, 5, count];
    bench.write(REQUEST, &header.map(u32::to_le_bytes).concat());
    bench.write(DRIVER + 2, &QUEUE_SIZE.to_le_bytes());
    let work = work::of(|| bench.set(at::NOTIFY, &[0, 0]));
    assert!(work < 1 << 30, "{work}");
    assert!(bench.needs_reset());
}

#[test]
fn a_reset_forgets_resources_and_closes_queues() {
    let mut bench = Bench::ready();
    bench.command(0x200, 1, &[0; 18]);
    bench.create_blob(5, 2, 4096, &[]);
    bench.gpu.reset();
    bench.set(at::NOTIFY, &[0, 0]);
    assert_eq!(bench.misuse().len(), 1, "no queue");
    assert!(lock(&bench.gpu.state).resources.check_resource(5).is_err());
}

#[test]
fn capabilities_fit_into_configuration_space() {
    let config: GpuConfig = "virtio-gpu:vram=4G".parse().unwrap();
    let bench = Bench::new();
    let device: Arc<Gpu> = Arc::clone(&bench.gpu);
    let vectors = Arc::new(Vectors::new(VECTORS.into()));
    let function = Function::new(device, identity(&config), vectors, bench.bus.address_space());
    let read = |offset: u64| {
        let mut byte = [0];
        function.read_configuration(offset, &mut byte).unwrap();
        byte[0]
    };
    let (mut kinds, mut place) = (Vec::new(), read(0x34));
    while place != 0 {
        if read(place.into()) == 9 {
            kinds.push(read(u64::from(place) + 3));
        }
        if kinds.last() == Some(&8) {
            let size: Vec<u8> = (12..24).map(|offset| read(u64::from(place) + offset)).collect();
            assert_eq!(size, [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], "4 GiB in two halves");
        }
        place = read(u64::from(place) + 1);
    }
    assert_eq!(kinds, [1, 2, 3, 4, 8, 5]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_queue_content_does_harm(
        descriptors in prop::collection::vec(
            (0u64..MEMORY_SIZE + 4096, prop_oneof![0u32..128, any::<u32>()], 0u16..8, 0u16..20), 16,
        ),
        heads in prop::collection::vec(0u16..20, 1..8),
        words in prop::collection::vec(prop_oneof![0x100u32..0x10e, 0x200u32..0x20a, 0u32..6, any::<u32>()], 32),
        index in prop_oneof![1u16..9, any::<u16>()],
    ) {
        let mut bench = Bench::ready();
        bench.command(0x200, 1, &[0; 18]);
        for (number, (address, length, flags, next)) in descriptors.into_iter().enumerate() {
            bench.descriptor(number as u16, address & !0xf, length, flags, next);
        }
        for address in (REQUEST..REQUEST + PAGE_SIZE).step_by(128) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            bench.write(address, &bytes);
        }
        for (slot, head) in heads.into_iter().enumerate() {
            bench.write(DRIVER + 6 + slot as u64 * 2, &head.to_le_bytes());
        }
        bench.write(DRIVER + 2, &index.to_le_bytes());
        bench.set(at::NOTIFY, &[0, 0]);
        bench.set(20, &[0]);
    }

    #[test]
    fn no_command_does_harm(
        commands in prop::collection::vec(
            (prop::sample::select(vec![
                0x101u32, 0x102, 0x106, 0x107, 0x10c, 0x200, 0x201, 0x202, 0x208, 0x209, 0x105, 0x207,
            ]), 0u32..3, prop::collection::vec(prop_oneof![0u32..4, Just(4096), Just(1 << 20), any::<u32>()], 0..20)),
            1..40,
        ),
    ) {
        let mut bench = Bench::ready();
        for (number, context, words) in commands {
            let answer = bench.command(number, context, &words);
            prop_assert!((0x1100..0x1107).contains(&answer) || (0x1200..0x1206).contains(&answer));
        }
    }
}
