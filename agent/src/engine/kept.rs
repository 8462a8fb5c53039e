//! The folder in which engines keep what makes the next start faster: compiled pipelines, and which kernels
//! are the fastest on each adapter.
//!
//! All of it can be made again, so a rig without such a folder works as well, only slower at first.

use std::path::{Path, PathBuf};

use roadbed_compute::llm::Tuning;

/// `$ROADBED_CACHE`, else what systemd gives the service (`CacheDirectory=`), else `~/.cache/roadbed`; in it a folder
/// for GPUs. Nothing where none of them is known.
#[must_use]
pub fn kept_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let given = set("ROADBED_CACHE").or_else(|| set("CACHE_DIRECTORY")).map(PathBuf::from);
    given
        .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache/roadbed")))
        .map(|folder| folder.join("gpu"))
}

/// `$ROADBED_TUNING`: `off`, `stored` or `again`; as was found before unless set.
#[must_use]
pub fn tuning() -> Tuning {
    let word = std::env::var("ROADBED_TUNING").unwrap_or_default();
    match word.as_str() {
        "off" => Tuning::Off,
        "again" => Tuning::Again,
        "stored" | "" => Tuning::Stored,
        _ => {
            tracing::warn!(word, "ROADBED_TUNING is off, stored or again; taken as stored");
            Tuning::Stored
        }
    }
}
