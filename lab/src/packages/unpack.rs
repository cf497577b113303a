//! Unpacks packages into a folder that appears under its name only when it is complete.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::apt::Archive;
use super::{Progress, readable_size};
use crate::cache::manifest::Manifest;
use crate::error::{Context, Error, Result};

/// Parts of packages that neither QEMU nor the guest reads.
const NOT_KEPT: [&str; 7] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bug",
    "usr/share/info",
    "var",
];

const UNPACKING: &str = ".unpacking-";

/// Unpacks `archives` and calls `finish` on the folder before it becomes `target`. What was at
/// `target` is replaced. The caller holds the lock of the cache.
pub(crate) fn unpack(
    archives: &[Archive],
    target: &Path,
    progress: &dyn Progress,
    finish: impl FnOnce(&Path) -> Result<()>,
) -> Result<Manifest> {
    let parent = target.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).context(|| format!("create {}", parent.display()))?;
    remove_abandoned(parent)?;
    let partial = tempfile::Builder::new()
        .prefix(UNPACKING)
        .tempdir_in(parent)
        .context(|| format!("create a folder in {}", parent.display()))?;
    progress.step(&format!("unpacking {} packages", archives.len()));
    for (index, archive) in archives.iter().enumerate() {
        extract(archive, partial.path())?;
        #[expect(clippy::cast_precision_loss, reason = "some hundred packages")]
        progress.fraction((index + 1) as f64 / archives.len() as f64);
    }
    for name in NOT_KEPT {
        remove(&partial.path().join(name))?;
    }
    finish(partial.path())?;
    let manifest = Manifest::record(partial.path(), archives.iter().map(Archive::name).collect())?;
    remove(target)?;
    let partial = partial.keep();
    set_readable(&partial)?;
    fs::rename(&partial, target)
        .context(|| format!("rename {} to {}", partial.display(), target.display()))?;
    progress.step(&format!("unpacked {}", readable_size(manifest.size())));
    Ok(manifest)
}

/// Removes what a fetch that was killed has left.
fn remove_abandoned(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).context(|| format!("list {}", folder.display()))? {
        let entry = entry.context(|| format!("list {}", folder.display()))?;
        if entry.file_name().to_string_lossy().starts_with(UNPACKING) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Temporary folders are made for their owner alone; the cache may be shared.
fn set_readable(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
        .context(|| format!("open up {}", folder.display()))
}

fn extract(archive: &Archive, folder: &Path) -> Result<()> {
    let output = Command::new("dpkg")
        .arg("-x")
        .arg(&archive.path)
        .arg(folder)
        .env("HOME", folder)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .map_err(|_| Error::MissingProgram {
            program: "dpkg".into(),
            remedy: "install the package dpkg, or bring your own builds with --qemu PATH and --kernel PATH"
                .into(),
        })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Packages {
        action: format!("unpacking {}", archive.path.display()),
        output: String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
        remedy:
            "check the free space of the cache folder; if the package is damaged, delete it and fetch again"
                .into(),
    })
}

pub(crate) fn remove(path: &Path) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
