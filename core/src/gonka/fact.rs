//! Something a Network Node said, with its age, or why there is none.

use roadbed_protocol::{Millis, UnixMillis};

/// Why later reads of a fact give nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// The first read that failed.
    pub since: UnixMillis,
    /// What went wrong, in one line.
    pub reason: String,
}

/// One thing that is read again and again. An old answer stays, and says that it is old.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Fact<T> {
    /// Never asked for.
    #[default]
    Unread,
    /// Asked for, never answered.
    Failing(Failing),
    /// The Network Node says that it does not have it (404, 405, 501).
    NotOffered {
        /// When it said so.
        at: UnixMillis,
    },
    /// It was answered.
    Read {
        /// What it said.
        value: T,
        /// When.
        at: UnixMillis,
        /// Set while later reads fail.
        failing: Option<Failing>,
    },
}

impl<T> Fact<T> {
    /// What was last said, however old, with when.
    #[must_use]
    pub const fn last(&self) -> Option<(&T, UnixMillis)> {
        match self {
            Self::Read { value, at, failing: _ } => Some((value, *at)),
            Self::Unread | Self::Failing(_) | Self::NotOffered { .. } => None,
        }
    }

    /// What was said at most `age_max` ago.
    #[must_use]
    pub fn fresh(&self, now: UnixMillis, age_max: Millis) -> Option<&T> {
        self.last().filter(|(_, at)| now.since(*at) <= age_max).map(|(value, _)| value)
    }

    /// Why there is nothing fresh, if reads fail.
    #[must_use]
    pub const fn failing(&self) -> Option<&Failing> {
        match self {
            Self::Failing(failing) | Self::Read { failing: Some(failing), .. } => Some(failing),
            Self::Unread | Self::NotOffered { .. } | Self::Read { failing: None, .. } => None,
        }
    }

    /// An answer came.
    pub fn answered(&mut self, value: T, at: UnixMillis) {
        *self = Self::Read { value, at, failing: None };
    }

    /// The Network Node does not have it.
    pub fn not_offered(&mut self, at: UnixMillis) {
        *self = Self::NotOffered { at };
    }

    /// A read failed: what was said before stays, with the time of the first failure in a row.
    pub fn failed(&mut self, at: UnixMillis, reason: String) {
        match self {
            Self::Unread | Self::NotOffered { .. } => {
                *self = Self::Failing(Failing { since: at, reason });
            }
            Self::Failing(failing) => failing.reason = reason,
            Self::Read { failing, .. } => {
                let since = failing.as_ref().map_or(at, |failing| failing.since);
                *failing = Some(Failing { since, reason });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_answer_stays_and_says_that_it_is_old() {
        let at = UnixMillis;
        let mut fact = Fact::default();
        fact.failed(at(1), "refused".into());
        fact.failed(at(2), "timed out".into());
        let failing = Failing { since: at(1), reason: "timed out".into() };
        assert_eq!((fact.failing(), fact.last()), (Some(&failing), None));
        fact.answered(7, at(10));
        assert_eq!((fact.fresh(at(15), Millis(5)), fact.failing()), (Some(&7), None));
        fact.failed(at(20), "refused".into());
        fact.failed(at(30), "refused".into());
        assert_eq!(fact.last(), Some((&7, at(10))));
        assert_eq!(fact.fresh(at(30), Millis(5)), None);
        assert_eq!(fact.failing().map(|failing| failing.since), Some(at(20)));
        fact.not_offered(at(40));
        assert_eq!((fact.last(), fact.failing()), (None, None));
    }
}
