//! Whatever a check did to the NIC is put back, and told.

use devmem_provider::{ErrorKind, Result};
use devmem_receive::nic::{self, Nic};

use crate::remembered_nic::RememberedNic;

/// The settings of a NIC that are to stay as they are.
#[derive(Debug)]
pub(crate) struct NicGuard {
    nic: Nic,
    before: RememberedNic,
}

impl NicGuard {
    /// Remembers the settings as they are now. What an earlier run left behind is undone first.
    pub(crate) fn new(nic: Nic) -> Result<Self> {
        nic::restore(nic.name())?;
        let before = RememberedNic::of(&nic)?;
        Ok(Self { nic, before })
    }

    /// The NIC's driver.
    pub(crate) fn driver(&self) -> &str {
        &self.nic.identity().driver
    }

    /// Puts back what is not as it was, and tells what that was. A check that was killed cannot undo its changes, and
    /// that is no fault of what it checks; but what is neither undone nor in the journal is.
    pub(crate) fn restored(&mut self) -> Result<Vec<String>> {
        // A check that unplugs the NIC brings it back with another number, unless it was killed meanwhile.
        if self.nic.link().is_err_and(|error| error.kind() == ErrorKind::Gone) {
            self.nic = self.before.bring_back()?;
        }
        nic::restore(self.nic.name())?;
        let after = self.nic.snapshot()?;
        let differences = self.before.differences(&self.nic)?;
        for (name, feature) in &self.before.settings().features {
            let now = after.features.get(name);
            if feature.changeable && now.is_some_and(|now| now.wanted != feature.wanted) {
                // What cannot be put back is told with the rest.
                let _ = self.nic.ethtool().set_feature(self.nic.ifindex(), name, feature.wanted);
            }
        }
        Ok(differences)
    }
}
