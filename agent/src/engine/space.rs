//! Whether a disk has room, asked before gigabytes are written to it.

use std::path::{Path, PathBuf};

use sysinfo::Disks;

/// Left free on the disk: a system whose disk is full to the last byte stops working.
const SPARE_BYTES: u64 = 256 << 20;

/// The disk has no room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} has {} MB free and {} MB are needed: free some, or choose another folder (ROADBED_MODELS)",
    path.display(), free_bytes / 1_000_000, needed_bytes.div_ceil(1_000_000)
)]
pub struct NoSpace {
    /// The folder.
    pub path: PathBuf,
    /// Free there.
    pub free_bytes: u64,
    /// To be written, and a little to spare.
    pub needed_bytes: u64,
}

/// Fails if the disk of `folder`, which need not exist yet, has no room for `bytes` more. A disk that tells nothing
/// is believed to have room: writing will tell.
///
/// # Errors
/// [`NoSpace`].
pub fn require_space(folder: &Path, bytes: u64) -> Result<(), NoSpace> {
    match free_bytes(folder) {
        Some(free) => enough(folder, free, bytes),
        None => Ok(()),
    }
}

fn enough(folder: &Path, free_bytes: u64, bytes: u64) -> Result<(), NoSpace> {
    let needed_bytes = bytes.saturating_add(SPARE_BYTES);
    if bytes > 0 && needed_bytes > free_bytes {
        return Err(NoSpace { path: folder.to_owned(), free_bytes, needed_bytes });
    }
    Ok(())
}

/// Free bytes of the disk of `folder`: of the mount point nearest to it.
#[must_use]
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let absolute = std::path::absolute(folder).ok()?;
    let folder = absolute.ancestors().find_map(|path| path.canonicalize().ok())?;
    let disks = Disks::new_with_refreshed_list().ok()?;
    disks
        .iter()
        .filter(|disk| folder.starts_with(disk.mount_point()))
        .max_by_key(|disk| disk.mount_point().as_os_str().len())
        .map(sysinfo::Disk::available_space)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_before_the_first_byte() {
        let check = |free: u64, bytes: u64| enough(Path::new("/m"), free, bytes).is_ok();
        assert!(check(SPARE_BYTES + 10, 10) && !check(SPARE_BYTES + 10, 11));
        assert!(check(0, 0), "nothing is left to write");
        assert!(!check(u64::MAX - 1, u64::MAX));
        let said = enough(Path::new("/m"), 1_000_000, 5_000_000).unwrap_err().to_string();
        assert!(said.contains("1 MB free and 274 MB are needed"), "{said}");
    }

    #[test]
    fn the_disk_of_a_folder_yet_to_come_is_known() {
        let dir = tempfile::tempdir().unwrap();
        // Some containers show no disk at all; then both say nothing.
        assert_eq!(free_bytes(&dir.path().join("a/b")).is_some(), free_bytes(dir.path()).is_some());
    }
}
