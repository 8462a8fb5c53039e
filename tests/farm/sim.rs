//! Whole farms by seed, and proof that the checkers can fail.

use farm_core::farm::FarmSettings;
use farm_tests::sim::{Failure, Options, Summary, Trouble, run};
use roadbed_protocol::Watts;

/// Seeds of the ordinary test run.
const SEEDS: u64 = 200;

fn fail(failure: &Failure) -> ! {
    panic!("{failure}")
}

#[test]
fn two_hundred_farms_survive_everything() {
    if let Ok(text) = std::env::var("ROADBED_SIM_SEED") {
        let seed = text.parse().expect("ROADBED_SIM_SEED is a number");
        match run(Options { trace: true, ..Options::of(seed) }) {
            Ok(mut summary) => {
                for line in std::mem::take(&mut summary.trace) {
                    println!("{line}");
                }
                println!("{summary:?}");
            }
            Err(failure) => fail(&failure),
        }
        return;
    }
    let count = std::env::var("ROADBED_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    let total = run_all(count.unwrap_or(SEEDS));
    println!("{total:?}");
    // A simulation in which nothing happens proves nothing.
    assert!(total.faults > 1_000 && total.switches > 1_000 && total.artifacts > 1_000, "{total:?}");
}

/// Runs seeds 0 to `count` on every core; the first failure, by seed, ends the test.
fn run_all(count: u64) -> Summary {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let share = |first: u64| (first..count).step_by(threads as usize);
    let results: Vec<Result<Summary, Failure>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|first| {
                scope.spawn(move || {
                    share(first).map(|seed| run(Options::of(seed))).collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let failures = results.iter().filter_map(|result| result.as_ref().err());
    if let Some(first) = failures.min_by_key(|failure| failure.seed) {
        fail(first);
    }
    let mut total = Summary::default();
    for summary in results.into_iter().flatten() {
        total.steps += summary.steps;
        total.plans += summary.plans;
        total.generations += summary.generations;
        total.faults += summary.faults;
        total.switches += summary.switches;
        total.artifacts += summary.artifacts;
        total.sheds += summary.sheds;
        total.breaches += summary.breaches;
        total.over_millis += summary.over_millis;
    }
    total
}

#[test]
fn a_seed_is_a_whole_story() {
    let story = || run(Options::of(11)).unwrap();
    assert_eq!(story(), story());
}

#[test]
fn without_trouble_nothing_is_ever_above_a_limit() {
    for seed in 0..10 {
        let options = Options { trouble: Trouble::None, ..Options::of(seed) };
        let summary = run(options).unwrap_or_else(|failure| fail(&failure));
        assert_eq!(summary.faults, 0);
        assert!(summary.switches > 0);
    }
}

/// A controller that believes in twice the copper must be found out, or the feeder checker is blind.
#[test]
fn a_controller_that_ignores_the_limits_is_found_out() {
    fn blind(settings: &mut FarmSettings) {
        for feeder in &mut settings.feeders {
            feeder.limit = Watts(feeder.limit.0 * 4);
        }
    }
    let caught = (0..12)
        .filter_map(|seed| run(Options { mislead: blind, ..Options::of(seed) }).err())
        .filter(|failure| failure.broken.checker == "no feeder above its limit")
        .count();
    assert!(caught >= 6, "caught {caught} of 12");
}
