//! A model of the Hub: ask what the repository holds, choose, see that there is room, fetch file by file.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::{PullError, at};
use super::file::{FileOrder, Tries, fetch};
use super::listing::{Listing, RemoteFile};
use super::manifest::{HubFolder, PulledFile};
use super::name::HubSource;
use super::part::Part;
use super::wire::{Hub, place};
use crate::engine::catalogue::ModelStore;
use crate::engine::space::require_space;

/// What happens during a pull, for a person to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullStep {
    /// A line.
    Said(String),
    /// A file begins, of which `done` bytes are here.
    Begins {
        /// Its path.
        file: String,
        /// Here already.
        done: u64,
        /// Its size, if known.
        total: Option<u64>,
    },
    /// So many bytes of it are here.
    At(u64),
    /// It is whole.
    Ends(u64),
}

/// An order to fetch.
pub struct HubPull<'p> {
    /// From where.
    pub hub: &'p Hub,
    /// Into which store.
    pub store: &'p ModelStore,
    /// What.
    pub source: &'p HubSource,
}

/// What is here now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The GGUF file (the first of a split one), or the folder of safetensors.
    pub path: PathBuf,
    /// The commit of the repository.
    pub commit: String,
    /// Every file, those that were here before included.
    pub files: Vec<PulledFile>,
}

/// Fetches what `order` names, unless it is here already.
///
/// # Errors
/// [`PullError`]; whole files stay, and so do the beginnings of others, from which the next pull goes on.
pub async fn pull_from_hub(
    order: HubPull<'_>,
    told: &mut (dyn FnMut(PullStep) + Send),
) -> Result<Pulled, PullError> {
    let HubPull { hub, store, source } = order;
    let listing = list(hub, source).await?;
    let chosen = listing.choose(source)?;
    let folder = store.folder_of(source);
    let mut files = Vec::with_capacity(chosen.len());
    let mut missing = Vec::new();
    for remote in &chosen {
        match here_already(&folder, remote, &listing.sha) {
            Some(file) => files.push(file),
            None => missing.push(remote),
        }
    }
    for file in &files {
        told(PullStep::Said(format!("{} is here already", file.path)));
    }
    let orders: Vec<FileOrder> = missing
        .iter()
        .map(|remote| file_order(hub, source, &folder, &listing.sha, remote))
        .collect();
    require_space(&folder, orders.iter().map(bytes_to_come).sum())?;
    for (remote, order) in missing.iter().zip(orders) {
        if let Some(parent) = order.target.parent() {
            fs::create_dir_all(parent).map_err(at(parent))?;
        }
        let done = part_bytes(&order);
        told(PullStep::Begins { file: remote.path.clone(), done, total: order.bytes });
        let fetched = fetch(hub, &order, &mut |bytes| told(PullStep::At(bytes))).await?;
        told(PullStep::Ends(fetched.bytes));
        let file = PulledFile {
            path: remote.path.clone(),
            bytes: fetched.bytes,
            sha256: fetched.sha256,
            commit: listing.sha.clone(),
        };
        HubFolder::record(&folder, &source.repo(), file.clone())?;
        files.push(file);
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let path = match files.first() {
        Some(first) if first.path.to_ascii_lowercase().ends_with(".gguf") => {
            folder.join(&first.path)
        }
        Some(_) | None => folder,
    };
    Ok(Pulled { path, commit: listing.sha, files })
}

async fn list(hub: &Hub, source: &HubSource) -> Result<Listing, PullError> {
    let SourceParts { organisation, repository, revision } = parts(source);
    let mut url = hub.address(&["api", "models", organisation, repository, "revision", revision]);
    url.set_query(Some("blobs=true"));
    let mut tries = Tries::new(hub, &url);
    loop {
        match hub.get_json(&url).await {
            Ok(document) => return Listing::parse(&place(&url), &document),
            Err(setback) => tries.after(setback).await?,
        }
    }
}

struct SourceParts<'s> {
    organisation: &'s str,
    repository: &'s str,
    revision: &'s str,
}

fn parts(source: &HubSource) -> SourceParts<'_> {
    SourceParts {
        organisation: &source.organisation,
        repository: &source.repository,
        revision: &source.revision,
    }
}

/// The file in the folder, if it is the one the repository means. A file without a sum there counts only for the
/// commit it was fetched at.
fn here_already(folder: &Path, remote: &RemoteFile, commit: &str) -> Option<PulledFile> {
    let manifest = HubFolder::load(folder)?;
    let here = manifest.holds(folder, &remote.path)?;
    let same = match &remote.sha256 {
        Some(sum) => *sum == here.sha256,
        None => here.commit == commit,
    };
    same.then(|| here.clone())
}

fn file_order(
    hub: &Hub,
    source: &HubSource,
    folder: &Path,
    commit: &str,
    remote: &RemoteFile,
) -> FileOrder {
    // By commit, not by branch: what the listing says of sizes and sums must be true of what comes.
    let SourceParts { organisation, repository, .. } = parts(source);
    let mut address = vec![organisation, repository, "resolve", commit];
    address.extend(remote.path.split('/'));
    FileOrder {
        url: hub.address(&address),
        target: folder.join(&remote.path),
        bytes: remote.bytes,
        sha256: remote.sha256.clone(),
        key: remote.sha256.clone().unwrap_or_else(|| commit.to_owned()),
    }
}

fn part_bytes(order: &FileOrder) -> u64 {
    let part = Part::path_of(&order.target, &order.key);
    fs::metadata(part).map_or(0, |metadata| metadata.len())
}

fn bytes_to_come(order: &FileOrder) -> u64 {
    order.bytes.map_or(0, |bytes| bytes.saturating_sub(part_bytes(order)))
}
