//! One file, fetched to its end however often the line breaks.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::StatusCode;
use url::Url;

use super::error::PullError;
use super::part::Part;
use super::wire::{Answer, Hub, Setback, is_sha256, place};

/// A try that brought this much counts as none in vain: a line that breaks every few minutes still gets a large file
/// across, one that brings next to nothing does not keep us for ever.
const PROGRESS_BYTES: u64 = 1 << 20;

/// A file to be fetched.
pub(super) struct FileOrder {
    pub(super) url: Url,
    pub(super) target: PathBuf,
    /// Its size, if the listing has it.
    pub(super) bytes: Option<u64>,
    /// Its SHA-256, lower-case hex, if the listing has it.
    pub(super) sha256: Option<String>,
    /// What tells this content from another under the same name.
    pub(super) key: String,
}

/// What came.
pub(super) struct FetchedFile {
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// Counts tries in vain and waits between them.
pub(super) struct Tries<'h> {
    hub: &'h Hub,
    place: String,
    vain: u32,
}

impl<'h> Tries<'h> {
    pub(super) fn new(hub: &'h Hub, url: &Url) -> Self {
        Self { hub, place: place(url), vain: 0 }
    }

    fn came(&mut self, bytes: u64) {
        if bytes >= PROGRESS_BYTES {
            self.vain = 0;
        }
    }

    /// Waits before the next try, or gives up.
    pub(super) async fn after(&mut self, setback: Setback) -> Result<(), PullError> {
        let patience = &self.hub.patience;
        let (reason, retry_after) = match setback {
            Setback::Final(error) => return Err(error),
            Setback::Passing { reason, retry_after } => (reason, retry_after),
        };
        self.vain += 1;
        let asked = retry_after.unwrap_or_default();
        if self.vain >= patience.tries_max || asked > patience.wait_max {
            let advice = retry_after.map_or(String::new(), |after| {
                format!(", and asks to come back in {} s", after.as_secs())
            });
            let (place, tries) = (self.place.clone(), self.vain);
            return Err(PullError::Unreachable { place, reason, tries, advice });
        }
        let doubled = patience.first_wait.saturating_mul(1 << (self.vain - 1).min(16));
        let wait = doubled.max(asked).min(patience.wait_max);
        tracing::warn!(place = self.place, reason, wait_ms = millis(wait), "trying again");
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Fetches a file; `told` hears how many bytes are here. What is here already is not fetched again.
pub(super) async fn fetch(
    hub: &Hub,
    order: &FileOrder,
    told: &mut (dyn FnMut(u64) + Send),
) -> Result<FetchedFile, PullError> {
    let mut part = Part::open(&order.target, &order.key)?;
    let mut fetch = Fetch { hub, order, bytes: order.bytes, sha256: order.sha256.clone() };
    let mut tries = Tries::new(hub, &order.url);
    // A part from an earlier run may be spoilt; then the file is fetched once more from its beginning.
    let mut may_be_spoilt = part.bytes() > 0;
    loop {
        let before = part.bytes();
        let outcome = fetch.attempt(&mut part, told).await;
        tries.came(part.bytes().saturating_sub(before));
        match outcome {
            Ok(()) => {}
            Err(setback) => {
                tries.after(setback).await?;
                continue;
            }
        }
        let found = part.sha256();
        match &fetch.sha256 {
            Some(expected) if *expected != found => {
                if may_be_spoilt {
                    may_be_spoilt = false;
                    part.clear()?;
                    continue;
                }
                part.discard()?;
                let (place, expected) = (place(&order.url), expected.clone());
                return Err(PullError::WrongSum { place, found, expected });
            }
            Some(_) | None => {}
        }
        let bytes = part.bytes();
        part.finish(&order.target)?;
        return Ok(FetchedFile { bytes, sha256: found });
    }
}

struct Fetch<'f> {
    hub: &'f Hub,
    order: &'f FileOrder,
    /// As the listing or the first answer has it.
    bytes: Option<u64>,
    sha256: Option<String>,
}

impl Fetch<'_> {
    /// Tries to fetch what is missing.
    async fn attempt(
        &mut self,
        part: &mut Part,
        told: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), Setback> {
        if self.bytes.is_some_and(|bytes| part.bytes() > bytes) {
            part.clear()?;
        }
        if self.bytes == Some(part.bytes()) {
            told(part.bytes());
            return Ok(());
        }
        let mut answer = self.hub.get(&self.order.url, part.bytes()).await?;
        self.begin(&answer, part)?;
        told(part.bytes());
        while let Some(piece) = answer.next().await? {
            let after = part.bytes() + piece.len() as u64;
            if let Some(bytes) = self.bytes.filter(|bytes| after > *bytes) {
                return Err(self.wrong_size(after, bytes));
            }
            part.append(&piece)?;
            told(after);
        }
        match self.bytes {
            Some(bytes) if part.bytes() < bytes => Err(Setback::passing(format!(
                "the answer ended {} bytes early",
                bytes - part.bytes()
            ))),
            Some(_) | None => Ok(()),
        }
    }

    /// Checks what the answer says of itself, and goes back to the beginning if it begins there.
    fn begin(&mut self, answer: &Answer, part: &mut Part) -> Result<(), Setback> {
        let whole = if answer.status == StatusCode::PARTIAL_CONTENT {
            let (first, whole) = answer.range.ok_or_else(|| {
                self.bad_answer("a part of the file without saying which part".into())
            })?;
            if first != part.bytes() {
                part.clear()?;
                return Err(Setback::passing("the server sent another part than was asked for"));
            }
            whole
        } else if answer.status == StatusCode::RANGE_NOT_SATISFIABLE {
            if part.bytes() == 0 {
                return Err(self.bad_answer("HTTP 416 to a plain request".into()));
            }
            part.clear()?;
            return Err(Setback::passing("what is here is longer than the file"));
        } else {
            // The whole file, asked for or not.
            if part.bytes() > 0 {
                part.clear()?;
            }
            answer.length
        };
        match (self.bytes, whole) {
            (Some(bytes), Some(whole)) if whole != bytes => {
                return Err(self.wrong_size(whole, bytes));
            }
            (None, whole) => self.bytes = whole,
            (Some(_), _) => {}
        }
        // The listing's sum counts more: both come from the Hub, but the listing was asked for.
        if self.sha256.is_none() {
            self.sha256 = answer.linked_sha256.clone().filter(|sum| is_sha256(sum));
        }
        Ok(())
    }

    fn wrong_size(&self, found: u64, expected: u64) -> Setback {
        PullError::WrongSize { place: place(&self.order.url), found, expected }.into()
    }

    fn bad_answer(&self, reason: String) -> Setback {
        PullError::BadAnswer { place: place(&self.order.url), reason }.into()
    }
}
