//! Tries the forms of the hash kernel out on an adapter and keeps what was found.
//!
//! ```text
//! every kernel, workgroups of 64 -> right candidates? -> time -> the fastest, in other workgroups -> keep
//! ```
//! A form that the driver refuses or that finds other nonces than the CPU is dropped with a line in the log. What is
//! found is kept per adapter and driver, in a small file beside the compiled pipelines, and counts as long as the kernels'
//! texts are the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::gpu::GpuBackend;
use super::{HashError, ScanJob, Target};
use crate::gpu::{Gpu, GpuError, Stopwatch};
use crate::kernels::hash::{HashVariant, INTEGER_RATE, OPERATIONS_PER_TURN};

/// Ending of the file.
const FILE: &str = "hash.json";
/// A dozen trials.
const BYTES_MAX: u64 = 64 << 10;
/// Longest that trying out may take; whatever was not tried by then is not taken.
const TIME_GPU_MAX: Duration = Duration::from_secs(8);
/// A CPU driver compiles slowly, and whoever hashes on it has the CPU for it.
const TIME_SOFTWARE_MAX: Duration = Duration::from_secs(3);
/// Other sizes of a workgroup that the fastest kernel is tried with, where the adapter allows them.
const WORKGROUPS: [u32; 3] = [32, 128, 256];
/// Nonces that are checked: no multiple of anything, and past the wrap.
const CHECKED: u32 = 10_007;
const CHECKED_FROM: u32 = u32::MAX - 5_000;
/// Length of one measurement: far above the clock's grain and the cost of a submission.
const MEASUREMENT: Duration = Duration::from_millis(12);
/// Measurements of a form, the shortest of which counts.
const MEASUREMENTS: usize = 3;
/// How much faster than the untried form another must be, lest noise decides.
const ADVANTAGE_MIN: f64 = 1.03;

/// One form that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HashTrial {
    pub variant: HashVariant,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hashes_per_second: Option<f64>,
    /// Why it cannot be taken, if it cannot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dropped: Option<String>,
}

/// What was found on one adapter with one driver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HashTuning {
    /// Digest of all kernels' texts.
    kernels: String,
    pub chosen: HashVariant,
    pub trials: Vec<HashTrial>,
}

/// What was kept about this adapter, else what is found now, which is kept. A raised `stop` ends the search within one
/// form, some tenths of a second.
///
/// # Errors
/// A lost device, no form that works, or [`HashError::Stopped`].
pub fn choose(gpu: &Arc<Gpu>, stop: &AtomicBool) -> Result<HashTuning, HashError> {
    if let Some(known) = read(gpu) {
        return Ok(known);
    }
    try_out(gpu, stop)
}

/// Tries now, whatever was kept, and keeps what is found.
///
/// # Errors
/// As [`choose`].
pub fn try_out(gpu: &Arc<Gpu>, stop: &AtomicBool) -> Result<HashTuning, HashError> {
    let longest = if gpu.is_software() { TIME_SOFTWARE_MAX } else { TIME_GPU_MAX };
    let until = Instant::now() + longest;
    let stopwatch = Stopwatch::new(gpu)?;
    let mut trials = Vec::new();
    let mut candidates = HashVariant::kernels();
    // The untried form comes first, whatever the time.
    candidates.sort_by_key(|variant| *variant != HashVariant::UNTRIED);
    for variant in candidates {
        if trials.is_empty() || Instant::now() < until {
            proceed(stop)?;
            trials.push(trial(gpu, &stopwatch, variant)?);
        }
    }
    if let Some(best) = fastest(&trials).map(|trial| trial.variant) {
        let most = gpu.limits().max_compute_invocations_per_workgroup;
        for workgroup in WORKGROUPS.into_iter().filter(|workgroup| *workgroup <= most) {
            if Instant::now() < until {
                proceed(stop)?;
                let variant = HashVariant { workgroup, ..best };
                trials.push(trial(gpu, &stopwatch, variant)?);
            }
        }
    }
    let Some(best) = fastest(&trials) else {
        let why = trials.iter().find_map(|trial| trial.dropped.clone()).unwrap_or_default();
        let refused =
            GpuError::Refused { what: "every form of the hash kernel".into(), reason: why };
        return Err(refused.into());
    };
    let tuning = HashTuning { kernels: digest(), chosen: best.variant, trials: trials.clone() };
    tracing::info!(chosen = %tuning.chosen, adapter = %gpu.summary().name, "hash kernel chosen");
    write(gpu, &tuning);
    gpu.keep_pipelines();
    Ok(tuning)
}

fn proceed(stop: &AtomicBool) -> Result<(), HashError> {
    if stop.load(Ordering::Relaxed) { Err(HashError::Stopped) } else { Ok(()) }
}

/// The fastest; the untried form unless another is faster by more than noise.
fn fastest(trials: &[HashTrial]) -> Option<&HashTrial> {
    let rate = |trial: &HashTrial| trial.hashes_per_second.unwrap_or(0.0);
    let works = || trials.iter().filter(|trial| trial.hashes_per_second.is_some());
    let best = works().max_by(|a, b| rate(a).total_cmp(&rate(b)))?;
    let untried = works().find(|trial| trial.variant == HashVariant::UNTRIED);
    Some(untried.filter(|first| rate(best) < rate(first) * ADVANTAGE_MIN).unwrap_or(best))
}

/// Checks and times one form. Only a lost device is an error.
fn trial(
    gpu: &Arc<Gpu>,
    stopwatch: &Stopwatch,
    variant: HashVariant,
) -> Result<HashTrial, HashError> {
    match rate(gpu, stopwatch, variant) {
        Ok(rate) => Ok(HashTrial { variant, hashes_per_second: Some(rate), dropped: None }),
        Err(HashError::Gpu(error @ GpuError::Lost { .. })) => Err(error.into()),
        Err(error) => {
            tracing::warn!(%variant, %error, "a form of the hash kernel is dropped");
            Ok(HashTrial { variant, hashes_per_second: None, dropped: Some(error.to_string()) })
        }
    }
}

fn rate(gpu: &Arc<Gpu>, stopwatch: &Stopwatch, variant: HashVariant) -> Result<f64, HashError> {
    let mut backend = GpuBackend::with_variant(gpu.clone(), variant)?;
    check(&mut backend)?;
    let mut count = CHECKED;
    let mut time = backend.time(stopwatch, count)?;
    while time < MEASUREMENT && count < 1 << 30 {
        let ratio = MEASUREMENT.as_secs_f64() * 1.1 / time.as_secs_f64().max(1e-6);
        count = (f64::from(count) * ratio.clamp(1.2, 8.0)) as u32;
        time = backend.time(stopwatch, count)?;
    }
    for _ in 1..MEASUREMENTS {
        time = time.min(backend.time(stopwatch, count)?);
    }
    Ok(f64::from(count) / time.as_secs_f64().max(1e-9))
}

/// Holds a form against the CPU, nonce by nonce.
fn check(backend: &mut GpuBackend) -> Result<(), HashError> {
    let mut target = [0xFF; 32];
    target[0] = 0;
    let job = ScanJob::new(&std::array::from_fn(|i| i as u8), Target(target));
    let mut found =
        backend.candidates(&job, CHECKED_FROM, CHECKED)?.ok_or_else(|| wrong("too many"))?;
    found.sort_unstable_by_key(|nonce| nonce.wrapping_sub(CHECKED_FROM));
    let work = |nonce: &u32| job.midstate.double_hash(*nonce)[7] & job.mask == 0;
    let expected = (0..CHECKED).map(|i| CHECKED_FROM.wrapping_add(i)).filter(work);
    match found.into_iter().eq(expected) {
        true => Ok(()),
        false => Err(wrong("other")),
    }
}

fn wrong(how: &str) -> HashError {
    let reason = format!("it finds {how} nonces than the CPU");
    GpuError::Refused { what: "hash kernel".into(), reason }.into()
}

/// 32-bit integer instructions a second that the device does, the most of five measurements.
///
/// # Errors
/// When the device fails.
pub fn integer_rate(gpu: &Gpu) -> Result<f64, HashError> {
    const WORKGROUP: u32 = 64;
    const GROUPS: u32 = 1 << 12;
    let stopwatch = Stopwatch::new(gpu)?;
    let pipeline = gpu.pipeline(&INTEGER_RATE, &[("WORKGROUP", f64::from(WORKGROUP))])?;
    let params = gpu.uniform("integer rate", &[0_u32; 4])?;
    let sums = gpu.storage("integer rate", 4 << 10)?;
    let bound = gpu.bind(&pipeline, &[&params, &sums])?;
    let measure = |turns: u32| {
        gpu.write(&params, 0, bytemuck::bytes_of(&[turns, 1]));
        stopwatch.time(gpu, "integer rate", |pass| {
            Gpu::dispatch(pass, &pipeline, &bound, [GROUPS, 1, 1]);
        })
    };
    let mut turns = 8_u32;
    while measure(turns)? < MEASUREMENT && turns < 1 << 20 {
        turns *= 2;
    }
    let mut shortest = Duration::MAX;
    for _ in 0..5 {
        shortest = shortest.min(measure(turns)?);
    }
    let done = u64::from(GROUPS * WORKGROUP) * u64::from(turns) * OPERATIONS_PER_TURN;
    Ok(done as f64 / shortest.as_secs_f64().max(1e-9))
}

fn digest() -> String {
    let mut digest = Sha256::new();
    for variant in HashVariant::kernels() {
        digest.update(variant.kernel().source.text);
    }
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn read(gpu: &Gpu) -> Option<HashTuning> {
    let store = gpu.store()?;
    let data = store.read(FILE, BYTES_MAX)?;
    match serde_json::from_slice::<HashTuning>(&data) {
        Ok(tuning) => fits(&tuning, gpu).then_some(tuning),
        Err(error) => {
            store.passed_over(FILE, &error.to_string());
            None
        }
    }
}

/// Whether what was kept was found with today's kernels and can run.
fn fits(tuning: &HashTuning, gpu: &Gpu) -> bool {
    let sizes = 1..=gpu.limits().max_compute_invocations_per_workgroup;
    let tried = tuning.trials.iter().any(|trial| trial.variant == tuning.chosen);
    tuning.kernels == digest() && tried && sizes.contains(&tuning.chosen.workgroup)
}

fn write(gpu: &Gpu, tuning: &HashTuning) {
    let Some(store) = gpu.store() else { return };
    match serde_json::to_vec_pretty(tuning) {
        Ok(data) => store.write(FILE, &data),
        Err(error) => store.passed_over(FILE, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::hash::{Majority, Width};

    #[test]
    fn noise_does_not_replace_the_untried_form_and_what_fails_is_not_taken() {
        let trial = |width, rate| HashTrial {
            variant: HashVariant { width, majority: Majority::Or, workgroup: 64 },
            hashes_per_second: rate,
            dropped: rate.is_none().then(|| "wrong".to_owned()),
        };
        let (u32, vec2, vec4) = (Width::U32, Width::Vec2, Width::Vec4);
        let chosen = |trials: &[HashTrial]| fastest(trials).map(|trial| trial.variant.width);
        assert_eq!(chosen(&[trial(u32, Some(1.0)), trial(vec2, Some(1.02))]), Some(u32));
        assert_eq!(chosen(&[trial(u32, Some(1.0)), trial(vec2, Some(1.04))]), Some(vec2));
        assert_eq!(chosen(&[trial(u32, None), trial(vec4, Some(0.1))]), Some(vec4));
        assert_eq!(chosen(&[trial(u32, None)]), None);
    }
}
