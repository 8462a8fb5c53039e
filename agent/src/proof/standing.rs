//! What the proof side does, and since when: what a controller compares with what it expects of a rig.
//!
//! The word follows from a round, from jobs and from the model, each of which changes by itself. So it is worked out anew
//! whenever one of them may have changed, and only a word that differs from the last one begins a new time.

use std::sync::{Mutex, PoisonError};

use roadbed_protocol::{ProofActivity, UnixMillis};

/// The last word, and when it began.
#[derive(Default)]
pub(super) struct Standing(Mutex<Option<(ProofActivity, UnixMillis)>>);

impl Standing {
    /// What is done `now`; gives when that began.
    pub(super) fn note(&self, activity: ProofActivity, now: UnixMillis) -> UnixMillis {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((known, since)) if known == activity => since,
            Some(_) | None => {
                *last = Some((activity, now));
                now
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_begins_when_it_is_first_true() {
        let standing = Standing::default();
        let note = |activity, now| standing.note(activity, UnixMillis(now)).0;
        assert_eq!(note(ProofActivity::Idle, 5), 5);
        assert_eq!(note(ProofActivity::Idle, 9), 5);
        assert_eq!(note(ProofActivity::Generating, 10), 10);
        assert_eq!(note(ProofActivity::Generating, 90), 10);
        assert_eq!(note(ProofActivity::Idle, 91), 91);
    }
}
