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
            Ok(summary) => println!("{summary:?}"),
            Err(failure) => fail(&failure),
        }
        return;
    }
    let count = std::env::var("ROADBED_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    let mut total = Summary::default();
    for seed in 0..count.unwrap_or(SEEDS) {
        let summary = run(Options::of(seed)).unwrap_or_else(|failure| fail(&failure));
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
    println!("{total:?}");
    // A simulation in which nothing happens proves nothing.
    assert!(total.faults > 1_000 && total.switches > 1_000 && total.artifacts > 1_000, "{total:?}");
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
