//! What was foretold, held against what happens: for every provider, in every placement.

use devmem_backends::discover;
use devmem_provider::topology::IommuDomain;
use devmem_provider::{Agreement, Effect, Forecast, Pin, Placement, Provider, Request, Require, Residency};
use devmem_receive::rdma::{ProtectionDomain, RegistrationRefusal};

use crate::harness::{Outcome, ensure};
use crate::machines;
use crate::setup::{SIZE, domain, vram};
use crate::witness::{region, regions};

/// The machine is what it is meant to be: otherwise what follows would say nothing.
pub(crate) fn the_way_is_that_of_the_machine() -> Outcome {
    let machine = machines::this()?;
    let buffer = vram(SIZE)?;
    let forecast = Forecast::of(&domain()?, &*buffer)?;
    let expected = if machine.has_path { Effect::Stays } else { Effect::Moves };
    ensure!(forecast.effect == expected, "{forecast:?}");
    let topology = forecast.topology.ok_or("the way was not looked for")?;
    let domains = [&topology.exporter, &topology.importer]
        .map(|endpoint| endpoint.iommu.as_ref().map(|group| group.domain.clone()));
    let expected = machine.iommu.then_some(IommuDomain::Translated);
    ensure!(domains == [expected.clone(), expected], "{domains:?}");
    Ok(())
}

pub(crate) fn every_provider_does_as_foretold() -> Outcome {
    let mut domain = domain()?;
    let discovery = discover();
    ensure!(discovery.providers.len() > 1, "{discovery}");
    for provider in &discovery.providers {
        for request in requests(&**provider)? {
            pin(&mut domain, &**provider, &request).map_err(|failure| {
                let only = if request.is_required() { " only" } else { "" };
                format!("{} in {:?}{only}: {failure}", provider.identity(), request.placement())
            })?;
        }
    }
    Ok(())
}

/// Each placement of the provider, preferred and required.
fn requests(provider: &dyn Provider) -> Result<Vec<Request>, devmem_provider::Error> {
    let mut placements: Vec<Placement> = Vec::new();
    for heap in provider.heaps()? {
        if !placements.contains(&heap.placement) {
            placements.push(heap.placement);
        }
    }
    let request = || Request::bytes(SIZE);
    Ok(placements
        .into_iter()
        .flat_map(|placement| [request().prefer(placement), request().require(placement)])
        .collect())
}

fn pin(domain: &mut ProtectionDomain, provider: &dyn Provider, request: &Request) -> Outcome {
    let buffer = provider.allocate(request)?;
    buffer.residency()?;
    let forecast = Forecast::of(domain, &*buffer)?;
    ensure!(forecast.attached.devices() == Some(&[]), "{forecast:?}");
    let name = provider.identity();
    let placement = request.placement().map(|placement| placement.to_string()).unwrap_or_default();
    let only = if request.is_required() { ", only" } else { "" };
    match Pin::new(domain, &*buffer, Require::Anywhere) {
        Ok(pin) => {
            println!("    {name}, {placement}{only}: {forecast}; then {}", pin.residency());
            ensure!(forecast.compare(Some(&pin)) == Agreement::AsForetold, "{forecast:?}, but {pin}");
            let seen = region(0)?;
            // Behind an IOMMU the lab does not know whose the pages are.
            if seen.unreachable == 0 {
                seen.is_in(pin.residency().residency)?;
            } else {
                ensure!(pin.residency().residency == Residency::DeviceLocal, "{seen:?}, {pin}");
                ensure!(machines::this()?.iommu, "{seen:?}");
            }
        }
        Err(error) => {
            println!("    {name}, {placement}{only}: {forecast}; then {error}");
            ensure!(forecast.compare::<()>(None) == Agreement::AsForetold, "{forecast:?}, but {error}");
            ensure!(forecast.effect == Effect::Refused, "{forecast:?}");
            ensure!(RegistrationRefusal::of(&error) == Some(RegistrationRefusal::ExporterRefused), "{error}");
        }
    }
    ensure!(regions(0)?.is_empty(), "a region is left");
    Ok(())
}
