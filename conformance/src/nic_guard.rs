//! Whatever a check did to the NIC is put back, and told.

use devmem_provider::Result;
use devmem_receive::nic::{self, Nic, Snapshot};

/// The settings of a NIC that are to stay as they are.
#[derive(Debug)]
pub(crate) struct NicGuard {
    nic: Nic,
    before: Snapshot,
}

impl NicGuard {
    /// Remembers the settings as they are now. What an earlier run left behind is undone first.
    pub(crate) fn new(nic: Nic) -> Result<Self> {
        nic::restore(nic.name())?;
        let before = nic.snapshot()?;
        Ok(Self { nic, before })
    }

    /// The NIC's driver.
    pub(crate) fn driver(&self) -> &str {
        &self.nic.identity().driver
    }

    /// Puts back what is not as it was, and tells what that was. A check that was killed cannot undo its changes, and
    /// that is no fault of what it checks; but what is neither undone nor in the journal is.
    pub(crate) fn restored(&self) -> Result<Vec<String>> {
        nic::restore(self.nic.name())?;
        let after = self.nic.snapshot()?;
        let differences = self.before.diff(&after);
        for (name, feature) in &self.before.features {
            let now = after.features.get(name);
            if feature.changeable && now.is_some_and(|now| now.wanted != feature.wanted) {
                // What cannot be put back is told with the rest.
                let _ = self.nic.ethtool().set_feature(self.nic.ifindex(), name, feature.wanted);
            }
        }
        Ok(differences.iter().map(ToString::to_string).collect())
    }
}
