//! The log lines of a stream of views, each once.

use crate::view::{FarmView, LogLine};

/// Remembers how far the log was told.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    last: Vec<LogLine>,
}

/// Lines by which the last told place is found again: one may be repeated, five in a row hardly.
const MEMORY: usize = 5;

impl Decisions {
    /// Lines that were not told before, oldest first.
    pub fn news(&mut self, view: &FarmView) -> Vec<LogLine> {
        let log = &view.log;
        let known = self.last.len();
        let after = (known > 0)
            .then(|| (known..=log.len()).rev().find(|end| log[end - known..*end] == self.last[..]))
            .flatten()
            .unwrap_or(0);
        let news = log[after..].to_vec();
        self.last = log[log.len().saturating_sub(MEMORY)..].to_vec();
        news
    }
}

#[cfg(test)]
mod tests {
    use roadbed_protocol::UnixMillis;

    use super::*;
    use crate::view::Severity;

    fn view(lines: std::ops::Range<i64>) -> FarmView {
        let log = lines.map(|at| LogLine {
            at: UnixMillis(at),
            severity: Severity::Info,
            rig: None,
            text: "line".into(),
        });
        FarmView { log: log.collect(), ..FarmView::default() }
    }

    #[test]
    fn every_line_is_told_once() {
        let mut decisions = Decisions::default();
        let mut told = |range| {
            let news = decisions.news(&view(range));
            news.into_iter().map(|line| line.at.0).collect::<Vec<_>>()
        };
        assert_eq!(told(0..0), Vec::<i64>::new());
        assert_eq!(told(0..2), vec![0, 1]);
        assert_eq!(told(0..2), Vec::<i64>::new());
        assert_eq!(told(0..9), vec![2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(told(3..11), vec![9, 10]);
    }
}
