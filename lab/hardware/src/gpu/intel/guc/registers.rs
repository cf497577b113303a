//! Registers of the microcontroller (`xe_guc_regs.h`).

/// GUC_STATUS.
pub(in super::super) const STATUS: u64 = 0xc000;
pub(super) const STATUS_IN_RESET: u32 = 1 << 0;
/// The boot code went on to the firmware, and that is ready.
pub(super) const STATUS_READY: u32 = 0x76 << 1 | 0xf0 << 8;
/// HUC_KERNEL_LOAD_INFO: the video microcontroller's firmware is accepted.
pub(in super::super) const HUC_STATUS: u64 = 0xc1dc;
pub(super) const HUC_ACCEPTED: u32 = 1 << 0;
/// GUC_WOPCM_SIZE and DMA_GUC_WOPCM_OFFSET: where the firmware is put. Locked, as bit 0 says, once written.
pub(in super::super) const WOPCM_SIZE: u64 = 0xc050;
pub(in super::super) const WOPCM_OFFSET: u64 = 0xc340;
/// DMA_CTRL: the upper half of a write tells which bits of the lower half change.
pub(in super::super) const DMA_CONTROL: u64 = 0xc314;
pub(super) const DMA_START: u32 = 1 << 0;
/// GUC_HOST_INTERRUPT.
pub(in super::super) const DOORBELL: u64 = 0x19_01f0;
/// VF_SW_FLAG(0) to (3).
pub(in super::super) const SCRATCH: u64 = 0x19_0240;
