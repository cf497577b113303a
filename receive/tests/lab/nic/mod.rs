//! Preparing and restoring a real driver's NIC: header split, RSS, flow rules, rings, bound queues.

mod prepare;
mod processes;
mod receive_rings;
pub(crate) mod roles;

use crate::harness::{Test, tests};

pub(crate) const TESTS: &[Test] = tests![
    prepare::{
        capabilities_are_found_without_a_change,
        every_setting_is_made_and_put_back,
        a_nic_is_found_by_its_address_and_pci_function,
        a_flow_is_spread_over_three_queues,
        a_flow_for_one_address_has_one_rule,
        settings_made_by_hand_are_put_back,
        a_setting_that_was_on_stays_on,
        too_few_channels_are_raised_and_put_back,
        a_full_rule_table_is_told_and_undone,
        a_bound_queue_is_not_taken,
        restoring_releases_what_is_still_bound,
        restoring_works_while_the_interface_is_down,
    },
    receive_rings::{
        they_leave_half_of_the_buffer_and_are_put_back,
        they_stay_where_the_buffer_is_large,
        they_are_put_back_after_a_kill,
        a_buffer_that_starves_queues_is_refused,
        one_queue_takes_any_buffer,
    },
    processes::{
        killed_at_any_moment,
        killed_while_queues_are_bound,
        a_signal_releases_and_restores,
    },
];
