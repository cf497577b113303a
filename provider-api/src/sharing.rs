//! What an exporter does with device memory when somebody attaches.

/// What becomes of a buffer in device memory when an importer attaches to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reaction {
    /// It stays where it is.
    Stays,
    /// It stays where it is if peers see all of it there; if a part lies outside of the window that they see, the importer is
    /// refused.
    StaysIfVisible,
    /// It is moved to system memory, for all who are attached, and the importer is told nothing.
    Moves,
    /// The importer is refused.
    Refuses,
}

/// How an exporter shares a buffer that is in its device's memory: what its driver's source says, which a lab or a machine
/// may be held against.
///
/// The kernel lets an exporter see of each attachment whether the importer takes peer-to-peer addresses, and find out
/// whether there is a way for them (`pci_p2pdma_distance()`). *With a path* is where both are so.
///
/// # Contagion
///
/// A buffer is in one place. Where an exporter keeps it on the device for importers with a path and moves it for others,
/// **one attachment without a path moves it for all**: amdgpu and xe pin on the device only if every attachment has one.
/// And an importer that has pinned it on the device keeps it from being moved, so that **a later importer without a path is
/// refused**.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sharing {
    /// With an importer that has a path.
    pub with_path: Reaction,
    /// With an importer that takes no peer-to-peer addresses, or that the kernel finds no way for.
    pub without_path: Reaction,
}

impl Sharing {
    /// The same with every importer.
    #[must_use]
    pub const fn always(reaction: Reaction) -> Self {
        Self { with_path: reaction, without_path: reaction }
    }

    /// It stays with importers that have a path.
    #[must_use]
    pub const fn stays_with_path(without_path: Reaction) -> Self {
        Self { with_path: Reaction::Stays, without_path }
    }

    /// The same where peers may not see all of it.
    #[must_use]
    pub const fn if_visible(mut self) -> Self {
        if let Reaction::Stays = self.with_path {
            self.with_path = Reaction::StaysIfVisible;
        }
        self
    }
}
