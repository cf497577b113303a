//! What libefa does: a queue pair whose queues and doorbells are mapped (`rdma/efa-abi.h`).

use std::time::{Duration, Instant};

use crate::sys::Mapping;
use crate::uverbs::{Device, command};

const ENTRIES: u32 = 16;
const SEND_SIZE: u32 = 64;
const RECEIVE_SIZE: u32 = 16;
const COMPLETION_SIZE: u32 = 32;
const PAGE: usize = 4096;
const QUEUE_KEY: u32 = 0x1234;
/// `IB_QPT_DRIVER`; without further words EFA takes it as SRD.
const QUEUE_PAIR_OF_DRIVER: u32 = 0xff;

/// An SRD queue pair that is ready to send.
pub(crate) struct Program<'a> {
    device: &'a Device,
    pub(crate) number: u32,
    completions: Mapping,
    sends: Mapping,
    receives: Mapping,
    send_doorbell: (Mapping, usize),
    receive_doorbell: (Mapping, usize),
    sent: u32,
    posted: u32,
    taken: u32,
}

/// What a program reads in a completion.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    pub(crate) id: u32,
    pub(crate) status: u32,
    pub(crate) length: u32,
}

/// Memory that a request names: length, key, address.
pub(crate) type Memory = (u32, u32, u64);

impl<'a> Program<'a> {
    pub(crate) fn new(device: &'a Device) -> Program<'a> {
        // `struct efa_ibv_create_cq`: one sub-queue, without a channel.
        let mut driver_create = [0, COMPLETION_SIZE, 1, 0];
        let mut driver_answer = [0u32; 10];
        let completion_queue = device.completion_queue(ENTRIES, (&mut driver_create, &mut driver_answer));
        let completions = device.map(long(&driver_answer, 2), long(&driver_answer, 4) as usize);

        // `struct ib_uverbs_create_qp` and `struct efa_ibv_create_qp`.
        let mut create = [0u32; 14];
        create[4..7].copy_from_slice(&[device.domain, completion_queue, completion_queue]);
        create[8..12].copy_from_slice(&[ENTRIES, ENTRIES, 1, 1]);
        create[13] = QUEUE_PAIR_OF_DRIVER << 8;
        let mut driver_create = [0, ENTRIES * RECEIVE_SIZE, ENTRIES * SEND_SIZE, 0, 0, 0];
        let (mut answer, mut driver_answer) = ([0u32; 8], [0u32; 16]);
        let driver = Some((&mut driver_create[..], &mut driver_answer[..]));
        device.write(command::CREATE_QP, &mut create, &mut answer, driver).unwrap();
        let [handle, number, ..] = answer;
        let [_, receive_offset, send_offset, queue_offset, ..] = driver_answer;
        assert_eq!(queue_offset, 0, "send queues begin with a page");
        let page = |word: usize| device.map(long(&driver_answer, word), PAGE);
        let receives = device.map(long(&driver_answer, 4), long(&driver_answer, 6) as usize);
        let program = Program {
            device,
            number,
            completions,
            receives,
            receive_doorbell: (page(8), receive_offset as usize),
            send_doorbell: (page(10), send_offset as usize),
            sends: page(12),
            sent: 0,
            posted: 0,
            taken: 0,
        };
        // State, port and keys; state; state and sequence number.
        for (state, mask) in [(1, 1 | 1 << 4 | 1 << 5 | 1 << 6), (2, 1), (3, 1 | 1 << 16)] {
            program.modify(handle, state, mask);
        }
        program
    }

    /// `struct ib_uverbs_modify_qp`, behind two addresses of 32 bytes.
    fn modify(&self, handle: u32, state: u32, mask: u32) {
        let mut modify = [0u32; 28];
        modify[16..19].copy_from_slice(&[handle, mask, QUEUE_KEY]);
        modify[24] = state;
        // The port.
        modify[26] = 1;
        self.device.write(command::MODIFY_QP, &mut modify, &mut [0u32; 0], None).unwrap();
    }

    /// By what the program names another device.
    pub(crate) fn address_handle(&self, gid: [u8; 16]) -> u32 {
        // `struct ib_uverbs_create_ah`, with `struct ib_uverbs_ah_attr` from word 6 on.
        let mut create = [0u32; 14];
        create[4] = self.device.domain;
        for (word, bytes) in create[6..10].iter_mut().zip(gid.chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().unwrap());
        }
        // It has a global address, on port 1.
        create[13] = 1 << 8 | 1 << 16;
        let (mut answer, mut driver_answer) = ([0u32], [0u32; 2]);
        let driver = Some((&mut [][..], &mut driver_answer[..]));
        self.device.write(command::CREATE_AH, &mut create, &mut answer, driver).unwrap();
        driver_answer[1] & 0xffff
    }

    /// Posts a receive.
    pub(crate) fn receive(&mut self, id: u32, (length, key, address): Memory) {
        let place = (self.posted % ENTRIES * RECEIVE_SIZE) as usize;
        let second = u64::from(id | length << 16) | u64::from(key | 3 << 30) << 32;
        self.receives.write(place, &[address, second]);
        self.posted += 1;
        self.receive_doorbell.0.ring(self.receive_doorbell.1, self.posted);
    }

    /// Sends, or (1) reads from or (2) writes to memory of another device.
    pub(crate) fn send(
        &mut self,
        operation: u32,
        to: &Program<'_>,
        handle: u32,
        local: Memory,
        remote: Option<Memory>,
    ) {
        let memory = |(length, key, address): Memory| [u64::from(length) | u64::from(key) << 32, address];
        let (first, second) = match remote {
            None => (memory(local), [0; 2]),
            Some(remote) => (memory(remote), memory(local)),
        };
        // Identifier, metadata and operation; first, last and completion; one buffer.
        let control = (1 << 7 | operation) << 16 | (1 << 2 | 1 << 3 | 1 << 4) << 24;
        let entry = [
            u64::from(self.sent | control) | u64::from(to.number | 1 << 16) << 32,
            u64::from(handle) << 32,
            u64::from(QUEUE_KEY),
            0,
            first[0],
            first[1],
            second[0],
            second[1],
        ];
        self.sends.write((self.sent % ENTRIES * SEND_SIZE) as usize, &entry);
        self.sent += 1;
        self.send_doorbell.0.ring(self.send_doorbell.1, self.sent);
    }

    /// Waits for the next completion.
    pub(crate) fn wait(&mut self) -> Completion {
        let place = (self.taken % ENTRIES * COMPLETION_SIZE) as usize;
        let phase = 1 - self.taken / ENTRIES % 2;
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let [first, second, ..] = self.completions.read::<4>(place);
            if first >> 24 & 1 == phase {
                self.taken += 1;
                return Completion { id: first & 0xffff, status: first >> 16 & 0xff, length: second >> 16 };
            }
            assert!(Instant::now() < deadline, "no completion");
            std::thread::yield_now();
        }
    }
}

fn long(words: &[u32], at: usize) -> u64 {
    u64::from(words[at]) | u64::from(words[at + 1]) << 32
}
