//! Copies a file from the network into memory that a GPU, or another exporter of DMA-bufs, handed out.

mod arguments;
mod digest;
mod failure;
mod gather_benchmark;
mod inspect;
mod matrix;
mod pin;
mod rdma;
mod receive;
mod send;
mod topology;
mod transfer;
mod witness;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};

#[global_allocator]
static ALLOCATOR: devmem_measure::allocations::Counting = devmem_measure::allocations::Counting;

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Receive(options) => receive::run(&options),
        Command::Send(options) => send::run(&options),
        Command::Providers(options) => inspect::providers(&options),
        Command::Pin(options) => pin::run(&options),
        Command::Matrix(options) => matrix::run(&options),
        Command::Nic(options) => inspect::nic(&options),
        Command::Topology(options) => topology::run(&options),
        Command::Gather(options) => gather_benchmark::run(&options),
        Command::Restore(options) => inspect::restore(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nic-to-gpu-copy: {}", failure::line(&error));
            ExitCode::FAILURE
        }
    }
}
