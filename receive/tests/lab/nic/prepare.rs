//! One process, one NIC.

use devmem_provider::ErrorKind;
use devmem_receive::ethtool::{
    ChannelCounts, DEFAULT_CONTEXT, DataSplit, FlowRule, FlowRuleAction, RingsUpdate, TcpMatch,
};
use devmem_receive::netdev::QueueKind;
use devmem_receive::nic::{Flow, Nic, Plan, Queues, Snapshot, Support};

use super::roles;
use crate::harness::nic::restored;
use crate::harness::{self, Actor, Failure, Outcome, ensure};
use crate::machine::{BUFFER_BYTES, NIC, PORT, bind, plan, set_link};

const ADDRESS: [u8; 4] = [10, 77, 0, 1];

fn nic() -> Result<Nic, Failure> {
    Ok(Nic::open(NIC)?)
}

/// Promises that the NIC under test is the same after a test.
fn unchanged(test: impl FnOnce(&Nic, &Snapshot) -> Outcome) -> Outcome {
    harness::nic::unchanged(NIC, test)
}

pub(crate) fn capabilities_are_found_without_a_change() -> Outcome {
    unchanged(|nic, _| {
        let capabilities = nic.capabilities()?;
        for capability in capabilities.iter() {
            println!("    {capability}");
        }
        ensure!(capabilities.can_receive() == Support::Yes, "{capabilities:?}");
        ensure!(capabilities.header_split_threshold.support == Support::No, "gve has none");
        ensure!(capabilities.rss_contexts.support == Support::No, "gve has none");
        ensure!(capabilities.devmem_receive.support == Support::Yes, "{}", capabilities.devmem_receive);
        ensure!(capabilities.devmem_transmit.support == Support::Yes, "{}", capabilities.devmem_transmit);
        Ok(())
    })
}

pub(crate) fn every_setting_is_made_and_put_back() -> Outcome {
    unchanged(|nic, before| {
        let prepared = nic.prepare(&plan(1))?;
        ensure!(prepared.queues() == [3], "{:?}", prepared.queues());
        ensure!(prepared.before() == before, "{:?}", before.diff(prepared.before()));
        let now = nic.snapshot()?;
        let fields: Vec<_> = before.diff(&now).into_iter().map(|difference| difference.field).collect();
        let expected = [
            "features.rx-ntuple-filter.active",
            "features.rx-ntuple-filter.wanted",
            "flow_rules.0",
            "flow_rules.1",
            "rings.data_split",
            "rss.0.indirection",
        ];
        ensure!(fields == expected, "{:?}", before.diff(&now));
        ensure!(now.rings.as_ref().and_then(|rings| rings.data_split) == Some(DataSplit::Enabled), "{now:?}");
        ensure!(!now.rss[&DEFAULT_CONTEXT].indirection.contains(&3), "{:?}", now.rss);
        for rule in now.flow_rules.iter().flatten().map(|(_, rule)| rule) {
            ensure!(rule.action() == FlowRuleAction::Queue(3), "{rule}");
        }
        // The kernel is content with all of it.
        let binding = bind(nic, prepared.queues(), BUFFER_BYTES)?;
        let queue = nic.netdev().queue(nic.ifindex(), QueueKind::Receive, 3)?;
        ensure!(queue.dmabuf == Some(binding.id()), "{queue:?}");
        drop(binding);
        let queue = nic.netdev().queue(nic.ifindex(), QueueKind::Receive, 3)?;
        ensure!(queue.dmabuf.is_none(), "{queue:?}");
        restored(prepared)
    })
}

pub(crate) fn a_nic_is_found_by_its_address_and_pci_function() -> Outcome {
    let by_name = nic()?;
    ensure!(by_name.identity().driver == "gve", "{by_name:?}");
    let pci = by_name.identity().pci.ok_or("no PCI function")?;
    for selector in [pci.to_string(), "10.77.0.1".to_owned(), "fd77::1".to_owned()] {
        let found = Nic::open(&selector)?;
        ensure!(found.identity() == by_name.identity(), "{selector}: {found:?}");
    }
    Ok(())
}

pub(crate) fn a_flow_is_spread_over_three_queues() -> Outcome {
    unchanged(|nic, _| {
        let prepared = nic.prepare(&plan(3))?;
        ensure!(prepared.queues() == [1, 2, 3], "{:?}", prepared.queues());
        let now = nic.snapshot()?;
        let rules = now.flow_rules.ok_or("no rules")?;
        ensure!(rules.len() == 32, "{} rules", rules.len());
        for queue in prepared.queues() {
            let aim = FlowRuleAction::Queue(*queue);
            let share = rules.values().filter(|rule| rule.action() == aim).count();
            ensure!((10..=12).contains(&share), "queue {queue}: {share} rules");
        }
        ensure!(now.rss[&DEFAULT_CONTEXT].indirection.iter().all(|&entry| entry == 0), "{:?}", now.rss);
        restored(prepared)
    })
}

pub(crate) fn a_flow_for_one_address_has_one_rule() -> Outcome {
    unchanged(|nic, _| {
        let flow = Flow::tcp_port(PORT).to(ADDRESS.into());
        let prepared = nic.prepare(&Plan::new(Queues::list([2]), flow))?;
        let rules = nic.snapshot()?.flow_rules.ok_or("no rules")?;
        let matched = TcpMatch { local_address: ADDRESS.into(), local_port: PORT, remote_port: None };
        let expected = FlowRule::tcp(matched, FlowRuleAction::Queue(2), 0);
        ensure!(rules.values().collect::<Vec<_>>() == [&expected], "{rules:?}");
        restored(prepared)
    })
}

pub(crate) fn settings_made_by_hand_are_put_back() -> Outcome {
    let nic = nic()?;
    let (ethtool, ifindex) = (nic.ethtool(), nic.ifindex());
    let original = nic.snapshot()?;
    let length = original.rss[&DEFAULT_CONTEXT].indirection.len();
    let table: Vec<u32> = [0, 3, 3, 1].into_iter().cycle().take(length).collect();
    ethtool.set_rss_indirection(ifindex, DEFAULT_CONTEXT, &table)?;
    ethtool.set_feature(ifindex, "rx-ntuple-filter", true)?;
    let matched = TcpMatch { local_address: ADDRESS.into(), local_port: 80, remote_port: None };
    let rule = FlowRule::tcp(matched, FlowRuleAction::Queue(2), 7);
    ethtool.insert_flow_rule(ifindex, &rule)?;
    unchanged(|nic, before| {
        let prepared = nic.prepare(&plan(1))?;
        ensure!(prepared.queues() == [3], "{:?}", prepared.queues());
        let now = nic.snapshot()?;
        // What led to the bound queue is shared by the other two of the table.
        ensure!(now.rss[&DEFAULT_CONTEXT].indirection[..4] == [0, 0, 1, 1], "{:?}", now.rss);
        ensure!(now.flow_rules.iter().flatten().any(|(_, found)| *found == rule), "{now:?}");
        ensure!(before.features["rx-ntuple-filter"].active, "{before:?}");
        restored(prepared)
    })?;
    ethtool.remove_flow_rule(ifindex, 7)?;
    ethtool.set_feature(ifindex, "rx-ntuple-filter", false)?;
    ethtool.reset_rss_indirection(ifindex)?;
    ensure!(nic.snapshot()? == original, "{:?}", original.diff(&nic.snapshot()?));
    Ok(())
}

pub(crate) fn a_setting_that_was_on_stays_on() -> Outcome {
    let nic = nic()?;
    let set = |split| {
        let update = RingsUpdate { data_split: Some(split), ..RingsUpdate::default() };
        nic.ethtool().set_rings(nic.ifindex(), &update)
    };
    ensure!(set(DataSplit::Enabled)?, "header split was on already");
    unchanged(|nic, _| restored(nic.prepare(&plan(1))?))?;
    // Not only the driver's state but the setting, which cannot be read, is still the same.
    ensure!(!set(DataSplit::Enabled)?, "the setting was lost");
    ensure!(set(DataSplit::Unknown)?, "the setting was lost");
    ensure!(set(DataSplit::Disabled)?, "the setting was lost");
    // What another one than "enabled" leads to is undone to the state before.
    unchanged(|nic, _| restored(nic.prepare(&plan(1))?))
}

pub(crate) fn too_few_channels_are_raised_and_put_back() -> Outcome {
    let nic = nic()?;
    let original = nic.snapshot()?;
    let counts = original.channels.ok_or("no channels")?.current;
    for present in [1, 2] {
        let fewer = ChannelCounts { rx: present, ..counts };
        nic.ethtool().set_channels(nic.ifindex(), &fewer)?;
        // Where the device keeps the table, gve does not adapt it.
        nic.ethtool().reset_rss_indirection(nic.ifindex())?;
        unchanged(|nic, _| {
            let prepared = nic.prepare(&plan(2))?;
            ensure!(prepared.queues() == [1, 2], "{:?}", prepared.queues());
            let now = nic.snapshot()?;
            ensure!(now.receive_queues() == 3, "{now:?}");
            let table = &now.rss[&DEFAULT_CONTEXT].indirection;
            ensure!(table.iter().all(|&entry| entry == 0), "{table:?}");
            drop(bind(nic, prepared.queues(), BUFFER_BYTES)?);
            restored(prepared)
        })?;
        // A table that counted as set by hand would keep channels from being lowered.
        nic.ethtool().set_channels(nic.ifindex(), &counts)?;
        nic.ethtool().reset_rss_indirection(nic.ifindex())?;
        ensure!(nic.snapshot()? == original, "{:?}", original.diff(&nic.snapshot()?));
    }
    let error = nic.prepare(&plan(4)).err().ok_or("5 queues of 4")?;
    ensure!(error.kind() == ErrorKind::InvalidInput && error.remedy_text().is_some(), "{error}");
    Ok(())
}

pub(crate) fn a_full_rule_table_is_told_and_undone() -> Outcome {
    let nic = nic()?;
    let (ethtool, ifindex) = (nic.ethtool(), nic.ifindex());
    ethtool.set_feature(ifindex, "rx-ntuple-filter", true)?;
    let capacity = ethtool.flow_rules(ifindex)?.capacity;
    ensure!(capacity == 64, "{capacity}");
    for location in 0..capacity - 1 {
        let port = 6000 + u16::try_from(location)?;
        let matched = TcpMatch { local_address: ADDRESS.into(), local_port: port, remote_port: None };
        ethtool.insert_flow_rule(ifindex, &FlowRule::tcp(matched, FlowRuleAction::Queue(1), location))?;
    }
    unchanged(|nic, _| {
        // There is room for one of the two rules, or for none of the spread ones.
        for queues in [1, 2] {
            let error = nic.prepare(&plan(queues)).err().ok_or("the table was not full")?;
            ensure!(error.to_string().contains("rule"), "{error}");
            ensure!(error.remedy_text().is_some(), "{error}");
        }
        Ok(())
    })?;
    // gve forgets every rule when the feature goes off.
    ethtool.set_feature(ifindex, "rx-ntuple-filter", false)?;
    ensure!(ethtool.flow_rules(ifindex)?.rules.is_empty(), "{:?}", ethtool.flow_rules(ifindex)?);
    Ok(())
}

pub(crate) fn a_bound_queue_is_not_taken() -> Outcome {
    unchanged(|nic, _| {
        let update = RingsUpdate { data_split: Some(DataSplit::Enabled), ..RingsUpdate::default() };
        nic.ethtool().set_rings(nic.ifindex(), &update)?;
        let binding = bind(nic, &[3], BUFFER_BYTES)?;
        let prepared = nic.prepare(&plan(1))?;
        ensure!(prepared.queues() != [3], "{:?}", prepared.queues());
        restored(prepared)?;
        let named = Plan::new(Queues::list([3]), Flow::tcp_port(PORT));
        drop(binding);
        let mut other = Actor::start(roles::BIND)?;
        let error = nic.prepare(&named).err().ok_or("queue 3 was taken")?;
        ensure!(error.kind() == ErrorKind::Busy, "{error}");
        ensure!(error.to_string().contains("queue 3 is taken by DMA-buf binding"), "{error}");
        other.finish()?;
        for data_split in [DataSplit::Unknown, DataSplit::Disabled] {
            let update = RingsUpdate { data_split: Some(data_split), ..RingsUpdate::default() };
            nic.ethtool().set_rings(nic.ifindex(), &update)?;
        }
        Ok(())
    })
}

pub(crate) fn restoring_releases_what_is_still_bound() -> Outcome {
    unchanged(|nic, _| {
        let prepared = nic.prepare(&plan(2))?;
        let binding = bind(nic, prepared.queues(), BUFFER_BYTES)?;
        restored(prepared)?;
        drop(binding);
        Ok(())
    })
}

pub(crate) fn restoring_works_while_the_interface_is_down() -> Outcome {
    unchanged(|nic, _| {
        let prepared = nic.prepare(&plan(2))?;
        set_link("down")?;
        let report = prepared.restore()?;
        let fields: Vec<_> = report.differences.iter().map(|difference| difference.field.as_str()).collect();
        ensure!(fields == ["up"], "{report}");
        set_link("up")
    })
}
