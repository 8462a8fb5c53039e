//! A file that is being fetched: hidden, locked against a second process, summed while it grows.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::error::{PullError, at};

/// Digits of the key in the name: two contents of one name do not share a part.
const KEY_DIGITS: usize = 16;

pub(super) struct Part {
    path: PathBuf,
    file: File,
    sum: Sha256,
    bytes: u64,
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Part {
    /// Where the unfinished file of `target` lies while the content is the one called `key`.
    pub(super) fn path_of(target: &Path, key: &str) -> PathBuf {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let digits: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
        target.with_file_name(format!(".{name}.{digits:.KEY_DIGITS$}.part"))
    }

    /// Opens what is there and sums it, or begins with nothing.
    pub(super) fn open(target: &Path, key: &str) -> Result<Self, PullError> {
        let path = Self::path_of(target, key);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(at(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(PullError::Busy { path }),
            Err(TryLockError::Error(source)) => return Err(PullError::Disk { path, source }),
        }
        let mut part = Self { path, file, sum: Sha256::new(), bytes: 0 };
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = part.file.read(&mut buffer).map_err(at(&part.path))?;
            if count == 0 {
                return Ok(part);
            }
            part.sum.update(&buffer[..count]);
            part.bytes += count as u64;
        }
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn append(&mut self, data: &[u8]) -> Result<(), PullError> {
        self.file.write_all(data).map_err(at(&self.path))?;
        self.sum.update(data);
        self.bytes += data.len() as u64;
        Ok(())
    }

    /// Forgets everything fetched so far.
    pub(super) fn clear(&mut self) -> Result<(), PullError> {
        self.file.set_len(0).map_err(at(&self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(at(&self.path))?;
        self.sum = Sha256::new();
        self.bytes = 0;
        Ok(())
    }

    /// SHA-256 of what is here, lower-case hex.
    pub(super) fn sha256(&self) -> String {
        hex(&self.sum.clone().finalize())
    }

    /// Makes it the file `target`.
    pub(super) fn finish(self, target: &Path) -> Result<(), PullError> {
        self.file.sync_all().map_err(at(&self.path))?;
        fs::rename(&self.path, target).map_err(at(target))
    }

    /// Leaves nothing.
    pub(super) fn discard(self) -> Result<(), PullError> {
        fs::remove_file(&self.path).map_err(at(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_goes_on_where_it_was_and_belongs_to_one() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("m.gguf");
        let mut part = Part::open(&target, "abc").unwrap();
        part.append(b"hel").unwrap();
        assert!(matches!(Part::open(&target, "abc"), Err(PullError::Busy { .. })));
        assert_eq!(Part::open(&target, "other").unwrap().bytes(), 0);
        drop(part);
        let mut part = Part::open(&target, "abc").unwrap();
        assert_eq!(part.bytes(), 3);
        part.append(b"lo").unwrap();
        let sum = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(part.sha256(), sum);
        part.clear().unwrap();
        part.append(b"hello").unwrap();
        assert_eq!((part.sha256().as_str(), part.bytes()), (sum, 5));
        part.finish(&target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"hello");
    }
}
