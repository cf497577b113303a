//! How host and guest talk: frames over one virtio-serial port, and a description of the run that the
//! guest reads when it starts.

pub(crate) mod description;
pub(crate) mod frame;
pub(crate) mod message;

/// The virtio-serial port that carries the frames.
pub(crate) const PORT_NAME: &str = "devmem-lab";

/// The kernel passes this argument to the first process as an environment variable, which then knows
/// that it is the guest's.
pub(crate) const GUEST_VARIABLE: &str = "DEVMEM_LAB_GUEST";

/// The agent in the guest: a copy of the program that started the machine.
pub(crate) const AGENT: &str = "/init";

/// Where the agent finds the [`description::Run`].
pub(crate) const DESCRIPTION: &str = "/etc/devmem-lab/run.json";

/// Where kernel modules lie in the guest.
pub(crate) const MODULE_FOLDER: &str = "/usr/lib/devmem-lab/modules";

/// Where libraries of the host lie in the guest that are not in its base.
pub(crate) const LIBRARY_FOLDER: &str = "/usr/lib/devmem-lab/libraries";

/// Where programs in the guest put questions.
pub(crate) const SOCKET: &str = "/run/devmem-lab.sock";

/// Tells the command where [`SOCKET`] is, and with it that it runs in the lab.
pub(crate) const SOCKET_VARIABLE: &str = "DEVMEM_LAB_SOCKET";

/// The working folder of the command, and of paths that are not absolute.
pub(crate) const HOME: &str = "/root";
