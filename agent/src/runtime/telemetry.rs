//! Samples of one rig on their way into the journal.

use std::time::{Duration, Instant};

use roadbed_protocol::TelemetrySample;

use crate::journal::SAMPLES_MAX;

/// A row a second at most while the controller listens.
const ROW_SPACING: Duration = Duration::from_secs(1);
/// While nobody listens rows are larger; what a crash may lose is this much of telemetry and nothing else.
const UNHEARD_SPACING: Duration = Duration::from_secs(60);

/// Collects samples into rows.
#[derive(Debug)]
pub(super) struct SampleBuffer {
    samples: Vec<TelemetrySample>,
    written_at: Instant,
}

impl SampleBuffer {
    pub(super) fn new(now: Instant) -> Self {
        Self { samples: Vec::new(), written_at: now }
    }

    /// Adds a sample. If rows could not be written for so long that the buffer is full, the oldest is lost.
    pub(super) fn push(&mut self, sample: TelemetrySample) {
        if self.samples.len() == SAMPLES_MAX {
            self.samples.remove(0);
            tracing::warn!("a telemetry sample is lost: the journal takes none");
        }
        self.samples.push(sample);
    }

    /// The row that is due, if one is.
    pub(super) fn due(&mut self, now: Instant, heard: bool) -> Option<Vec<TelemetrySample>> {
        let spacing = if heard { ROW_SPACING } else { UNHEARD_SPACING };
        let waited = now.saturating_duration_since(self.written_at) >= spacing;
        if self.samples.is_empty() || !(waited || self.samples.len() == SAMPLES_MAX) {
            return None;
        }
        self.written_at = now;
        Some(std::mem::take(&mut self.samples))
    }

    /// Everything, at the end.
    pub(super) fn rest(&mut self) -> Option<Vec<TelemetrySample>> {
        (!self.samples.is_empty()).then(|| std::mem::take(&mut self.samples))
    }

    /// A row that could not be written comes back, as far as there is room.
    pub(super) fn put_back(&mut self, mut row: Vec<TelemetrySample>) {
        row.append(&mut self.samples);
        let excess = row.len().saturating_sub(SAMPLES_MAX);
        row.drain(..excess);
        self.samples = row;
    }
}

#[cfg(test)]
mod tests {
    use roadbed_protocol::{
        JobCounters, Millis, PowerReading, PowerSource, RigState, UnixMillis, Watts,
    };

    use super::*;

    fn sample(at: i64) -> TelemetrySample {
        TelemetrySample {
            at: UnixMillis(at),
            span: Millis(1),
            power: PowerReading { watts: Watts(1), source: PowerSource::Profile },
            workload: None,
            state: RigState::Idle,
            hashrate: None,
            temperature: None,
            jobs: JobCounters::default(),
        }
    }

    #[test]
    fn rows_are_spaced_and_bounded() {
        let start = Instant::now();
        let mut buffer = SampleBuffer::new(start);
        assert_eq!(buffer.due(start + ROW_SPACING, true), None, "nothing to write");
        buffer.push(sample(0));
        assert_eq!(buffer.due(start, true), None);
        assert_eq!(buffer.due(start + ROW_SPACING, false), None);
        assert_eq!(buffer.due(start + ROW_SPACING, true).unwrap().len(), 1);
        for at in 0..=SAMPLES_MAX as i64 {
            buffer.push(sample(at));
        }
        let row = buffer.due(start + ROW_SPACING, false).unwrap();
        assert_eq!((row.len(), row[0].at), (SAMPLES_MAX, UnixMillis(1)));
        buffer.push(sample(99));
        buffer.put_back(row);
        let rest = buffer.rest().unwrap();
        assert_eq!((rest.len(), rest[0].at), (SAMPLES_MAX, UnixMillis(2)));
        assert_eq!(buffer.rest(), None);
    }
}
