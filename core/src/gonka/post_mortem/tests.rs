//! Accounts that add up to the loss, whatever the evidence.

use proptest::prelude::*;

use super::*;

fn at(seconds: i64) -> UnixMillis {
    UnixMillis(seconds * 1_000)
}

fn stretch(cause: Cause, from: i64, until: i64) -> Stretch {
    Stretch { cause, from: at(from), until: at(until), line: format!("{cause} {from}-{until}") }
}

fn story(expected: u64, proved: u64) -> RigStory {
    RigStory {
        rig: RigId::new("gpu-1").unwrap(),
        expected,
        proved,
        from: at(0),
        until: at(300),
        stretches: Vec::new(),
        coefficient: Decimal::new(5, -1),
        coefficient_expected: Decimal::new(50, -2),
        rate: Some((100_000, 100_000)),
        refused: (0, String::new()),
        undelivered: (0, String::new()),
        not_a_number: 0,
    }
}

fn parts(account: &PostMortem) -> Vec<(Cause, u64)> {
    account.losses.iter().map(|loss| (loss.cause, loss.weight)).collect()
}

#[test]
fn every_cause_takes_its_part_and_the_rest_is_unexplained() {
    let mut rig = story(1_000, 100);
    rig.stretches = vec![
        stretch(Cause::Offline, 100, 200),
        // Half of it is the operator's, who is asked first.
        stretch(Cause::Held, 150, 250),
        stretch(Cause::Offline, -50, 10),
        stretch(Cause::LateStart, 500, 600),
    ];
    rig.refused = (40, "400 unknown node".into());
    rig.undelivered = (20, "timed out".into());
    rig.not_a_number = 2;
    rig.rate = Some((50_000, 100_000));
    let account = post_mortem(410, &[rig], &HostStory::default());
    assert_eq!(
        parts(&account),
        [
            (Cause::Held, 333),
            (Cause::Offline, 200),
            (Cause::Refused, 20),
            (Cause::Undelivered, 10),
            (Cause::NotANumber, 1),
            // Half the rate in the 140 s that were left.
            (Cause::Slow, 233),
            (Cause::Unknown, 103),
        ]
    );
    assert_eq!((account.lost(), account.earned, account.is_final), (900, 100, false));
    assert_eq!(account.lost_by(Culprit::Rig), 200 + 1 + 233);
    assert_eq!(account.losses[1].evidence.len(), 2);
}

#[test]
fn the_hosts_losses_follow_the_rigs() {
    let host = HostStory {
        entered: Some(800),
        confirmed: Some(600),
        rewarded: Some(570),
        confirmation_evidence: vec![(Culprit::Rig, "gpu-1 faulted in event 2".into())],
        forfeit_evidence: Vec::new(),
    };
    let account = post_mortem(410, &[story(1_000, 1_000)], &host);
    let expected = [(Cause::Unbacked, 200), (Cause::Unconfirmed, 200), (Cause::Delegation, 30)];
    assert_eq!(parts(&account), expected);
    assert_eq!(account.lost_by(Culprit::Rig), 200);
    assert!(account.is_final);
    let refused = HostStory { rewarded: Some(0), ..HostStory::default() };
    let account = post_mortem(410, &[story(1_000, 1_200)], &refused);
    assert_eq!((parts(&account), account.gained), (vec![(Cause::Forfeited, 1_200)], 200));
}

#[test]
fn a_coefficient_that_fell_is_the_chains() {
    let mut rig = story(1_000, 900);
    rig.coefficient = Decimal::new(45, -2);
    let account = post_mortem(410, &[rig], &HostStory::default());
    assert_eq!(parts(&account), [(Cause::Coefficient, 100)]);
}

fn stretches() -> impl Strategy<Value = Vec<Stretch>> {
    let cause = prop::sample::select(vec![
        Cause::Curtailed,
        Cause::Held,
        Cause::LateStart,
        Cause::Offline,
        Cause::NotLoaded,
    ]);
    let one = (cause, any::<i64>(), any::<i64>()).prop_map(|(cause, from, until)| Stretch {
        cause,
        from: UnixMillis(from),
        until: UnixMillis(until),
        line: String::new(),
    });
    prop::collection::vec(one, 0..6)
}

fn stories() -> impl Strategy<Value = RigStory> {
    let counts = (any::<u64>(), any::<u64>(), any::<u64>());
    let rates = prop::option::of((any::<u64>(), any::<u64>()));
    let weights = prop_oneof![(0..10_000_u64, 0..10_000_u64), (any::<u64>(), any::<u64>()),];
    let coefficients = (-5..500_i64, -6..=6_i32, 0..500_i64);
    (weights, stretches(), counts, rates, coefficients, any::<i64>()).prop_map(
        |(weights, stretches, counts, rate, (value, exponent, then), until)| RigStory {
            stretches,
            coefficient: Decimal::new(value, exponent),
            coefficient_expected: Decimal::new(then, exponent),
            rate,
            refused: (counts.0, "400".into()),
            undelivered: (counts.1, "refused".into()),
            not_a_number: counts.2,
            until: UnixMillis(until),
            ..story(weights.0, weights.1)
        },
    )
}

proptest! {
    #[test]
    fn the_parts_add_up_to_the_loss(
        rigs in prop::collection::vec(stories(), 0..4),
        entered in prop::option::of(0..20_000_u64),
        confirmed in prop::option::of(0..20_000_u64),
        rewarded in prop::option::of(0..20_000_u64),
    ) {
        let host = HostStory { entered, confirmed, rewarded, ..HostStory::default() };
        let account = post_mortem(1, &rigs, &host);
        let wide = |value: u64| i128::from(value);
        let lost: i128 = account.losses.iter().map(|loss| wide(loss.weight)).sum();
        let rigs_gained: i128 = wide(account.gained);
        prop_assume!(account.gained < u64::MAX && lost < wide(u64::MAX));
        prop_assert_eq!(wide(account.expected) + rigs_gained - lost, wide(account.earned));
        prop_assert!(account.losses.iter().all(|loss| loss.weight > 0));
    }
}
