//! The day that is run: which hours, how fast, and where the proofs fall in it.

use anyhow::ensure;
use farm_core::plan::Commitment;
use roadbed_protocol::{Millis, UnixMillis};

use super::DemoSettings;
use crate::clock::{FarmClock, wall_now};
use crate::config::{Site, local_midnight};

/// Minutes in a day.
const DAY_MINUTES: f64 = 1_440.0;
/// Wall minutes a day may take: faster, no proof fits into its window; slower, nobody waits.
const MINUTES_MIN: f64 = 1.0;
const MINUTES_MAX: f64 = 1_440.0;
/// Share of a window in which artifacts are generated, in percent; the rest is for validation, which computes eight nonces
/// and on a busy two-core machine needs most of a minute of the wall.
const GENERATION_PERCENT: u64 = 30;

/// The day of a demo.
#[derive(Debug, Clone, PartialEq)]
pub struct Day {
    /// Every process's clock.
    pub clock: FarmClock,
    /// First moment.
    pub start: UnixMillis,
    /// Last moment.
    pub end: UnixMillis,
    /// The proofs that lie wholly inside.
    pub windows: Vec<Window>,
}

/// A Proof of Compute window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Name of the commitment.
    pub id: String,
    /// Generation begins.
    pub from: UnixMillis,
    /// Validation begins.
    pub generate_until: UnixMillis,
    /// The window ends.
    pub until: UnixMillis,
}

impl Day {
    /// The day of the site's first commitment, at the wished speed.
    ///
    /// # Errors
    /// When the wishes make no day.
    pub fn of(settings: &DemoSettings, site: &Site) -> anyhow::Result<Self> {
        ensure!(
            (MINUTES_MIN..=MINUTES_MAX).contains(&settings.minutes),
            "--minutes {} is not usable; expected {MINUTES_MIN} to {MINUTES_MAX}",
            settings.minutes
        );
        ensure!(
            (1..=24).contains(&settings.hours),
            "--hours {} is not usable; expected 1 to 24",
            settings.hours
        );
        let first = site.commitments.iter().map(|commitment| commitment.from).min();
        let Some(first) = first else {
            anyhow::bail!("the demo's site has no commitment to prove")
        };
        let midnight = local_midnight(first, site.utc_offset_minutes);
        let start = midnight + Millis::from_mins(u64::from(settings.from.0));
        let end = start + Millis::from_hours(settings.hours);
        let clock = FarmClock {
            rate: DAY_MINUTES / settings.minutes,
            farm_origin_ms: start.0,
            wall_origin_ms: wall_now().0,
        };
        let inside = |commitment: &&Commitment| {
            start <= commitment.from - commitment.load_lead && commitment.until <= end
        };
        let windows = site.commitments.iter().filter(inside).map(Window::of).collect();
        Ok(Self { clock, start, end, windows })
    }
}

impl Window {
    fn of(commitment: &Commitment) -> Self {
        let span = commitment.until.since(commitment.from).0;
        Self {
            id: commitment.id.clone(),
            from: commitment.from,
            generate_until: commitment.from + Millis(span * GENERATION_PERCENT / 100),
            until: commitment.until,
        }
    }
}
