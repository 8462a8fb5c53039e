//! How far a long job is, on standard error: a bar that redraws itself on a terminal, a line now and then elsewhere.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Redraws on a terminal; more often only flickers.
const REDRAW_EVERY: Duration = Duration::from_millis(200);
/// Lines into a log.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// The rate shown is that of this long ago until now, so that a stall shows.
const RATE_OVER: Duration = Duration::from_secs(10);
const BAR_CELLS: u64 = 24;

/// What a job's amounts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things of this name.
    Count(&'static str),
}

impl Unit {
    /// An amount as a person reads it.
    fn amount(self, count: u64) -> String {
        match self {
            Self::Bytes => bytes(count),
            Self::Count(_) => count.to_string(),
        }
    }

    fn rate(self, per_second: f64) -> String {
        match self {
            Self::Bytes => format!("{}/s", bytes(per_second as u64)),
            Self::Count(name) => format!("{:.1} {name} a minute", per_second * 60.0),
        }
    }
}

/// Bytes, or things, done of a job.
pub struct Progress {
    unit: Unit,
    label: String,
    total: Option<u64>,
    terminal: bool,
    shown_at: Option<Instant>,
    /// When so many bytes were done, oldest first; at most one entry a redraw.
    seen: VecDeque<(Instant, u64)>,
    drawn: usize,
}

impl Progress {
    /// A job that begins at `done` of `total` bytes, because a part was there already.
    #[must_use]
    pub fn new(label: &str, done: u64, total: Option<u64>) -> Self {
        Self::of(Unit::Bytes, label, done, total)
    }

    /// A job that begins at `done` of `total` of a unit.
    #[must_use]
    pub fn of(unit: Unit, label: &str, done: u64, total: Option<u64>) -> Self {
        Self {
            unit,
            label: label.to_owned(),
            total,
            terminal: io::stderr().is_terminal(),
            shown_at: None,
            seen: VecDeque::from([(Instant::now(), done)]),
            drawn: 0,
        }
    }

    /// Shows that `done` bytes are done, if it is time to show something.
    pub fn at(&mut self, done: u64) {
        let now = Instant::now();
        let every = if self.terminal { REDRAW_EVERY } else { LINE_EVERY };
        let last = self.shown_at.or_else(|| self.seen.front().map(|(at, _)| *at));
        if last.is_none_or(|last| now.duration_since(last) >= every) {
            self.show(now, done);
        }
    }

    /// Shows the last state and leaves the line.
    pub fn end(&mut self, done: u64) {
        self.show(Instant::now(), done);
        self.leave();
    }

    /// Leaves the line as it is, so that something else can be written.
    pub fn leave(&mut self) {
        if self.terminal && self.drawn > 0 {
            eprintln!();
            self.drawn = 0;
        }
    }

    fn show(&mut self, now: Instant, done: u64) {
        self.shown_at = Some(now);
        while self.seen.len() > 1
            && self.seen.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= RATE_OVER)
        {
            self.seen.pop_front();
        }
        let rate = self.seen.front().map_or(0.0, |(at, before)| {
            let seconds = now.duration_since(*at).as_secs_f64();
            if seconds > 0.0 { done.saturating_sub(*before) as f64 / seconds } else { 0.0 }
        });
        self.seen.push_back((now, done));
        let line = line(self.unit, &self.label, done, self.total, rate, self.terminal);
        if self.terminal {
            let width = line.chars().count();
            // A standard error that is gone is no reason to stop the job.
            drop(write!(io::stderr(), "\r{line}{:1$}", "", self.drawn.saturating_sub(width)));
            drop(io::stderr().flush());
            self.drawn = width;
        } else {
            eprintln!("{line}");
        }
    }
}

fn line(unit: Unit, label: &str, done: u64, total: Option<u64>, rate: f64, bar: bool) -> String {
    let speed = if rate > 0.0 { format!("  {}", unit.rate(rate)) } else { String::new() };
    let Some(total) = total.filter(|total| *total > 0) else {
        return format!("{label}  {}{speed}", unit.amount(done));
    };
    let share = done.min(total) as f64 / total as f64;
    let cells = (share * BAR_CELLS as f64) as usize;
    let drawn = if bar {
        format!("  [{}{}]", "#".repeat(cells), ".".repeat(BAR_CELLS as usize - cells))
    } else {
        String::new()
    };
    let left = if rate > 0.0 && done < total {
        format!("  {} left", duration((total - done) as f64 / rate))
    } else {
        String::new()
    };
    let percent = (share * 100.0) as u64;
    let (done, total) = (unit.amount(done), unit.amount(total));
    format!("{label}{drawn}  {percent:>3} %  {done} of {total}{speed}{left}")
}

/// Bytes as a person reads them, in powers of ten.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut size = count as f64;
    let mut unit = 0;
    while size >= 999.5 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ if size < 9.995 => format!("{size:.2} {}", UNITS[unit]),
        _ if size < 99.95 => format!("{size:.1} {}", UNITS[unit]),
        _ => format!("{size:.0} {}", UNITS[unit]),
    }
}

fn duration(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let check = |done, total, rate, bar, expected: &str| {
            assert_eq!(line(Unit::Bytes, "m", done, total, rate, bar), expected);
        };
        check(
            44_000_000,
            Some(98_400_000),
            1.2e6,
            false,
            "m   44 %  44.0 MB of 98.4 MB  1.20 MB/s  46 s left",
        );
        check(5, Some(10), 0.0, true, "m  [############............]   50 %  5 B of 10 B");
        check(10, Some(10), 3.0, false, "m  100 %  10 B of 10 B  3 B/s");
        check(12_345, None, 0.0, true, "m  12.3 kB");
        check(0, Some(0), 0.0, true, "m  0 B");
        // A server that sends more than it said breaks nothing.
        check(20, Some(10), 1.0, false, "m  100 %  20 B of 10 B  1 B/s");
        let nonces = line(Unit::Count("nonces"), "m", 3, Some(12), 0.5, false);
        assert_eq!(nonces, "m   25 %  3 of 12  30.0 nonces a minute  18 s left");
    }

    #[test]
    fn sizes_and_times_are_readable() {
        let sizes: Vec<String> =
            [999, 1000, 1_234_567, 98_362_432, 1_000_000_000_000_000].map(bytes).into();
        assert_eq!(sizes, ["999 B", "1.00 kB", "1.23 MB", "98.4 MB", "1000 TB"]);
        assert_eq!([59.1, 61.0, 7260.0].map(duration), ["1 min 00 s", "1 min 01 s", "2 h 01 min"]);
    }
}
