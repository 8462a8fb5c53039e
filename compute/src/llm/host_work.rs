//! What a pass costs the host: CPU time of the calling thread from the first write of a pass until all of it
//! is submitted.
//!
//! It bounds tokens per second on a fast card, whatever the card. The thread's own time is taken, not
//! the wall's: on a busy machine the wall counts others too, and on a software adapter the driver
//! computes on threads of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::op::Phase;

/// Encoding and submitting of passes that decode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostWork {
    pub passes: u64,
    /// CPU time of the thread that called; zero where the system does not tell.
    pub time: Duration,
}

impl HostWork {
    /// Seconds per pass since `earlier`; nothing if there was none, or nothing is known.
    #[must_use]
    pub fn seconds_per_pass_since(&self, earlier: &Self) -> Option<f64> {
        let passes = self.passes.checked_sub(earlier.passes).filter(|passes| *passes > 0)?;
        let time = self.time.checked_sub(earlier.time).filter(|time| !time.is_zero())?;
        Some(time.as_secs_f64() / passes as f64)
    }
}

/// Adds up host work.
#[derive(Debug, Default)]
pub(super) struct HostClock {
    passes: AtomicU64,
    nanoseconds: AtomicU64,
}

impl HostClock {
    /// Begins a pass.
    pub fn begin(&self) -> Began {
        Began(thread_time())
    }

    /// All of a pass is submitted.
    pub fn submitted(&self, began: &Began, phase: Phase) {
        match phase {
            Phase::Prefill => {}
            Phase::Decode => {
                let spent = thread_time().zip(began.0).map(|(now, then)| now.saturating_sub(then));
                let nanoseconds = spent.unwrap_or_default().as_nanos() as u64;
                self.passes.fetch_add(1, Ordering::Relaxed);
                self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
            }
        }
    }

    pub fn read(&self) -> HostWork {
        HostWork {
            passes: self.passes.load(Ordering::Relaxed),
            time: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)),
        }
    }
}

/// A moment of the calling thread.
pub(super) struct Began(Option<Duration>);

#[cfg(target_os = "linux")]
fn thread_time() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::ThreadCPUTime).try_into().ok()
}

#[cfg(not(target_os = "linux"))]
fn thread_time() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_decoding_counts() {
        let clock = HostClock::default();
        let began = clock.begin();
        clock.submitted(&began, Phase::Prefill);
        assert_eq!(clock.read(), HostWork::default());
        let mut sum = 0_u64;
        for i in 0..1_000_000_u64 {
            sum = std::hint::black_box(sum.wrapping_mul(31) + i);
        }
        clock.submitted(&began, Phase::Decode);
        let first = clock.read();
        assert_eq!(first.passes, 1);
        assert_eq!(first.time.is_zero(), !cfg!(target_os = "linux"));
        assert_eq!(first.seconds_per_pass_since(&first), None);
        let known = first.seconds_per_pass_since(&HostWork::default());
        assert_eq!(known.is_some(), cfg!(target_os = "linux"));
    }
}
