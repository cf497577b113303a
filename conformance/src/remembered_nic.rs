//! A NIC as it was, so that it can be made the same again when its interface was made anew.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use devmem_provider::{Error, ErrorKind, Result};
use devmem_receive::ethtool::{DEFAULT_CONTEXT, Rings, RingsUpdate};
use devmem_receive::netlink::{self, LocalAddress, Route};
use devmem_receive::nic::{Identity, Nic, Selector, Snapshot};

use crate::pci_function::{self, PciFunction};
use crate::rtnetlink;

/// How long a driver may take to make the interface of a function that was found.
const INTERFACE_LIMIT: Duration = Duration::from_secs(20);

/// How long whoever names the interfaces of this machine may take.
const NAMING_LIMIT: Duration = Duration::from_secs(3);

const INTERVAL: Duration = Duration::from_millis(20);

/// A NIC as it was at one moment.
#[derive(Debug)]
pub(crate) struct RememberedNic {
    identity: Identity,
    settings: Snapshot,
    /// The IP addresses that somebody gave it.
    addresses: Vec<LocalAddress>,
}

impl RememberedNic {
    /// The NIC as it is now.
    pub(crate) fn of(nic: &Nic) -> Result<Self> {
        let addresses = addresses(nic)?;
        Ok(Self { identity: nic.identity().clone(), settings: nic.snapshot()?, addresses })
    }

    pub(crate) fn settings(&self) -> &Snapshot {
        &self.settings
    }

    /// Finds the NIC after its function was taken away and found again, and gives it its name, settings and addresses.
    /// A function that nobody has looked for yet is looked for.
    ///
    /// # Errors
    ///
    /// It does not come back, or cannot be made as it was.
    pub(crate) fn bring_back(&self) -> Result<Nic> {
        if self.identity.pci.is_some_and(|address| !PciFunction::at(address).is_there()) {
            pci_function::rescan()?;
        }
        let nic = self.renamed(self.found()?)?;
        let failed = |operation: &'static str| {
            let name = nic.name().to_owned();
            move |error: netlink::Error| error.during(operation).on(name)
        };
        let mut route = Route::open().map_err(failed("open a socket of rtnetlink"))?;
        if let Some(mtu) = self.settings.mtu {
            route.set_mtu(nic.ifindex(), mtu).map_err(failed("set the greatest packet"))?;
        }
        if self.settings.up == Some(true) {
            route.set_up(nic.ifindex(), true).map_err(failed("set the interface up"))?;
        }
        self.set_up_as_before(&nic).map_err(failed("give the NIC its settings back"))?;
        for address in &self.addresses {
            let address = LocalAddress { ifindex: nic.ifindex(), ..*address };
            match route.add_address(&address) {
                Err(error) if error.errno() == Some(nix::errno::Errno::EEXIST) => {}
                result => result.map_err(failed("give the NIC its address back"))?,
            }
        }
        Ok(nic)
    }

    /// What of the NIC is not as it was.
    pub(crate) fn differences(&self, nic: &Nic) -> Result<Vec<String>> {
        let mut differences: Vec<String> =
            self.settings.diff(&nic.snapshot()?).iter().map(ToString::to_string).collect();
        if nic.name() != self.identity.name {
            differences.push(format!("name: {} -> {}", self.identity.name, nic.name()));
        }
        if nic.identity().mac != self.identity.mac {
            differences.push(format!("address: {} -> {}", self.identity.mac, nic.identity().mac));
        }
        let now = addresses(nic)?;
        let has = |address: &LocalAddress| now.iter().any(|other| other.address == address.address);
        differences.extend(
            self.addresses
                .iter()
                .filter(|address| !has(address))
                .map(|address| format!("{} -> absent", address.address)),
        );
        Ok(differences)
    }

    fn found(&self) -> Result<Nic> {
        let selector = match self.identity.pci {
            Some(address) => Selector::Pci(address),
            None => Selector::Name(self.identity.name.clone()),
        };
        let deadline = Instant::now() + INTERFACE_LIMIT;
        loop {
            match Nic::open(selector.clone()) {
                Err(error) if error.kind() == ErrorKind::NotFound && Instant::now() < deadline => {
                    std::thread::sleep(INTERVAL);
                }
                found => return found,
            }
        }
    }

    /// Whoever names interfaces on this machine is given time to do so.
    fn renamed(&self, nic: Nic) -> Result<Nic> {
        let deadline = Instant::now() + NAMING_LIMIT;
        let mut nic = nic;
        while nic.name() != self.identity.name && Instant::now() < deadline {
            std::thread::sleep(INTERVAL);
            nic = self.found()?;
        }
        if nic.name() != self.identity.name {
            rtnetlink::rename(nic.ifindex(), &self.identity.name).map_err(|errno| {
                Error::from_errno(errno, format!("name the interface {}", self.identity.name)).on(&nic)
            })?;
            nic = self.found()?;
        }
        Ok(nic)
    }

    fn set_up_as_before(&self, nic: &Nic) -> netlink::Result<()> {
        let (ethtool, ifindex, before) = (nic.ethtool(), nic.ifindex(), &self.settings);
        if let Some(channels) = &before.channels
            && ethtool.channels(ifindex)?.current != channels.current
        {
            ethtool.set_channels(ifindex, &channels.current)?;
        }
        if let Some(rings) = &before.rings {
            let update = changes(&ethtool.rings(ifindex)?, rings);
            if update != RingsUpdate::default() {
                ethtool.set_rings(ifindex, &update)?;
            }
        }
        let now = ethtool.features(ifindex)?;
        for (name, feature) in &before.features {
            if feature.changeable && now.get(name).is_some_and(|now| now.wanted != feature.wanted) {
                ethtool.set_feature(ifindex, name, feature.wanted)?;
            }
        }
        if let Some(rss) = before.rss.get(&DEFAULT_CONTEXT)
            && ethtool.rss(ifindex, DEFAULT_CONTEXT)?.indirection != rss.indirection
        {
            ethtool.set_rss_indirection(ifindex, DEFAULT_CONTEXT, &rss.indirection)?;
        }
        for rule in before.flow_rules.iter().flat_map(|rules| rules.values()) {
            if !ethtool.flow_rules(ifindex)?.rules.contains(rule) {
                ethtool.insert_flow_rule(ifindex, rule)?;
            }
        }
        Ok(())
    }
}

/// What makes `now` the same as `before`.
fn changes(now: &Rings, before: &Rings) -> RingsUpdate {
    fn changed<T: PartialEq>(now: Option<T>, before: Option<T>) -> Option<T> {
        before.filter(|before| now.as_ref() != Some(before))
    }
    RingsUpdate {
        rx: changed(now.rx, before.rx),
        tx: changed(now.tx, before.tx),
        rx_buffer_length: changed(now.rx_buffer_length, before.rx_buffer_length),
        data_split: changed(now.data_split, before.data_split),
        header_split_threshold: changed(now.header_split_threshold, before.header_split_threshold),
    }
}

/// The addresses that somebody gave a NIC; those of the link alone the kernel makes.
fn addresses(nic: &Nic) -> Result<Vec<LocalAddress>> {
    let all = Route::open().and_then(|mut route| route.addresses());
    let all = all.map_err(|error| error.during("read the NIC's addresses").on(nic))?;
    let is_given = |address: &LocalAddress| match address.address {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && address.flags & nix::libc::IFA_F_PERMANENT != 0,
    };
    Ok(all.into_iter().filter(|address| address.ifindex == nic.ifindex() && is_given(address)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use devmem_receive::ethtool::DataSplit;

    #[test]
    fn only_what_changed_is_set() {
        let before: Rings =
            serde_json::from_value(serde_json::json!({ "rx": 1024, "data_split": "enabled" })).unwrap();
        let mut now = before.clone();
        assert_eq!(changes(&now, &before), RingsUpdate::default());
        now.data_split = Some(DataSplit::Disabled);
        let update = RingsUpdate { data_split: Some(DataSplit::Enabled), ..RingsUpdate::default() };
        assert_eq!(changes(&now, &before), update);
        now.rx = None;
        assert_eq!(changes(&now, &before).rx, Some(1024));
    }

    #[test]
    fn an_interface_is_as_it_was() {
        let nic = Nic::open("lo").unwrap();
        let remembered = RememberedNic::of(&nic).unwrap();
        assert_eq!(remembered.differences(&nic).unwrap(), Vec::<String>::new());
    }
}
