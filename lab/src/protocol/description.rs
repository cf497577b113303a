//! What the guest shall do, written by the host into the guest's file system.

use serde::{Deserialize, Serialize};

/// One run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Kernel modules, as files in the module folder, in the order of loading.
    pub(crate) modules: Vec<KernelModule>,
    /// The emulated network cards in order, as PCI addresses do not need to be known to the host.
    pub(crate) network_cards: usize,
    /// The command and its arguments.
    pub(crate) command: Vec<String>,
    /// Environment of the command, besides the agent's own.
    pub(crate) environment: Vec<(String, String)>,
    /// Whether the command runs on a terminal, and its size.
    pub(crate) terminal: Option<WindowSize>,
    /// Files of the guest to send to the host when the command has ended.
    pub(crate) bring_back: Vec<String>,
}

/// A kernel module to load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KernelModule {
    pub(crate) name: String,
    /// As on the command line of `insmod`: `name=value`, divided by spaces.
    pub(crate) parameters: String,
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WindowSize {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}
