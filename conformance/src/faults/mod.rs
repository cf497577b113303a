//! Providers and receive paths that are wrong on purpose: what the checks are checked with.

mod incoming;
mod path;
mod provider;
mod rdma;
mod rdma_transfers;
mod rings;
mod sys;

pub use path::FaultyPath;
pub use provider::FaultyProvider;
pub use rdma::FaultyRdmaDevice;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The identity has no name, or does not answer to it.
    Nameless,
    /// A PCI device says that it is software, or the other way round.
    WrongKind,
    /// The identity names another driver than the device has.
    WrongDriver,
    /// There are no heaps.
    NoHeaps,
    /// Heaps with a granularity that is no power of two, and more in use than there is.
    AbsurdHeaps,
    /// Device-local memory is promised and no heap has it, or the other way round.
    CapabilityWithoutHeap,
    /// Buffers are a page larger than was asked for, and say so.
    LargerBuffers,
    /// Buffers say another size than their DMA-buf has.
    WrongSize,
    /// DMA-bufs are a page shorter than the buffer.
    ShortExport,
    /// Sizes that cannot be are rounded up instead of refused.
    RoundsSizes,
    /// Every error has the kind of another failure.
    WrongErrorKind,
    /// Errors say nothing of what to do.
    NoRemedy,
    /// A placement that was required is not kept.
    IgnoresRequire,
    /// Memory has old content.
    StaleData,
    /// All buffers are the same memory.
    SharedMemory,
    /// What is exported is a file, and no DMA-buf.
    ExportsNoDmaBuf,
    /// Every export is another DMA-buf.
    ExportsAnew,
    /// Buffers do not say who made them.
    NoExporter,
    /// The name of a buffer is ignored.
    IgnoresName,
    /// Descriptors are left open.
    LeakedDescriptor,
    /// Memory is never given back.
    LeakedMemory,
    /// The residency is the opposite of the truth.
    LyingResidency,
    /// The residency is never told, though that is promised.
    UnknownResidency,
    /// The residency is told without evidence.
    NoEvidence,
    /// Every second look finds the memory elsewhere.
    MovingLook,
    /// Only one buffer can be had at a time.
    OneBuffer,
    /// Only one thread is served.
    OneThread,
    /// Allocating never returns.
    Hangs,
    /// Allocating ends the process with a signal.
    Crashes,
    /// Allocating panics.
    Panics,
    /// A capability is told that the provider does not have.
    FalseCapability,
    /// Every bind is refused.
    RefusesBind,
    /// A bind succeeds and nothing is bound.
    BindsNothing,
    /// A bind that is refused is reported as done.
    BindsAnything,
    /// A refused bind or request does not say why.
    WrongRefusal,
    /// A refused bind keeps a reference to the buffer.
    KeepsRefused,
    /// Only the first of several queues is bound.
    ForgetsQueues,
    /// The binding is told with another number than it has.
    WrongBinding,
    /// A binding is never let go.
    LeaksBinding,
    /// Programs that are started inherit the binding, and keep it.
    Inherited,
    /// Detaching is told to be complete while memory is still in use.
    ClaimsDetached,
    /// Detaching is never told to be complete.
    DeniesDetached,
    /// A bind leaves a setting of the NIC changed.
    ChangesNic,
    /// All memory regions have the same keys.
    SameKeys,
    /// A memory region ends with its protection domain.
    EndsWithDomain,
    /// A memory region ends when its process forks.
    EndsWithFork,
    /// Of a request that fails a part is done.
    DoneInPart,
    /// What is told of how a buffer is shared is not so.
    WrongSharing,
    /// Fragments are reported, or peers' requests done, a page away from their bytes.
    WrongOffset,
    /// Fragments are reported, or peers' requests done, a byte longer than they are.
    WrongLength,
    /// Fragments are reported outside of the buffer.
    OutsideBuffer,
    /// Received pieces come in another order than they were sent in.
    SwapsFragments,
    /// Received pieces, or the last bytes of peers' requests, are left out.
    DropsBytes,
    /// Received pieces, or ends of posted receives, are reported twice.
    ReportsTwice,
    /// What lies in the buffer is told to be in host memory.
    LinearInstead,
    /// What is given back never gets to the NIC.
    LosesTokens,
    /// More is told to have been given back than was.
    MiscountsTokens,
    /// What the kernel refuses to take back is told to be done.
    AcceptsAnyRelease,
    /// What is held is given back to the NIC at once.
    ReleasesEarly,
    /// A stream ends before its end.
    InventsEnd,
    /// A stream's end is told as an error.
    HidesEnd,
    /// Errors of a stream are told as its end, or not at all; those of requests as success.
    SwallowsErrors,
    /// What is only to be shown is taken.
    PeekTakes,
    /// The flags of a receive are ignored.
    IgnoresFlags,
    /// A receive takes more than there is room for.
    IgnoresLength,
    /// What is told besides payload, control messages, events and immediate data, is lost.
    LosesMessages,
    /// The connection is closed both ways when the peer has sent all.
    ClosesAtEnd,
    /// A connection or queue pair that is closed stays open in the kernel, with all that it holds.
    KeepsConnection,
    /// Bytes are told to have been copied that were not.
    TellsCopies,
    /// Packets of other connections are steered into the buffer as well.
    TakesOthers,
    /// Receiving never returns.
    ReceiveHangs,
    /// Receiving ends the process with a signal.
    ReceiveCrashes,
}

impl Fault {
    /// All faults.
    pub const ALL: [Self; 72] = [
        Self::Nameless,
        Self::WrongKind,
        Self::WrongDriver,
        Self::NoHeaps,
        Self::AbsurdHeaps,
        Self::CapabilityWithoutHeap,
        Self::LargerBuffers,
        Self::WrongSize,
        Self::ShortExport,
        Self::RoundsSizes,
        Self::WrongErrorKind,
        Self::NoRemedy,
        Self::IgnoresRequire,
        Self::StaleData,
        Self::SharedMemory,
        Self::ExportsNoDmaBuf,
        Self::ExportsAnew,
        Self::NoExporter,
        Self::IgnoresName,
        Self::LeakedDescriptor,
        Self::LeakedMemory,
        Self::LyingResidency,
        Self::UnknownResidency,
        Self::NoEvidence,
        Self::MovingLook,
        Self::OneBuffer,
        Self::OneThread,
        Self::Hangs,
        Self::Crashes,
        Self::Panics,
        Self::FalseCapability,
        Self::RefusesBind,
        Self::BindsNothing,
        Self::BindsAnything,
        Self::WrongRefusal,
        Self::KeepsRefused,
        Self::ForgetsQueues,
        Self::WrongBinding,
        Self::LeaksBinding,
        Self::Inherited,
        Self::ClaimsDetached,
        Self::DeniesDetached,
        Self::ChangesNic,
        Self::SameKeys,
        Self::EndsWithDomain,
        Self::EndsWithFork,
        Self::DoneInPart,
        Self::WrongSharing,
        Self::WrongOffset,
        Self::WrongLength,
        Self::OutsideBuffer,
        Self::SwapsFragments,
        Self::DropsBytes,
        Self::ReportsTwice,
        Self::LinearInstead,
        Self::LosesTokens,
        Self::MiscountsTokens,
        Self::AcceptsAnyRelease,
        Self::ReleasesEarly,
        Self::InventsEnd,
        Self::HidesEnd,
        Self::SwallowsErrors,
        Self::PeekTakes,
        Self::IgnoresFlags,
        Self::IgnoresLength,
        Self::LosesMessages,
        Self::ClosesAtEnd,
        Self::KeepsConnection,
        Self::TellsCopies,
        Self::TakesOthers,
        Self::ReceiveHangs,
        Self::ReceiveCrashes,
    ];
}
