//! stub
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
#[derive(Debug, Clone)]
pub enum PeerChoice {
    Namespace(PathBuf),
    Machine { address: SocketAddr, key_file: PathBuf },
}
#[derive(Debug)]
pub struct Session;
impl Session {
    pub fn open(_: &PeerChoice) -> devmem_provider::Result<Self> {
        Ok(Self)
    }
    pub fn start(&mut self, _: &Script) -> devmem_provider::Result<Running> {
        Ok(Running)
    }
}
#[derive(Debug)]
pub struct Running;
impl Running {
    pub fn finish(self, _: Duration) -> devmem_provider::Result<Told> {
        Ok(Told { failure: None })
    }
}
pub struct Told {
    pub failure: Option<String>,
}
pub struct Script {
    pub to: SocketAddr,
    pub from_port: Option<u16>,
    pub no_delay: bool,
    pub maximum_segment: Option<u16>,
    pub steps: Vec<Step>,
}
pub enum Step {
    Write { bytes: u64, chunk: u32 },
    FinishWriting,
    AwaitEnd,
}
pub fn fill(_: u64, _: &mut [u8]) {}
