//! Regions of host memory.

use std::sync::Arc;

use devmem_provider::{ErrorKind, Residency};
use devmem_receive::rdma::{AccessFlags, RegistrationRefusal};
use devmem_receive::zcrx::HostMemory;

use crate::harness::{Outcome, ensure};
use crate::privilege::{with_limit, without};
use crate::setup::{SIZE, domain};
use crate::witness::{region, regions};

pub(crate) fn is_registered() -> Outcome {
    let memory = Arc::new(HostMemory::allocate(usize::try_from(SIZE)?)?);
    let region_of_it = domain()?.register_host(memory, AccessFlags::LOCAL_WRITE)?;
    let seen = region(0)?;
    ensure!((seen.length, seen.address) == (SIZE, 0), "{seen:?}");
    seen.is_in(Residency::System)?;
    region_of_it.deregister()?;
    ensure!(regions(0)?.is_empty(), "a region is left");
    Ok(())
}

pub(crate) fn needs_a_limit_on_locked_memory() -> Outcome {
    let memory = Arc::new(HostMemory::allocate(usize::try_from(SIZE)?)?);
    let domain = domain()?;
    let registered = |limit: u64| {
        let (memory, domain) = (Arc::clone(&memory), domain.clone());
        with_limit(limit, || {
            without(move || Ok(domain.register_host(memory, AccessFlags::LOCAL_WRITE).map(drop)))
        })
    };
    registered(2 * SIZE)??;
    let error = registered(SIZE / 2)?.err().ok_or("it was registered")?;
    ensure!(RegistrationRefusal::of(&error) == Some(RegistrationRefusal::MemoryLockLimit), "{error}");
    ensure!(error.kind() == ErrorKind::OutOfMemory, "{error}");
    ensure!(error.remedy_text().is_some_and(|remedy| remedy.contains("ulimit -l")), "{error}");
    println!("    {error}");
    ensure!(regions(0)?.is_empty(), "a region is left");
    Ok(())
}
