//! What is worth keeping about an adapter and its driver: small files in a folder of the agent's.
//!
//! Everything in the folder can be made again, so nothing about it is ever fatal: a file that cannot be
//! read, is too large or may be written by others is passed over with a line in the log, and one that
//! cannot be written is not there next time.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::adapter::AdapterSummary;

/// Characters of an adapter's name in a file name; a digest tells the rest apart.
const NAME_CHARACTERS_MAX: usize = 40;

/// The files about one adapter with one driver.
#[derive(Clone, Debug)]
pub struct AdapterStore {
    folder: PathBuf,
    stem: String,
}

impl AdapterStore {
    /// The files in `folder`, which need not exist. Equal cards with the same driver share them.
    #[must_use]
    pub fn new(folder: &Path, adapter: &AdapterSummary) -> Self {
        let identity = [&*adapter.name, &adapter.backend, &adapter.driver].join("\n");
        let digest = Sha256::digest(identity.as_bytes());
        let mut name: String = adapter
            .name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .take(NAME_CHARACTERS_MAX)
            .collect();
        name.truncate(name.trim_end_matches('-').len());
        let number: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Self { folder: folder.to_owned(), stem: format!("{name}-{number}") }
    }

    /// Where a file lies, `what` being its ending.
    #[must_use]
    pub fn path(&self, what: &str) -> PathBuf {
        self.folder.join(format!("{}.{what}", self.stem))
    }

    /// What was kept, if it is at most `bytes_max` long; why not is logged.
    #[must_use]
    pub fn read(&self, what: &str, bytes_max: u64) -> Option<Vec<u8>> {
        let path = self.path(what);
        match read_bounded(&path, bytes_max) {
            Ok(data) => Some(data),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.passed_over(what, &error.to_string());
                None
            }
        }
    }

    /// Logs why a file is not used.
    pub fn passed_over(&self, what: &str, reason: &str) {
        tracing::warn!(file = %self.path(what).display(), reason, "a kept file is not used");
    }

    /// Keeps `data`, in one piece or not at all.
    pub fn write(&self, what: &str, data: &[u8]) {
        if let Err(error) = self.try_write(what, data) {
            tracing::warn!(file = %self.path(what).display(), %error, "cannot keep a file");
        }
    }

    fn try_write(&self, what: &str, data: &[u8]) -> io::Result<()> {
        create_private(&self.folder)?;
        // Another process may be writing the same file.
        let unfinished = self.path(&format!("{what}.{}.tmp", std::process::id()));
        let written = fs::File::create(&unfinished)
            .and_then(|mut file| file.write_all(data).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&unfinished, self.path(what)));
        if written.is_err() {
            // Nothing more can be done about it.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// Forgets a file.
    pub fn remove(&self, what: &str) {
        // If it stays, it is passed over again next time.
        let _ = fs::remove_file(self.path(what));
    }
}

fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let refused = |reason: String| Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    let file = fs::File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return refused("it is no file".to_owned());
    }
    if others_may_write(&metadata) {
        return refused("others than its owner may write it".to_owned());
    }
    let mut data = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut data)?;
    if data.len() as u64 > bytes_max {
        return refused(format!("it is longer than {bytes_max} bytes"));
    }
    Ok(data)
}

/// Drivers trust what they kept, so nobody else may have a hand in it.
#[cfg(unix)]
fn others_may_write(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o022 != 0
}

#[cfg(not(unix))]
fn others_may_write(_metadata: &fs::Metadata) -> bool {
    false
}

#[cfg(unix)]
fn create_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn create_private(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::AdapterKind;

    fn adapter(name: &str, driver: &str) -> AdapterSummary {
        AdapterSummary {
            index: 0,
            name: name.to_owned(),
            backend: "vulkan".to_owned(),
            kind: AdapterKind::Discrete,
            pci_bus_id: None,
            driver: driver.to_owned(),
        }
    }

    #[test]
    fn another_driver_has_other_files() {
        let folder = Path::new("/cache");
        let path = |name, driver| AdapterStore::new(folder, &adapter(name, driver)).path("tuning");
        let card = path("Radeon RX 580 (RADV)", "Mesa 25.0.7");
        let name = card.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("radeon-rx-580--radv-"), "{name}");
        assert_eq!(card, path("Radeon RX 580 (RADV)", "Mesa 25.0.7"));
        assert_ne!(card, path("Radeon RX 580 (RADV)", "Mesa 25.1.0"));
        // A driver's words are no way out of the folder.
        assert_eq!(path("../../etc/x", "1").parent(), Some(folder));
    }

    #[test]
    fn files_come_back_unless_they_are_unfit() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("deep/er");
        let store = AdapterStore::new(&folder, &adapter("card", "1"));
        assert_eq!(store.read("x", 9), None);
        store.write("x", b"kept");
        store.write("x", b"kept too");
        assert_eq!(store.read("x", 8).as_deref(), Some(&b"kept too"[..]));
        assert_eq!(store.read("x", 7), None, "longer than allowed");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing unfinished stays");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(store.path("x"), fs::Permissions::from_mode(0o666)).unwrap();
            assert_eq!(store.read("x", 9), None, "anybody may have written it");
        }
        store.remove("x");
        fs::create_dir(store.path("x")).unwrap();
        assert_eq!(store.read("x", 9), None, "a folder is no file");
        store.write("x", b"cannot");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }
}
