//! What a caller asks of a provider.

use std::sync::OnceLock;

use crate::error::{Error, ErrorKind, Result};
use crate::heap::{Heap, Placement};

/// The size of the pages that back a buffer in system memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum PageSize {
    /// The kernel's base pages.
    #[default]
    Base,
    /// Huge pages of 2 MiB, which an administrator has to reserve (`vm.nr_hugepages`).
    Huge2MiB,
}

impl PageSize {
    /// Its size in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::Base => base_page_size(),
            Self::Huge2MiB => 2 << 20,
        }
    }
}

/// The kernel's base page size in bytes: what the sizes of DMA-bufs are multiples of.
#[must_use]
#[inline]
pub fn base_page_size() -> u64 {
    static SIZE: OnceLock<u64> = OnceLock::new();
    *SIZE.get_or_init(|| {
        nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
            .ok()
            .flatten()
            .and_then(|size| u64::try_from(size).ok())
            .unwrap_or(4096)
    })
}

/// A request for a buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    bytes: u64,
    placement: Option<Placement>,
    required: bool,
    contiguous: bool,
    page_size: PageSize,
    name: Option<String>,
}

impl Request {
    /// A buffer of `bytes` bytes, wherever the provider puts it.
    #[must_use]
    pub fn bytes(bytes: u64) -> Self {
        Self {
            bytes,
            placement: None,
            required: false,
            contiguous: false,
            page_size: PageSize::Base,
            name: None,
        }
    }

    /// Asks for a placement; the provider may choose another where it has to.
    #[must_use]
    pub fn prefer(mut self, placement: Placement) -> Self {
        self.placement = Some(placement);
        self.required = false;
        self
    }

    /// Demands a placement: where the provider cannot keep to it, the request fails.
    #[must_use]
    pub fn require(mut self, placement: Placement) -> Self {
        self.placement = Some(placement);
        self.required = true;
        self
    }

    /// Demands physically contiguous memory.
    #[must_use]
    pub fn contiguous(mut self) -> Self {
        self.contiguous = true;
        self
    }

    /// Chooses the pages that back the buffer.
    #[must_use]
    pub fn page_size(mut self, page_size: PageSize) -> Self {
        self.page_size = page_size;
        self
    }

    /// Names the buffer, see [`DmaBuf::set_name`](crate::DmaBuf::set_name).
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The size asked for, in bytes.
    #[must_use]
    #[inline]
    pub fn size(&self) -> u64 {
        self.bytes
    }

    /// The placement asked for, if any.
    #[must_use]
    #[inline]
    pub fn placement(&self) -> Option<Placement> {
        self.placement
    }

    /// Whether another placement than the one asked for is a failure.
    #[must_use]
    #[inline]
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Whether the memory must be physically contiguous.
    #[must_use]
    #[inline]
    pub fn is_contiguous(&self) -> bool {
        self.contiguous
    }

    /// The pages asked for.
    #[must_use]
    #[inline]
    pub fn pages(&self) -> PageSize {
        self.page_size
    }

    /// The name asked for.
    #[must_use]
    #[inline]
    pub fn buffer_name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Checks the size against a heap's rules. Backends call it before they ask the kernel, whose answer
    /// would be a bare `EINVAL`, or, from a heap without a limit, a visit of the out-of-memory killer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for a size of 0 or one that is not a multiple of the heap's
    /// granularity; [`ErrorKind::OutOfMemory`] for one beyond the heap's limit or size.
    pub fn check_size(&self, heap: &Heap) -> Result<()> {
        let refuse = |kind| {
            Error::new(kind, format!("allocate {} bytes", self.bytes)).on(format!("heap {}", heap.name))
        };
        let granularity = heap.granularity.max(self.page_size.bytes());
        if self.bytes == 0 {
            return Err(refuse(ErrorKind::InvalidInput)
                .because("a buffer of 0 bytes cannot be exported")
                .remedy(format!("ask for a multiple of {granularity} bytes")));
        }
        if !self.bytes.is_multiple_of(granularity) {
            let below = self.bytes - self.bytes % granularity;
            let above = below.checked_add(granularity);
            let nearest = [Some(below).filter(|&size| size > 0), above];
            let nearest: Vec<String> = nearest.into_iter().flatten().map(|size| size.to_string()).collect();
            return Err(refuse(ErrorKind::InvalidInput)
                .because(format!("the size is not a multiple of {granularity} bytes"))
                .remedy(format!("ask for {}", nearest.join(" or "))));
        }
        for (limit, what) in
            [(heap.maximum_allocation, "the limit for one buffer"), (heap.size, "the size of the whole heap")]
        {
            if let Some(limit) = limit.filter(|&limit| self.bytes > limit) {
                return Err(refuse(ErrorKind::OutOfMemory)
                    .because(format!("{what} is {limit} bytes"))
                    .remedy(format!("ask for at most {limit} bytes")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heap() -> Heap {
        Heap {
            name: "test".to_owned(),
            placement: Placement::System,
            size: Some(1 << 30),
            used: None,
            cpu_visible: None,
            maximum_allocation: Some(64 << 20),
            granularity: 4096,
        }
    }

    #[test]
    fn sizes_are_judged_before_the_kernel_is_asked() {
        let kind = |bytes| Request::bytes(bytes).check_size(&heap()).map_err(|error| error.kind());
        assert_eq!(kind(4096), Ok(()));
        assert_eq!(kind(64 << 20), Ok(()));
        assert_eq!(kind(0), Err(ErrorKind::InvalidInput));
        assert_eq!(kind(4095), Err(ErrorKind::InvalidInput));
        assert_eq!(kind(u64::MAX), Err(ErrorKind::InvalidInput));
        assert_eq!(kind((64 << 20) + 4096), Err(ErrorKind::OutOfMemory));
        assert_eq!(kind(!4095), Err(ErrorKind::OutOfMemory));
    }

    #[test]
    fn huge_pages_make_the_granularity_coarser() {
        let request = Request::bytes(4096).page_size(PageSize::Huge2MiB);
        let error = request.check_size(&heap()).unwrap_err();
        assert!(error.to_string().contains("2097152"), "{error}");
    }

    #[test]
    fn an_unaligned_size_is_told_its_neighbours() {
        let error = Request::bytes(5000).check_size(&heap()).unwrap_err();
        assert!(error.to_string().ends_with("ask for 4096 or 8192"), "{error}");
    }
}
