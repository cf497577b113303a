//! Keeping a GPU awake (`Documentation/power/runtime_pm.rst`).
//!
//! The only means that every driver honours is the device's `power/control` in sysfs: `on` forbids runtime suspend,
//! `auto` allows it. Only root may write it, which a program that binds NIC queues usually is. Everybody else relies
//! on the autosuspend delay: each export and each look at residency is an ioctl that wakes the GPU, and it stays awake
//! for the delay (5 seconds with amdgpu), within which an importer should attach.
//!
//! The setting is put back when the last holder of this process lets go. A process that is killed leaves `on` behind,
//! which costs energy and nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many holders each device has in this process, of those that this process keeps awake.
static HELD: Mutex<BTreeMap<PathBuf, usize>> = Mutex::new(BTreeMap::new());

fn held() -> MutexGuard<'static, BTreeMap<PathBuf, usize>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device that does not suspend while this lives.
#[derive(Debug)]
pub(crate) struct Awake {
    control: PathBuf,
}

impl Awake {
    /// Keeps the device with this folder in sysfs awake. `None` if it is awake anyway, or if this user may not
    /// decide it.
    pub(crate) fn hold(device: &Path) -> Option<Self> {
        let control = device.join("power/control");
        let mut held = held();
        if let Some(holders) = held.get_mut(&control) {
            *holders += 1;
            return Some(Self { control });
        }
        let setting = std::fs::read_to_string(&control).ok()?;
        if setting.trim() != "auto" {
            return None;
        }
        std::fs::write(&control, "on").ok()?;
        held.insert(control.clone(), 1);
        Some(Self { control })
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        let mut held = held();
        match held.get_mut(&self.control) {
            Some(holders) if *holders > 1 => *holders -= 1,
            _ => {
                held.remove(&self.control);
                // Fails if the device is gone, and its setting with it.
                let _ = std::fs::write(&self.control, "auto");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(setting: &str) -> (tempfile::TempDir, impl Fn() -> String) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("power")).unwrap();
        let control = folder.path().join("power/control");
        std::fs::write(&control, setting).unwrap();
        (folder, move || std::fs::read_to_string(&control).unwrap().trim().to_owned())
    }

    #[test]
    fn the_last_holder_puts_the_setting_back() {
        let (folder, setting) = device("auto\n");
        let first = Awake::hold(folder.path()).unwrap();
        let second = Awake::hold(folder.path()).unwrap();
        assert_eq!(setting(), "on");
        drop(first);
        assert_eq!(setting(), "on");
        drop(second);
        assert_eq!(setting(), "auto");
    }

    #[test]
    fn what_an_administrator_has_set_stays() {
        let (folder, setting) = device("on\n");
        assert!(Awake::hold(folder.path()).is_none());
        assert_eq!(setting(), "on");
        assert!(Awake::hold(Path::new("/nonexistent")).is_none());
    }
}
