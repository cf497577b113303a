//! The whole of it: functions, sockets, network and control.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use serde_json::{Value, json};

use crate::bus::Bus;
use crate::clock::Clock;
use crate::config::{ConfigError, HardwareConfig, NicConfig, RdmaConfig};
use crate::control::{ControlError, Request, parse_nonce};
use crate::efa::{self, Efa, Fabric};
use crate::ethernet::MacAddress;
use crate::gpu::{self, GpuConfig};
use crate::ground_truth::{Filter, GroundTruth};
use crate::gve::{self, Connections, Gve};
use crate::misuse::MisuseLog;
use crate::pci::{Function, Vectors};
use crate::switch::Switch;
use crate::vfio_user::Server;

/// Why the hardware could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value of the configuration is out of its range.
    #[error("NIC {index}: {source}")]
    Nic {
        /// Which NIC.
        index: usize,
        /// Which value.
        source: ConfigError,
    },
    /// A value of the configuration is out of its range.
    #[error("GPU {index}: {source}")]
    Gpu {
        /// Which GPU.
        index: usize,
        /// Which value.
        source: ConfigError,
    },
    /// A value of the configuration is out of its range.
    #[error("RDMA device {index}: {source}")]
    Rdma {
        /// Which RDMA device.
        index: usize,
        /// Which value.
        source: ConfigError,
    },
    /// The system refused memory for an RDMA device.
    #[error("cannot make the memory of RDMA device {index}: {source}")]
    RdmaMemory {
        /// Which RDMA device.
        index: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system refused memory for a GPU.
    #[error("cannot make the memory of {gpu}: {source}")]
    GpuMemory {
        /// Which GPU.
        gpu: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A fault of the switch is out of its range.
    #[error("switch: {0}")]
    Switch(#[source] ConfigError),
    /// Two NICs have the same address.
    #[error("NICs {0} and {1} have the same MAC address; give each its own with mac=")]
    SameAddress(usize, usize),
    /// The system refused a socket or a thread.
    #[error("cannot serve a PCI function on {}: {source}; the folder must exist and its path be short (a socket path has at most 107 bytes)", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system refused the thread for delayed work.
    #[error("cannot start the clock's thread: {0}")]
    Clock(#[source] std::io::Error),
}

/// A PCI function that waits for QEMU.
#[derive(Clone, Debug)]
pub struct PciFunction {
    /// The socket that QEMU is to be given.
    pub socket: PathBuf,
    /// What it is, for people.
    pub description: String,
    /// For a NIC its address, by which it can be found in the guest.
    pub mac: Option<MacAddress>,
}

/// The running hardware of one machine. Dropping it ends its threads and removes its sockets.
pub struct Hardware {
    functions: Vec<PciFunction>,
    nics: Vec<Arc<Gve>>,
    rdma: Vec<Arc<Efa>>,
    fabric: Arc<Fabric>,
    bus: Arc<Bus>,
    switch: Arc<Switch>,
    ground_truth: Arc<GroundTruth>,
    misuse: Arc<MisuseLog>,
    clock: Arc<Clock>,
    servers: Vec<Server>,
}

impl Hardware {
    /// Builds the hardware and listens on a socket in `socket_folder` for each function.
    ///
    /// # Errors
    /// [`Error`] for a configuration out of range, or what the system refused.
    pub fn start(config: &HardwareConfig, socket_folder: &Path) -> Result<Hardware, Error> {
        config.faults.check().map_err(Error::Switch)?;
        let addresses = addresses(&config.nics)?;
        let clock = Clock::start().map_err(Error::Clock)?;
        let mut hardware = Hardware {
            functions: Vec::new(),
            nics: Vec::new(),
            rdma: Vec::new(),
            fabric: Arc::default(),
            bus: Bus::new(),
            switch: Switch::new(Arc::clone(&clock), config.faults.clone()),
            ground_truth: Arc::new(GroundTruth::new(config.nics.len(), config.rdma.len())),
            misuse: Arc::new(MisuseLog::new(config.trace)),
            clock,
            servers: Vec::new(),
        };
        for (nic, mac) in config.nics.iter().zip(addresses) {
            hardware.add_nic(nic, mac, socket_folder)?;
        }
        for (index, gpu) in config.gpus.iter().enumerate() {
            gpu.check().map_err(|source| Error::Gpu { index, source })?;
            hardware.add_gpu(index, gpu, socket_folder)?;
        }
        for (index, rdma) in config.rdma.iter().enumerate() {
            rdma.check().map_err(|source| Error::Rdma { index, source })?;
            hardware.add_rdma(index, rdma, socket_folder)?;
        }
        Ok(hardware)
    }

    fn add_nic(&mut self, config: &NicConfig, mac: MacAddress, socket_folder: &Path) -> Result<(), Error> {
        let index = self.nics.len();
        let memory = self.bus.address_space();
        let vectors = Arc::new(Vectors::new(gve::vector_count(config)));
        let connections = Connections {
            memory: Arc::clone(&memory),
            vectors: Arc::clone(&vectors),
            switch: Arc::clone(&self.switch),
            clock: Arc::clone(&self.clock),
            ground_truth: Arc::clone(&self.ground_truth),
            misuse: Arc::clone(&self.misuse),
        };
        let nic = Gve::new(index, config.clone(), mac, connections);
        let port: Weak<Gve> = Arc::downgrade(&nic);
        self.switch.attach(port, mac);
        let device: Arc<Gve> = Arc::clone(&nic);
        let function = Function::new(device, gve::identity(config), vectors, memory);
        let text = mac.map(|byte| format!("{byte:02x}")).join(":");
        let queues = config.queue_pairs;
        let description = format!("gve NIC {index}, {text}, {queues} queue pairs");
        self.serve(function, &format!("gve{index}"), description, Some(mac), socket_folder)?;
        self.nics.push(nic);
        Ok(())
    }

    fn add_gpu(&mut self, index: usize, config: &GpuConfig, socket_folder: &Path) -> Result<(), Error> {
        let name = format!("gpu{index}");
        let memory = self.bus.address_space();
        let identity = gpu::identity(config);
        let vectors = Arc::new(Vectors::new(identity.interrupts().count()));
        let connections = gpu::Connections {
            name: name.clone(),
            memory: Arc::clone(&memory),
            vectors: Arc::clone(&vectors),
            bus: Arc::clone(&self.bus),
            misuse: Arc::clone(&self.misuse),
        };
        let device = gpu::build(config, connections)
            .map_err(|source| Error::GpuMemory { gpu: format!("{name} ({config})"), source })?;
        let function = Function::new(device, identity, vectors, memory);
        let mebibytes = config.vram >> 20;
        self.serve(function, &name, format!("GPU {index}, {config}, {mebibytes} MiB"), None, socket_folder)
    }

    fn add_rdma(&mut self, index: usize, config: &RdmaConfig, socket_folder: &Path) -> Result<(), Error> {
        let memory = self.bus.address_space();
        let vectors = Arc::new(Vectors::new(Efa::vector_count()));
        let connections = efa::Connections {
            memory: Arc::clone(&memory),
            vectors: Arc::clone(&vectors),
            fabric: Arc::clone(&self.fabric),
            clock: Arc::clone(&self.clock),
            ground_truth: Arc::clone(&self.ground_truth),
            misuse: Arc::clone(&self.misuse),
        };
        let device = Efa::new(index, config.clone(), connections)
            .map_err(|source| Error::RdmaMemory { index, source })?;
        let function = Function::new(Arc::clone(&device) as _, efa::identity(), vectors, memory);
        let name = format!("efa{index}");
        self.serve(function, &name, format!("EFA {index}, an RDMA device"), None, socket_folder)?;
        self.rdma.push(device);
        Ok(())
    }

    fn serve(
        &mut self,
        function: Function,
        name: &str,
        description: String,
        mac: Option<MacAddress>,
        socket_folder: &Path,
    ) -> Result<(), Error> {
        let socket = socket_folder.join(format!("{name}.sock"));
        let server = Server::start(&socket, function)
            .map_err(|source| Error::Socket { path: socket.clone(), source })?;
        self.functions.push(PciFunction { socket, description, mac });
        self.servers.push(server);
        Ok(())
    }

    /// The functions, in the order in which QEMU is to be given them.
    pub fn functions(&self) -> &[PciFunction] {
        &self.functions
    }

    /// Answers a control request in the form that [`Request`] documents; what is wrong with it is told
    /// as `{"error":"…"}`.
    pub fn request(&self, request: &Value) -> Value {
        let answer = serde_json::from_value(request.clone())
            .map_err(|error| ControlError::new(format!("request not understood: {error}")))
            .and_then(|request| self.execute(request));
        answer.unwrap_or_else(|error| json!({ "error": error.to_string() }))
    }

    fn execute(&self, request: Request) -> Result<Value, ControlError> {
        match request {
            Request::Locate { name, nonce, pages } => {
                let nonce = parse_nonce(&nonce)?;
                to_json(&self.ground_truth.locate(&self.bus, &name, &nonce, pages)?)
            }
            Request::GroundTruthStart { nic, tcp_destination_port, rdma_only } => {
                if let Some(index) = nic {
                    self.nic(index)?;
                }
                self.ground_truth.start(Filter { nic, tcp_destination_port, rdma_only });
                Ok(json!({}))
            }
            Request::GroundTruth => to_json(&self.ground_truth.report(&self.bus)),
            Request::Switch(faults) => {
                faults.check().map_err(|error| ControlError::new(error.to_string()))?;
                self.switch.set_faults(faults);
                Ok(json!({}))
            }
            Request::Link { nic, up } => {
                self.nic(nic)?.set_link(up);
                Ok(json!({}))
            }
            Request::Statistics => {
                let nics: Vec<_> = self.nics.iter().map(|nic| nic.statistics()).collect();
                let rdma: Vec<_> = self.rdma.iter().map(|device| device.statistics()).collect();
                to_json(&json!({ "nics": nics, "rdma": rdma, "switch": self.switch.statistics() }))
            }
            Request::RdmaRegions { rdma } => {
                let count = self.rdma.len();
                let device = self.rdma.get(rdma);
                let missing = || format!("there is no RDMA device {rdma}, the machine has {count}");
                let device = device.ok_or_else(|| ControlError::new(missing()))?;
                to_json(&json!({ "regions": device.regions() }))
            }
            Request::NicFault { nic, fault } => {
                self.nic(nic)?.set_fault(fault);
                Ok(json!({}))
            }
        }
    }

    fn nic(&self, index: usize) -> Result<&Gve, ControlError> {
        let count = self.nics.len();
        let nic = self.nics.get(index).map(Arc::as_ref);
        nic.ok_or_else(|| ControlError::new(format!("there is no NIC {index}, the machine has {count}")))
    }

    /// What drivers did wrong so far, oldest first. Long lists are cut short, and say so.
    pub fn misuse(&self) -> Vec<String> {
        self.misuse.entries()
    }
}

impl Drop for Hardware {
    fn drop(&mut self) {
        self.servers.clear();
        self.clock.stop();
    }
}

fn to_json(value: &impl serde::Serialize) -> Result<Value, ControlError> {
    serde_json::to_value(value).map_err(|error| ControlError::new(error.to_string()))
}

/// The address of every NIC, given or made from its number.
fn addresses(nics: &[NicConfig]) -> Result<Vec<MacAddress>, Error> {
    let mut addresses: Vec<MacAddress> = Vec::with_capacity(nics.len());
    for (index, nic) in nics.iter().enumerate() {
        nic.check().map_err(|source| Error::Nic { index, source })?;
        let [high, low] = (index as u16).to_be_bytes();
        let mac = nic.mac.unwrap_or([0x02, 0x64, 0x6d, 0x00, high, low]);
        if let Some(first) = addresses.iter().position(|other| *other == mac) {
            return Err(Error::SameAddress(first, index));
        }
        addresses.push(mac);
    }
    Ok(addresses)
}
