//! What no pool should send: garbage, cut and endless frames, messages that make no sense. Nothing may panic, and
//! nothing may be taken for work.

use farm_tests::stratum2::pool::{CHANNEL, GROUP, Manners, PoolDouble};
use proptest::prelude::*;
use roadbed_agent::miner::dialect::{Action, Cause, Dialect};
use stratum_core::binary_sv2::{Seq0255Owned, Sv2OptionOwned, U256Owned};
use stratum_core::framing_sv2::framing::SerializedFrame;
use stratum_core::mining_sv2::{
    NewExtendedMiningJobOwned, NewMiningJobOwned, SetExtranoncePrefixOwned, SetNewPrevHashOwned,
    SetTargetOwned, SubmitSharesErrorOwned, SubmitSharesSuccess,
};
use stratum_core::parsers_sv2::MiningOwned;

use super::{Pair, authority, find, target, unix};

/// A frame with any kind, extension and payload.
fn frame(extension: u16, kind: u8, payload: &[u8]) -> SerializedFrame<Vec<u8>> {
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    let bytes = [&extension.to_le_bytes()[..], &[kind], &length[..3], payload].concat();
    SerializedFrame::from_bytes(bytes).unwrap()
}

#[test]
fn messages_that_make_no_sense_are_counted_and_passed_over() {
    let (mut pair, work) = Pair::mining("extended", Manners::default());
    let job = |channel_id, prefix: &[u8]| {
        MiningOwned::NewExtendedMiningJob(NewExtendedMiningJobOwned {
            channel_id,
            job_id: 500,
            min_ntime: Sv2OptionOwned::new(Some(u32::MAX)),
            version: 0,
            version_rolling_allowed: true,
            merkle_path: Seq0255Owned::new(Vec::new()).unwrap(),
            coinbase_tx_prefix: prefix.to_vec().try_into().unwrap(),
            coinbase_tx_suffix: Vec::new().try_into().unwrap(),
        })
    };
    let standard = MiningOwned::NewMiningJob(NewMiningJobOwned {
        channel_id: CHANNEL,
        job_id: 1,
        min_ntime: Sv2OptionOwned::new(None),
        version: 0,
        merkle_root: U256Owned::from([1; 32]),
    });
    for (count, message) in [job(99, b""), standard].into_iter().enumerate() {
        let bytes = pair.pool.say(message).unwrap();
        pair.hear(&bytes);
        assert!(pair.asked.is_empty());
        assert_eq!(pair.report().garbage, count as u64 + 1);
    }
    // Unknown kinds, an unknown extension, kinds of other parts of the protocol, a payload that is cut.
    for (extension, kind, payload) in
        [(0, 0xEE, &[1, 2, 3][..]), (0x7000, 0x15, &[]), (0, 0x71, &[0; 200]), (0x8000, 0x20, &[7])]
    {
        let bytes = pair.pool.server().seal_frame(frame(extension, kind, payload)).unwrap();
        pair.hear(&bytes);
        assert!(pair.asked.is_empty(), "{kind:#x}");
    }
    assert_eq!(pair.report().garbage, 6);
    // And shares go on.
    pair.found(&find(&work, 0, 0));
    assert_eq!(pair.report().shares.accepted, 1);

    // A job whose coinbase is no transaction stops the threads: what they have is over.
    let bytes = pair.pool.say(job(CHANNEL, b"no coinbase")).unwrap();
    pair.hear(&bytes);
    assert!(matches!(pair.asked[..], [Action::Rest] | []), "{:?}", pair.asked);

    // A pool that sends nothing else is none.
    for _ in 0..50 {
        let bytes = pair.pool.say(job(99, b"")).unwrap();
        pair.hear(&bytes);
    }
    assert_eq!(pair.end().0, Cause::NotLetIn);
}

#[test]
fn an_endless_frame_is_cut_off() {
    let (mut pair, _) = Pair::mining("extended", Manners::default());
    let bytes = pair.pool.server().seal_frame(frame(0, 0x1F, &vec![0; 4 << 20])).unwrap();
    let mut taken = 0;
    for piece in bytes.chunks(4_096) {
        pair.hear(piece);
        taken += piece.len();
        if !pair.asked.is_empty() {
            break;
        }
    }
    assert!(pair.end().1.contains("longer than"), "{:?}", pair.end());
    assert!(taken < 300_000, "{taken} bytes were kept");
}

#[test]
fn an_altered_byte_ends_the_connection() {
    for place in [0, 21, 22, 40] {
        let (mut pair, _) = Pair::mining("extended", Manners::default());
        let mut bytes = pair.pool.block().unwrap();
        bytes[place] ^= 1;
        pair.hear(&bytes);
        assert!(pair.end().1.contains("does not open"), "{:?}", pair.end());
    }
}

#[test]
fn every_kind_of_frame_with_any_payload_is_survived() {
    // Kinds are few, so all are tried; the payloads are shorter and longer than any fits.
    let (mut pair, _) = Pair::mining("extended", Manners::default());
    for kind in 0..=u8::MAX {
        for (length, fill) in [(0, 0), (1, 0), (4, 0), (43, 0), (80, 1), (600, 0xFF), (600, 7)] {
            let payload = vec![fill; length];
            let bytes = pair.pool.server().seal_frame(frame(0, kind, &payload)).unwrap();
            pair.hear(&bytes);
            if matches!(pair.asked.last(), Some(Action::Close { .. })) {
                (pair, _) = Pair::mining("extended", Manners::default());
            }
        }
    }
}

/// The conversation until work, with the pool's bytes cut into pieces of these lengths.
fn in_pieces(lengths: &[usize]) -> (usize, bool) {
    let mut pair = Pair::new("insecure", Manners::default(), unix);
    let mut open = pair.session.connected(pair.now);
    let (mut works, mut lengths) = (0, lengths.iter().cycle());
    while !open.is_empty() {
        let mut next = Vec::new();
        for action in open {
            match action {
                Action::Send(bytes) => {
                    let answer = pair.pool.take(&bytes).unwrap();
                    let mut rest = &answer[..];
                    while !rest.is_empty() {
                        let length = (*lengths.next().unwrap()).min(rest.len());
                        let (piece, later) = rest.split_at(length);
                        next.extend(pair.session.bytes(pair.now, piece));
                        rest = later;
                    }
                }
                Action::Hash(_) => works += 1,
                Action::Rest | Action::Close { .. } => panic!("{action:?}"),
            }
        }
        open = next;
    }
    (works, pair.report().mining)
}

fn any_message() -> impl Strategy<Value = MiningOwned> {
    let channel = prop_oneof![Just(CHANNEL), Just(GROUP), any::<u32>()];
    let time = prop_oneof![Just(None), Just(Some(1_700_060_000)), any::<u32>().prop_map(Some)];
    let job = prop_oneof![0u32..4, any::<u32>()];
    let bytes = || prop::collection::vec(any::<u8>(), 0..60);
    (channel, job, time, any::<[u8; 32]>(), any::<u32>(), bytes(), bytes(), 0u8..8).prop_map(
        |(channel_id, job_id, time, hash, number, head, tail, kind)| match kind {
            0 => MiningOwned::NewMiningJob(NewMiningJobOwned {
                channel_id,
                job_id,
                min_ntime: Sv2OptionOwned::new(time),
                version: number,
                merkle_root: U256Owned::from(hash),
            }),
            1 | 2 => MiningOwned::NewExtendedMiningJob(NewExtendedMiningJobOwned {
                channel_id,
                job_id,
                min_ntime: Sv2OptionOwned::new(time),
                version: number,
                version_rolling_allowed: number % 2 == 0,
                merkle_path: Seq0255Owned::new(vec![U256Owned::from(hash)]).unwrap(),
                coinbase_tx_prefix: head.try_into().unwrap(),
                coinbase_tx_suffix: tail.try_into().unwrap(),
            }),
            3 => MiningOwned::SetNewPrevHash(SetNewPrevHashOwned {
                channel_id,
                job_id,
                prev_hash: U256Owned::from(hash),
                min_ntime: time.unwrap_or(0),
                nbits: number,
            }),
            4 => MiningOwned::SetTarget(SetTargetOwned {
                channel_id,
                maximum_target: U256Owned::from(hash),
            }),
            5 => MiningOwned::SetExtranoncePrefix(SetExtranoncePrefixOwned {
                channel_id,
                extranonce_prefix: head
                    .into_iter()
                    .take(32)
                    .collect::<Vec<_>>()
                    .try_into()
                    .unwrap(),
            }),
            6 => MiningOwned::SubmitSharesSuccess(SubmitSharesSuccess {
                channel_id,
                last_sequence_number: job_id,
                new_submits_accepted_count: number,
                new_shares_sum: u64::from(number) << 32,
            }),
            _ => MiningOwned::SubmitSharesError(SubmitSharesErrorOwned {
                channel_id,
                sequence_number: job_id,
                error_code: "stale-share".try_into().unwrap(),
            }),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_bytes_instead_of_a_handshake_are_survived(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 1..4),
    ) {
        let mut pair = Pair::new(&authority().address_key(), Manners::default(), unix);
        let _ = pair.session.connected(pair.now);
        for piece in &pieces {
            let actions = pair.session.bytes(pair.now, piece);
            let works = actions.iter().filter(|action| matches!(action, Action::Hash(_))).count();
            prop_assert_eq!(works, 0);
        }
        prop_assert!(!pair.report().mining);
    }

    #[test]
    fn any_bytes_after_the_handshake_are_survived(bytes in prop::collection::vec(any::<u8>(), 22..200)) {
        let (mut pair, _) = Pair::mining("extended", Manners::default());
        pair.hear(&bytes);
        let closed = matches!(pair.asked.last(), Some(Action::Close { .. }));
        prop_assert!(closed);
    }

    #[test]
    fn it_does_not_matter_where_the_bytes_are_cut(
        lengths in prop::collection::vec(1usize..300, 1..12),
    ) {
        prop_assert_eq!(in_pieces(&lengths), (1, true));
    }

    /// Whatever a pool says in well-formed messages, the books balance and shares of the newest work can be tried.
    #[test]
    fn any_conversation_is_survived(
        messages in prop::collection::vec(any_message(), 1..25),
        kind in prop_oneof![Just("extended"), Just("standard"), Just("grouped")],
    ) {
        let manners = Manners { target: target(0), ..Manners::default() };
        let (mut pair, mut work) = Pair::mining(kind, manners);
        for message in messages {
            let bytes = pair.pool.say(message).unwrap();
            // The stand-in did not say this of itself, so its verdict on the share means nothing.
            let actions = pair.session.bytes(pair.now, &bytes);
            for action in actions {
                match action {
                    Action::Hash(newest) => work = newest,
                    Action::Send(_) | Action::Rest => {}
                    Action::Close { .. } => return Ok(()),
                }
            }
            if let Some(roll) = work.roll(1) {
                let share =
                    roadbed_agent::miner::work::Find { work: work.number, roll, nonce: 5 };
                let _ = pair.session.found(pair.now, &share);
            }
            let _ = pair.session.tick(pair.now);
        }
        pair.session.disconnected();
        let shares = pair.report().shares;
        prop_assert_eq!(shares.submitted, shares.accepted + shares.rejected() + shares.unanswered);
    }
}

#[test]
fn the_stand_in_would_refuse_what_is_wrong() {
    // The stand-in is worth nothing if it says yes to everything.
    let (mut pair, work) =
        Pair::mining("extended", Manners { target: target(8), ..Manners::default() });
    let good = find(&work, 0, 0);
    let roadbed_agent::miner::work::Source::Coinbase { job, .. } = &work.source else { panic!() };
    let share =
        |pool: &mut PoolDouble, nonce: u32, time: u32, extranonce: Vec<u8>, version: u32| {
            let share = stratum_core::mining_sv2::SubmitSharesExtendedOwned {
                channel_id: CHANNEL,
                sequence_number: 1,
                job_id: job.id.parse().unwrap(),
                nonce,
                ntime: time,
                version,
                extranonce: extranonce.try_into().unwrap(),
            };
            pool.judge_extended(share)
        };
    let (time, extranonce) = (good.roll.ntime, good.roll.extranonce2.clone());
    let version = work.header(&good.roll).version;
    for (nonce, time, extranonce, version, want) in [
        (good.nonce, time, extranonce.clone(), version, None),
        (good.nonce, time, extranonce.clone(), version, Some("duplicate-share")),
        (good.nonce + 1, time, extranonce.clone(), version, Some("difficulty-too-low")),
        (good.nonce, time - 1, extranonce.clone(), version, Some("invalid-share")),
        (good.nonce, time + 7_201, extranonce.clone(), version, Some("invalid-share")),
        (good.nonce, time, vec![0; 15], version, Some("bad-extranonce-size")),
        (good.nonce, time, extranonce, version ^ 1, Some("invalid-non-rollable-version-bit")),
    ] {
        share(&mut pair.pool, nonce, time, extranonce, version).unwrap();
        assert_eq!(pair.pool.verdicts.last().unwrap().1, want);
    }
}
