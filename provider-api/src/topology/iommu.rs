//! The IOMMU in front of a function.

use std::fmt;

/// How the IOMMU treats the addresses that a function uses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IommuDomain {
    /// It translates them (`DMA` or `DMA-FQ`).
    Translated,
    /// It lets them pass (`identity`).
    PassedThrough,
    /// Another type, in the kernel's word, or one that could not be read.
    Other(String),
}

/// The group of functions which the kernel cannot isolate from each other, and which share a domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IommuGroup {
    /// The kernel's number for it.
    pub number: u32,
    /// How it is treated.
    pub domain: IommuDomain,
}

impl IommuDomain {
    /// Reads the text of `/sys/kernel/iommu_groups/N/type` (`iommu_group_show_type()` in
    /// `drivers/iommu/iommu.c`).
    pub(super) fn parse(text: &str) -> Self {
        match text {
            "DMA" | "DMA-FQ" => Self::Translated,
            "identity" => Self::PassedThrough,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for IommuGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number;
        match &self.domain {
            IommuDomain::Translated => write!(f, "group {number}, addresses translated"),
            IommuDomain::PassedThrough => write!(f, "group {number}, addresses passed through"),
            IommuDomain::Other(kind) => write!(f, "group {number}, of type {kind:?}"),
        }
    }
}
