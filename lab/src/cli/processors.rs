//! Processors whose host bridges the kernel trusts with requests between peers, or does not
//! (`cpu_supports_p2pdma()` in `drivers/pci/p2pdma.c`).

/// One that the kernel lets cards reach each other beside.
pub(super) const TRUSTED: &str = "EPYC";

/// One beside which it does not, unless they sit behind one switch.
pub(super) const UNTRUSTED: &str = "max";
