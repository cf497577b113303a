//! The lab asked for faults.

use serde_json::{Value, json};

use crate::ask_lab::ask_lab;
use crate::guest::Failure;

/// Something about the machine that is undone on drop, whatever a test does.
pub(crate) struct Undo(Box<dyn Fn()>);

impl Undo {
    pub(crate) fn by(undo: impl Fn() + 'static) -> Self {
        Self(Box::new(undo))
    }

    /// Asks the lab now for one thing and at the end for another.
    pub(crate) fn lab(now: &Value, later: Value) -> Result<Self, Failure> {
        ask_lab(now)?;
        Ok(Self::by(move || drop(ask_lab(&later))))
    }

    /// Lets the switch lose and mix packets.
    pub(crate) fn switch_faults(mut faults: Value) -> Result<Self, Failure> {
        faults["op"] = json!("switch");
        Self::lab(&faults, json!({ "op": "switch" }))
    }

    /// Lets the receiving NIC make a mistake.
    pub(crate) fn nic_fault(mut fault: Value) -> Result<Self, Failure> {
        fault["op"] = json!("nic_fault");
        fault["nic"] = json!(0);
        Self::lab(&fault, json!({ "op": "nic_fault", "nic": 0, "fault": "none" }))
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        (self.0)();
    }
}
