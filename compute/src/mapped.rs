//! The bytes of a model file: mapped into memory, so that weights are read when they are packed and not
//! before, or owned by us.

use std::fs::File;
use std::io;
use std::path::Path;

pub(crate) enum Bytes {
    Mapped(memmap2::Mmap),
    Owned(Vec<u8>),
}

impl Bytes {
    /// Maps a file. It must not be truncated while it is open; `models pull` renames files into
    /// place only when they are complete and never rewrites one.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        // An empty file cannot be mapped everywhere.
        if file.metadata()?.len() == 0 {
            return Ok(Self::Owned(Vec::new()));
        }
        Ok(Self::Mapped(map(&file)?))
    }

    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

#[expect(
    unsafe_code,
    reason = "mapping a file is unsafe because another process may truncate it; see Bytes::open"
)]
fn map(file: &File) -> io::Result<memmap2::Mmap> {
    // SAFETY: the map is read-only and model files are never rewritten in place.
    unsafe { memmap2::Mmap::map(file) }
}
