//! Jobs, targets and shares on an open channel.

use farm_tests::stratum2::pool::{CHANNEL, GROUP, Manners};
use roadbed_agent::miner::dialect::{Action, Cause, Dialect};
use roadbed_agent::miner::work::Source;
use roadbed_protocol::{HashesPerSecond, Millis};
use stratum_core::binary_sv2::{Seq064KOwned, U256Owned};
use stratum_core::mining_sv2::{
    CloseChannelOwned, SetExtranoncePrefixOwned, SetGroupChannelOwned, SetNewPrevHashOwned,
    SetTargetOwned, SubmitSharesErrorOwned, SubmitSharesSuccess,
};
use stratum_core::parsers_sv2::MiningOwned;

use super::{Pair, find, target};

fn hard(bits: usize) -> Manners {
    Manners { target: target(bits), ..Manners::default() }
}

#[test]
fn shares_of_every_kind_of_channel_are_work() {
    for (kind, coinbase, flags) in
        [("extended", true, 4), ("standard", false, 5), ("grouped", false, 4)]
    {
        let (mut pair, mut work) = Pair::mining(kind, hard(8));
        assert_eq!(pair.pool.flags, flags, "{kind}");
        assert_eq!(work.version_mask, 0x1FFF_E000);
        let mut credit = 0.0;
        for round in 0..6u64 {
            assert_eq!(matches!(work.source, Source::Coinbase { .. }), coinbase, "{kind}");
            // Header 17 of an extended channel has the second extranonce and a rolled version.
            pair.found(&find(&work, round * 17, 0));
            credit += work.difficulty;
            // The first job named the channel; these name the group, unless jobs are standard.
            let next = if round % 2 == 0 { pair.pool.block() } else { pair.pool.refresh() };
            pair.hear(&next.unwrap());
            work = pair.work();
        }
        let report = pair.report();
        assert_eq!((report.shares.submitted, report.shares.accepted), (6, 6), "{kind}");
        assert!(pair.pool.verdicts.iter().all(|(_, fault)| fault.is_none()), "{kind}");
        assert!((report.shares.accepted_difficulty - credit).abs() < credit * 1e-9);
        assert!(report.mining && report.garbage == 0 && report.jobs == 7, "{kind} {report:?}");
        let sequences: Vec<u32> =
            pair.pool.verdicts.iter().map(|(share, _)| share.sequence).collect();
        assert_eq!(sequences, [1, 2, 3, 4, 5, 6]);
    }
}

#[test]
fn what_the_pool_would_refuse_is_not_sent() {
    let (mut pair, old) = Pair::mining("extended", hard(8));
    let share = find(&old, 0, 0);
    pair.found(&share);
    pair.found(&share);
    assert_eq!(pair.report().shares.submitted, 1, "the same share is sent once");

    // Of a job that was only replaced, shares are still good.
    let better = pair.pool.refresh().unwrap();
    pair.hear(&better);
    pair.found(&find(&old, 1, 0));
    assert_eq!(pair.report().shares.accepted, 2);

    let block = pair.pool.block().unwrap();
    pair.hear(&block);
    let late = find(&old, 2, 0);
    pair.found(&late);
    let mut easy = find(&pair.work(), 0, 0);
    easy.nonce = easy.nonce.wrapping_add(1);
    pair.found(&easy);
    let mut unknown = late;
    unknown.work = 999;
    pair.found(&unknown);
    let shares = pair.report().shares;
    assert_eq!((shares.submitted, shares.accepted), (2, 2));
    assert_eq!(shares.stale_unsent, 3, "late, too easy, and of nothing we know");
}

#[test]
fn a_batch_is_waited_for_without_doubt() {
    let (mut pair, work) = Pair::mining("extended", Manners { batch: 10, ..hard(8) });
    for index in 0..9 {
        pair.found(&find(&work, index, 0));
        // Half a minute of silence after each share is nothing.
        let block = pair.pool.refresh().unwrap();
        pair.tick(30);
        pair.hear(&block);
    }
    assert_eq!((pair.report().shares.accepted, pair.report().shares.unanswered), (0, 0));
    pair.found(&find(&work, 9, 0));
    assert_eq!(pair.report().shares.accepted, 10);

    pair.found(&find(&work, 10, 0));
    pair.session.disconnected();
    let shares = pair.report().shares;
    assert_eq!((shares.accepted, shares.unanswered), (10, 1), "a lost answer is owned up to");
}

#[test]
fn answers_find_their_shares_by_number() {
    let (mut pair, work) = Pair::mining("extended", Manners { batch: 100, ..hard(8) });
    for index in 0..8 {
        pair.found(&find(&work, index, 0));
    }
    let refuse = |pair: &mut Pair, sequence_number: u32, code: &str| {
        let refusal = SubmitSharesErrorOwned {
            channel_id: CHANNEL,
            sequence_number,
            error_code: code.try_into().unwrap(),
        };
        let bytes = pair.pool.say(MiningOwned::SubmitSharesError(refusal)).unwrap();
        pair.hear(&bytes);
    };
    let accept = |pair: &mut Pair, last: u32, count: u32| {
        let batch = SubmitSharesSuccess {
            channel_id: CHANNEL,
            last_sequence_number: last,
            new_submits_accepted_count: count,
            new_shares_sum: u64::MAX,
        };
        let bytes = pair.pool.say(MiningOwned::SubmitSharesSuccess(batch)).unwrap();
        pair.hear(&bytes);
    };
    refuse(&mut pair, 2, "stale-share");
    refuse(&mut pair, 3, "duplicate-share");
    refuse(&mut pair, 5, "difficulty-too-low");
    refuse(&mut pair, 6, "no-such-code");
    refuse(&mut pair, 6, "stale-share");
    refuse(&mut pair, 77, "stale-share");
    accept(&mut pair, 4, 1);
    let shares = pair.report().shares;
    assert_eq!(
        (shares.accepted, shares.stale, shares.duplicate, shares.low_difficulty, shares.other),
        (1, 1, 1, 1, 1),
        "the pool counted one of shares 1 and 4"
    );
    // More than was sent is not believed, and the pool's own sum is not money.
    accept(&mut pair, u32::MAX, u32::MAX);
    let shares = pair.report().shares;
    assert_eq!((shares.accepted, shares.rejected(), shares.submitted), (4, 4, 8));
    assert!((shares.accepted_difficulty - 4.0 * work.difficulty).abs() < work.difficulty * 1e-9);
    assert_eq!(pair.report().garbage, 2, "refusals of shares that are not open");
}

#[test]
fn a_pool_that_takes_nothing_is_left() {
    let (mut pair, work) = Pair::mining("standard", Manners { batch: 1_000, ..hard(8) });
    for index in 0..20 {
        pair.now = Millis(pair.now.0 + 1_000);
        pair.found(&find(&work, index, 0));
        let refusal = SubmitSharesErrorOwned {
            channel_id: CHANNEL,
            sequence_number: u32::try_from(index).unwrap() + 1,
            error_code: "invalid-share".try_into().unwrap(),
        };
        assert!(pair.asked.is_empty());
        let bytes = pair.pool.say(MiningOwned::SubmitSharesError(refusal)).unwrap();
        pair.hear(&bytes);
    }
    let (cause, reason) = pair.end();
    assert_eq!(cause, Cause::SharesRefused);
    assert!(reason.contains("invalid-share"), "{reason}");
}

#[test]
fn a_target_holds_from_the_next_job_on() {
    let (mut pair, work) = Pair::mining("grouped", hard(8));
    assert!((work.difficulty - work.target.difficulty()).abs() < f64::EPSILON);
    let harder = pair.pool.retarget(target(16)).unwrap();
    pair.hear(&harder);
    assert!(pair.asked.is_empty(), "the running job keeps its target");
    pair.found(&find(&work, 0, 0));
    let better = pair.pool.refresh().unwrap();
    pair.hear(&better);
    let next = pair.work();
    assert_eq!(next.target.0[..2], [0, 0]);
    assert!((next.difficulty / work.difficulty - 256.0).abs() < 2.0);
    pair.found(&find(&next, 0, 0));
    assert_eq!(pair.report().shares.accepted, 2);

    // A target that no hash meets changes nothing.
    let zero = SetTargetOwned { channel_id: CHANNEL, maximum_target: U256Owned::from([0; 32]) };
    let bytes = pair.pool.say(MiningOwned::SetTarget(zero)).unwrap();
    pair.hear(&bytes);
    assert_eq!(pair.report().garbage, 1);
    let better = pair.pool.refresh().unwrap();
    pair.hear(&better);
    assert_eq!(pair.work().target, next.target);
}

#[test]
fn a_new_extranonce_and_a_new_group_are_followed() {
    for (kind, bytes) in [("extended", 4), ("grouped", 20)] {
        let (mut pair, _) = Pair::mining(kind, hard(8));
        let prefix = vec![0x3C; bytes];
        pair.pool.reprefix(prefix.clone());
        let order = SetExtranoncePrefixOwned {
            channel_id: CHANNEL,
            extranonce_prefix: prefix.try_into().unwrap(),
        };
        let order = pair.pool.say(MiningOwned::SetExtranoncePrefix(order)).unwrap();
        pair.hear(&order);
        let block = pair.pool.block().unwrap();
        pair.hear(&block);
        let work = pair.work();
        pair.found(&find(&work, 3, 0));
        assert_eq!(pair.report().shares.accepted, 1, "{kind}: {:?}", pair.pool.verdicts);

        // In another group the old one's jobs are no longer ours.
        let group = SetGroupChannelOwned {
            group_channel_id: 55,
            channel_ids: Seq064KOwned::new(vec![1, CHANNEL, 9]).unwrap(),
        };
        let group = pair.pool.say(MiningOwned::SetGroupChannel(group)).unwrap();
        pair.hear(&group);
        let block = pair.pool.block().unwrap();
        pair.hear(&block);
        assert!(pair.asked.is_empty(), "{kind}");
        assert_eq!(pair.report().garbage, 2, "a job and a block for a group that is not ours");
    }
}

#[test]
fn without_a_job_for_the_new_block_the_threads_rest() {
    let (mut pair, old) = Pair::mining("extended", hard(8));
    let tip = SetNewPrevHashOwned {
        channel_id: GROUP,
        job_id: 4_000,
        prev_hash: U256Owned::from([1; 32]),
        min_ntime: 1_700_100_000,
        nbits: 0x1d00_ffff,
    };
    let bytes = pair.pool.say(MiningOwned::SetNewPrevHash(tip)).unwrap();
    pair.hear(&bytes);
    assert_eq!(pair.asked, [Action::Rest]);
    let block = pair.pool.block().unwrap();
    pair.hear(&block);
    assert!(pair.work().number > old.number, "and hash again when there is one");
}

#[test]
fn a_closed_channel_ends_the_connection() {
    let (mut pair, _) = Pair::mining("extended", hard(8));
    let order =
        CloseChannelOwned { channel_id: GROUP, reason_code: "maintenance".try_into().unwrap() };
    let bytes = pair.pool.say(MiningOwned::CloseChannel(order)).unwrap();
    pair.hear(&bytes);
    assert!(pair.end().1.contains("maintenance"));
    assert_eq!(pair.report().told, "maintenance");
    // Nothing more is made of what comes after.
    let block = pair.pool.block().unwrap();
    pair.asked.clear();
    pair.hear(&block);
    assert!(pair.asked.is_empty());
}

#[test]
fn the_pool_is_told_when_our_rate_changes_much() {
    let (mut pair, _) = Pair::mining("extended", hard(8));
    let told = |pair: &Pair| pair.pool.heard.len();
    for (seconds, rate, want) in [
        (10, 900_000_000, 0),
        (30, 900_000_000, 1),
        (31, 1_000_000_000, 1),
        (20, 0, 1),
        (20, 100_000_000, 2),
    ] {
        pair.session.measured(HashesPerSecond(rate));
        pair.tick(seconds);
        assert_eq!(told(&pair), want, "{rate} H/s: {:?}", pair.pool.heard);
    }
    assert!(pair.pool.heard[0].contains("UpdateChannel"), "{:?}", pair.pool.heard);
}

#[test]
fn a_pool_that_counts_every_hash_is_not_flooded() {
    let (mut pair, work) = Pair::mining("extended", Manners::default());
    for nonce in 0..500 {
        let mut share = find(&work, 0, 0);
        share.nonce = nonce;
        pair.found(&share);
    }
    let shares = pair.report().shares;
    assert_eq!((shares.submitted, shares.held_back), (20, 480));
    pair.now = Millis(1_000);
    pair.found(&find(&work, 1, 0));
    assert_eq!(pair.report().shares.submitted, 21);
}
