//! From what a caller asks to what a driver is told.

use devmem_provider::{Error, ErrorKind, Heap, PageSize, Placement, Request, Result};

/// Where a driver shall create a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// In the device's memory.
    Device {
        /// Where the CPU and a peer reach it.
        visible: bool,
        /// Or not at all. Otherwise the driver may use system memory too, now or later.
        only: bool,
        /// In one piece.
        contiguous: bool,
    },
    /// In system memory.
    System,
}

/// Chooses the heap and judges the size. `heaps` are the driver's with their sizes; what is in use does not matter.
///
/// Nothing asked for means device memory that the CPU sees, where there is some: it is to be exported to a peer.
/// A placement that is only preferred gives way to another one that the device has, or that is large enough.
pub(crate) fn resolve(
    request: &Request,
    heaps: &[Heap],
    can_be_contiguous: bool,
    provider: &str,
) -> Result<Target> {
    let unsupported = |what: String, why: &'static str| {
        Error::new(ErrorKind::Unsupported, format!("allocate {what}")).on(provider).because(why)
    };
    if request.pages() != PageSize::Base {
        return Err(unsupported("huge pages".to_owned(), "the driver chooses its pages itself"));
    }
    let device = heaps.iter().find(|heap| heap.placement != Placement::System);
    let system = heaps.iter().find(|heap| heap.placement == Placement::System);
    let required = request.is_required();
    let contiguous = request.is_contiguous();
    if contiguous && !can_be_contiguous {
        return Err(unsupported("contiguous memory".to_owned(), "the driver cannot promise it"));
    }
    let placement = match (request.placement(), device) {
        (Some(placement), _) => placement,
        (None, Some(_)) => Placement::DeviceLocalVisible,
        (None, None) => Placement::System,
    };
    let wanted = if placement == Placement::System { system } else { device };
    let (heap, placement) = match (wanted, device.or(system)) {
        (Some(heap), _) => (heap, placement),
        (None, Some(other)) if !required => (other, other.placement),
        _ => {
            let error = unsupported(format!("in {placement}"), "it has no such memory");
            return Err(
                error.remedy("prefer the placement instead of requiring it, or choose another provider")
            );
        }
    };
    if placement == Placement::System {
        if contiguous {
            return Err(unsupported("contiguous system memory".to_owned(), "only its own memory can be"));
        }
        request.check_size(heap)?;
        return Ok(Target::System);
    }
    let visible = placement == Placement::DeviceLocalVisible;
    let limit = if visible { heap.cpu_visible.or(heap.size) } else { heap.size };
    let fits = limit.is_none_or(|limit| request.size() <= limit);
    match system {
        // Contiguous memory is device memory or none.
        Some(system) if !fits && !required && !contiguous => {
            request.check_size(system)?;
            Ok(Target::System)
        }
        _ => {
            request.check_size(heap)?;
            if !fits {
                return Err(Error::new(ErrorKind::OutOfMemory, format!("allocate {} bytes", request.size()))
                    .on(format!("heap {}", heap.name))
                    .because(format!("the CPU and peers reach {} bytes of it", limit.unwrap_or_default()))
                    .remedy("ask for less, or enable resizable BARs in the firmware's set-up"));
            }
            Ok(Target::Device { visible, only: required || contiguous, contiguous })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heap(name: &str, placement: Placement, size: u64, cpu_visible: u64, granularity: u64) -> Heap {
        Heap {
            name: name.to_owned(),
            placement,
            size: Some(size),
            used: None,
            cpu_visible: Some(cpu_visible),
            maximum_allocation: None,
            granularity,
        }
    }

    fn discrete() -> Vec<Heap> {
        vec![
            heap("vram", Placement::DeviceLocal, 1 << 30, 256 << 20, 65536),
            heap("gtt", Placement::System, 4 << 30, 4 << 30, 4096),
        ]
    }

    fn of(request: Request, heaps: &[Heap]) -> Result<Target, ErrorKind> {
        resolve(&request, heaps, false, "test").map_err(|error| error.kind())
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn nothing_asked_for_is_memory_that_a_peer_reaches() {
        let target = Target::Device { visible: true, only: false, contiguous: false };
        assert_eq!(of(Request::bytes(MIB), &discrete()), Ok(target));
        assert_eq!(of(Request::bytes(MIB), &discrete()[1..]), Ok(Target::System));
    }

    #[test]
    fn what_is_preferred_gives_way_and_what_is_required_does_not() {
        let large = Request::bytes(512 * MIB);
        let (hidden, visible) = (Placement::DeviceLocal, Placement::DeviceLocalVisible);
        let device = |visible, only| Ok(Target::Device { visible, only, contiguous: false });
        assert_eq!(of(large.clone().prefer(visible), &discrete()), Ok(Target::System));
        assert_eq!(of(large.clone().require(visible), &discrete()), Err(ErrorKind::OutOfMemory));
        assert_eq!(of(large.clone().prefer(hidden), &discrete()), device(false, false));
        assert_eq!(of(large.require(hidden), &discrete()), device(false, true));
        let huge = Request::bytes(2048 * MIB);
        assert_eq!(of(huge.clone().prefer(hidden), &discrete()), Ok(Target::System));
        assert_eq!(of(huge.require(hidden), &discrete()), Err(ErrorKind::OutOfMemory));
    }

    #[test]
    fn a_device_without_memory_of_its_own_refuses_only_if_required() {
        let integrated = &discrete()[1..];
        let request = Request::bytes(MIB);
        assert_eq!(of(request.clone().prefer(Placement::DeviceLocal), integrated), Ok(Target::System));
        assert_eq!(of(request.require(Placement::DeviceLocal), integrated), Err(ErrorKind::Unsupported));
    }

    #[test]
    fn sizes_follow_the_rules_of_the_heap_that_is_used() {
        assert_eq!(of(Request::bytes(4096), &discrete()), Err(ErrorKind::InvalidInput));
        assert_eq!(of(Request::bytes(4096).require(Placement::System), &discrete()), Ok(Target::System));
        assert_eq!(of(Request::bytes(0), &discrete()), Err(ErrorKind::InvalidInput));
        assert_eq!(of(Request::bytes(1 << 40), &discrete()), Err(ErrorKind::OutOfMemory));
    }

    #[test]
    fn contiguous_memory_is_device_memory_or_none() {
        let request = Request::bytes(MIB).contiguous();
        assert_eq!(of(request.clone(), &discrete()), Err(ErrorKind::Unsupported));
        let target = resolve(&request, &discrete(), true, "test").unwrap();
        assert_eq!(target, Target::Device { visible: true, only: true, contiguous: true });
        let in_system = request.prefer(Placement::System);
        assert_eq!(
            resolve(&in_system, &discrete(), true, "test").map_err(|error| error.kind()),
            Err(ErrorKind::Unsupported)
        );
    }
}
