//! Models cut into several files, as `llama-gguf-split` cuts them: `NAME-00001-of-00003.gguf` and on.
//!
//! The first file has all metadata; each has a part of the tensors and says which part it is.

use std::path::{Path, PathBuf};

use super::error::GgufError;
use super::{GgufFile, Metadata};

/// Most files of a model; the largest published have some dozens.
const FILES_MAX: usize = 1024;
const COUNT: &str = "split.count";

fn bad(reason: impl Into<String>) -> GgufError {
    GgufError::Metadata { key: COUNT.to_owned(), reason: reason.into() }
}

fn count(metadata: &Metadata) -> Result<usize, GgufError> {
    Ok(metadata.count(COUNT)?.unwrap_or(1).max(1))
}

/// Joins the other files of the model that `first`, found at `path`, begins, if there are any.
pub(super) fn join(path: &Path, mut first: GgufFile) -> Result<GgufFile, GgufError> {
    let files = count(&first.metadata)?;
    if files == 1 {
        return Ok(first);
    }
    if files > FILES_MAX {
        return Err(bad(format!("{files} files; the limit is {FILES_MAX}")));
    }
    for number in 1..files {
        let sibling = sibling(path, number, files)?;
        let next = GgufFile::open_one(&sibling)?;
        let part = (next.metadata.count("split.no")?, count(&next.metadata)?);
        if part != (Some(number), files) {
            return Err(bad(format!("{} is not part {number} of {files}", sibling.display())));
        }
        let file = first.files.len();
        first.files.extend(next.files);
        for (name, mut entry) in next.tensors {
            entry.file = file;
            if let Some(twin) = first.tensors.insert(name, entry) {
                return Err(GgufError::Tensor {
                    name: twin.name,
                    reason: format!("is in {} and in a file before it", sibling.display()),
                });
            }
        }
    }
    match first.metadata.count("split.tensors.count")? {
        Some(all) if all != first.tensors.len() => {
            Err(bad(format!("{} tensors of {all} were found", first.tensors.len())))
        }
        Some(_) | None => Ok(first),
    }
}

/// File `number`, counted from 0, beside the first.
fn sibling(first: &Path, number: usize, files: usize) -> Result<PathBuf, GgufError> {
    let ending = |number: usize| format!("-{:05}-of-{files:05}.gguf", number + 1);
    let name = first.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    match name.strip_suffix(&ending(0)) {
        Some(stem) => Ok(first.with_file_name(format!("{stem}{}", ending(number)))),
        None => Err(bad(format!(
            "the model has {files} files: open the one that ends in {}, with the others beside it",
            ending(0)
        ))),
    }
}
