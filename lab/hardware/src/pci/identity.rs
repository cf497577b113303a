//! What a PCI function says it is.

/// BARs of a function.
pub(crate) const BAR_COUNT: usize = 6;

/// What a function says it is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    pub(crate) subsystem_vendor: u16,
    pub(crate) subsystem: u16,
    /// Base class, sub-class and programming interface, as in 0x020000.
    pub(crate) class: u32,
    pub(crate) revision: u8,
    /// By the number of their first register.
    pub(crate) bars: [Bar; BAR_COUNT],
    /// In the order of the list that leads through them.
    pub(crate) capabilities: Vec<Capability>,
    /// Where the first capability begins: 0x40, or more where registers of the device come before.
    pub(crate) capabilities_at: u8,
    /// Read-only registers of the device's own in configuration space: offset and bytes.
    pub(crate) registers: Vec<(u16, Vec<u8>)>,
}

/// A base address register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Bar {
    /// There is none, or it is the upper half of the one before.
    #[default]
    None,
    /// Memory below 4 GiB, of a size that is a power of two from 16 on.
    Memory32(u32),
    /// Memory anywhere; takes the next register too. The size is a power of two from 16 on.
    Memory64 {
        size: u64,
        /// Whether reads have no side effects.
        prefetchable: bool,
    },
}

impl Bar {
    /// Bytes; 0 where there is none.
    pub(crate) fn size(self) -> u64 {
        match self {
            Bar::None => 0,
            Bar::Memory32(size) => size.into(),
            Bar::Memory64 { size, .. } => size,
        }
    }

    /// The register's lowest bits, which tell what it is (PCI Local Bus 3.0, 6.2.5.1).
    pub(super) fn type_bits(self) -> u8 {
        match self {
            Bar::None | Bar::Memory32(_) => 0,
            Bar::Memory64 { prefetchable, .. } => 0x4 | if prefetchable { 0x8 } else { 0 },
        }
    }
}

/// A capability of a function.
#[derive(Clone, Debug)]
pub(crate) enum Capability {
    /// Message signalled interrupts with one vector and a 64-bit address.
    Msi,
    /// Message signalled interrupts with a table.
    Msix(MsixCapability),
    /// Power management: the states D0 and D3hot.
    PowerManagement,
    /// PCI Express endpoint; gives the function an extended configuration space. Behind a port its link
    /// is as wide and fast as this.
    PciExpress(Link),
    /// Vendor-specific: what follows the identifier and the pointer to the next capability.
    Vendor(Vec<u8>),
}

/// A link of PCI Express.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// Generation: 1 for 2.5 GT/s, 2 for 5, 3 for 8, 4 for 16.
    pub(crate) speed: u8,
    /// Lanes.
    pub(crate) width: u8,
}

/// Where MSI-X vectors are configured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MsixCapability {
    /// Vectors of the function, at least one.
    pub(crate) vectors: u16,
    /// The BAR that holds table and pending bits.
    pub(crate) bar: u8,
    /// Offset of the table in the BAR.
    pub(crate) table: u32,
    /// Offset of the pending bits in the BAR.
    pub(crate) pending: u32,
}

/// How a function interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupts {
    /// Not at all.
    None,
    /// By one message.
    Msi,
    /// By this many messages.
    Msix(u16),
}

impl Interrupts {
    /// Vectors that there are.
    pub(crate) fn count(self) -> usize {
        match self {
            Interrupts::None => 0,
            Interrupts::Msi => 1,
            Interrupts::Msix(vectors) => vectors.into(),
        }
    }
}

impl Identity {
    pub(crate) fn interrupts(&self) -> Interrupts {
        let of = |capability: &Capability| match capability {
            Capability::Msi => Some(Interrupts::Msi),
            Capability::Msix(msix) => Some(Interrupts::Msix(msix.vectors.max(1))),
            _ => None,
        };
        self.capabilities.iter().find_map(of).unwrap_or(Interrupts::None)
    }

    pub(crate) fn is_express(&self) -> bool {
        self.capabilities.iter().any(|capability| matches!(capability, Capability::PciExpress(_)))
    }
}
