//! `doctor`.

use std::sync::Arc;

use devmem_backends::{Discovery, discover};
use devmem_conformance::doctor::{self, Refused, Subjects};
use devmem_provider::{Provider, Result};

use super::Status;
use super::arguments::DoctorOptions;
use super::run::print;

pub(super) fn doctor(options: &DoctorOptions) -> Result<Status> {
    let discovery = chosen(discover(), &options.providers)?;
    let refused: Vec<_> = discovery
        .unavailable
        .iter()
        .map(|other| Refused { backend: other.backend, reason: &other.reason })
        .collect();
    let diagnosis = doctor::examine(&Subjects {
        providers: &discovery.providers,
        refused: &refused,
        nics: &options.nics,
        named_only: !options.providers.is_empty(),
    })?;
    print(&if options.json { diagnosis.to_json() } else { doctor::text::write(&diagnosis) })?;
    Ok(if diagnosis.can_receive { Status::Success } else { Status::Nothing })
}

/// What the selectors mean, and the backends that they name.
fn chosen(mut discovery: Discovery, selectors: &[String]) -> Result<Discovery> {
    if selectors.is_empty() {
        return Ok(discovery);
    }
    let mut providers: Vec<Arc<dyn Provider>> = Vec::new();
    let mut backends: Vec<&str> = Vec::new();
    for selector in selectors {
        let backend = selector.split(':').next().unwrap_or(selector);
        let meant: Vec<_> = discovery
            .providers
            .iter()
            .filter(|provider| provider.identity().matches(selector))
            .cloned()
            .collect();
        if !meant.is_empty() {
            providers.extend(meant);
        } else if discovery.unavailable.iter().any(|other| other.backend == backend) {
            backends.push(backend);
        } else {
            // Tells what there is.
            providers.push(discovery.find(selector)?);
            return Ok(Discovery { providers, unavailable: Vec::new() });
        }
    }
    discovery.providers = providers;
    discovery.unavailable.retain(|other| backends.contains(&other.backend));
    Ok(discovery)
}
