//! The session against everything a pool can say.

use proptest::prelude::*;
use roadbed_compute::hash::Roll;

use super::*;

const NOTIFY: &str = r#"["j1","0000000000000000000000000000000000000000000000000000000000000000",
    "0100","ffff",[],"20000000","1d00ffff","5f5e1000",true]"#;

fn login() -> PoolConfig {
    PoolConfig::new("stratum+tcp://pool.example:3333".parse().unwrap(), "farm.rig", "x")
}

fn sent(actions: &[Action]) -> Vec<Value> {
    let lines = actions.iter().filter_map(|action| match action {
        Action::Send(line) => Some(serde_json::from_slice(line).unwrap()),
        Action::Hash(_) | Action::Rest | Action::Close { .. } => None,
    });
    lines.collect()
}

fn hashed(actions: &[Action]) -> Option<Arc<Work>> {
    actions.iter().rev().find_map(|action| match action {
        Action::Hash(work) => Some(work.clone()),
        Action::Send(_) | Action::Rest | Action::Close { .. } => None,
    })
}

fn closes(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Close { .. }))
}

struct Bench {
    session: Session,
    now: Millis,
}

impl Bench {
    fn connected() -> Self {
        let mut session = Session::new(login(), WorkNumbers::of_pool(0));
        let first = sent(&session.connected(Millis(0)));
        assert_eq!(first[0]["method"], "mining.configure");
        assert_eq!(first[1]["method"], "mining.subscribe");
        Self { session, now: Millis(0) }
    }

    fn line(&mut self, line: &str) -> Vec<Action> {
        self.session.line(self.now, line)
    }

    fn mining() -> Self {
        let mut bench = Self::connected();
        bench.line(
            r#"{"id":1,"result":{"version-rolling":true,"version-rolling.mask":"1fffe000"}}"#,
        );
        let authorize = bench.line(r#"{"id":2,"result":[[],"f289b349",4],"error":null}"#);
        assert_eq!(sent(&authorize)[0]["params"], json!(["farm.rig", "x"]));
        bench.line(r#"{"id":null,"method":"mining.set_difficulty","params":["0.001"]}"#);
        // As real pools do it: the job first, the answer to authorize after it.
        assert_eq!(hashed(&bench.notify("j1", true)), None);
        let actions = bench.line(r#"{"id":"3","result":true,"error":null}"#);
        assert!(hashed(&actions).is_some());
        bench
    }

    fn notify(&mut self, id: &str, clean: bool) -> Vec<Action> {
        let mut params: Value = serde_json::from_str(NOTIFY).unwrap();
        params[0] = id.into();
        params[8] = clean.into();
        self.line(&json!({"id": null, "method": "mining.notify", "params": params}).to_string())
    }

    fn find(&mut self, work: u64, nonce: u32) -> Vec<Action> {
        let roll = Roll {
            extranonce2: vec![0, 0, 0, 1],
            ntime: 0x5f5e_1000,
            version_bits: 0x2000,
            version_mask: 0x1FFF_E000,
        };
        self.session.found(self.now, &Find { work, roll, nonce })
    }
}

#[test]
fn a_share_is_sent_with_all_that_was_rolled_and_booked_when_answered() {
    let mut bench = Bench::mining();
    let submit = sent(&bench.find(1, 0xABCD));
    let want = json!(["farm.rig", "j1", "00000001", "5f5e1000", "0000abcd", "00002000"]);
    assert_eq!((&submit[0]["method"], &submit[0]["params"]), (&json!("mining.submit"), &want));
    // A job between a share and its answer is normal.
    bench.notify("j2", false);
    bench.line(&json!({"id": submit[0]["id"], "result": true}).to_string());
    let tally = bench.session.report().shares;
    assert_eq!((tally.submitted, tally.accepted), (1, 1));
    assert!((tally.accepted_difficulty - 0.001).abs() < 1e-12);
    assert_eq!(bench.find(1, 0xABCD), [], "the same share is not sent twice");
}

#[test]
fn a_clean_job_makes_older_finds_worthless() {
    let mut bench = Bench::mining();
    bench.notify("j2", false);
    assert_eq!(sent(&bench.find(1, 1)).len(), 1, "an older job may still be paid");
    bench.notify("j3", true);
    assert_eq!(bench.find(1, 2), []);
    assert_eq!(bench.find(2, 3), []);
    assert_eq!(bench.session.report().shares.stale_unsent, 2);
    assert_eq!(sent(&bench.find(3, 4)).len(), 1);
}

#[test]
fn difficulty_extranonce_and_mask_hold_from_the_next_job_on() {
    let mut bench = Bench::mining();
    assert_eq!(bench.line(r#"{"method":"mining.set_difficulty","params":[2]}"#), []);
    assert_eq!(bench.line(r#"{"method":"mining.set_extranonce","params":["aa",8]}"#), []);
    assert_eq!(bench.line(r#"{"method":"mining.set_version_mask","params":["0000e000"]}"#), []);
    assert!((bench.session.report().difficulty - 0.001).abs() < 1e-12);
    let work = hashed(&bench.notify("j2", false)).unwrap();
    assert!((work.difficulty - 2.0).abs() < 1e-12);
    assert_eq!(work.target, Target::from_difficulty(2.0).unwrap());
    let Source::Coinbase { extranonce, .. } = &work.source else { panic!("{work:?}") };
    assert_eq!((extranonce.second_size, work.version_mask), (8, 0xE000));
}

#[test]
fn a_pool_without_configure_is_mined_for_all_the_same() {
    let mut bench = Bench::connected();
    bench.line(r#"{"id":1,"result":null,"error":[20,"Unknown method",null]}"#);
    bench.line(r#"{"id":2,"result":[[],"f289b349",4]}"#);
    bench.line(r#"{"id":3,"result":true}"#);
    assert_eq!(hashed(&bench.notify("j1", true)).unwrap().version_mask, 0);
    // And one that hangs up on it is not asked again.
    let mut session = Session::new(login(), WorkNumbers::of_pool(0));
    session.connected(Millis(0));
    session.disconnected();
    assert_eq!(sent(&session.connected(Millis(0)))[0]["method"], "mining.subscribe");
}

#[test]
fn a_reconnect_to_another_host_is_refused() {
    let mut bench = Bench::mining();
    let away = r#"{"id":null,"method":"client.reconnect","params":["evil.example",3333,1]}"#;
    assert_eq!(bench.line(away), []);
    let same = r#"{"id":null,"method":"client.reconnect","params":["Pool.Example","3334",9999]}"#;
    let actions = bench.line(same);
    assert!(matches!(
        actions.last(),
        Some(Action::Close { to: Some((_, 3334)), wait: Millis(300_000), .. })
    ));
    assert!(closes(&bench.line(r#"{"method":"client.reconnect"}"#)));
}

#[test]
fn silence_is_borne_and_then_ended() {
    let mut bench = Bench::mining();
    assert_eq!(bench.session.tick(Millis(179_000)), [], "pools may hang up on a ping");
    assert!(closes(&bench.session.tick(Millis(180_001))));
    let mut slow = Bench::connected();
    assert!(closes(&slow.session.tick(Millis(30_001))));
    let mut pinging = Bench::mining();
    assert_eq!(sent(&pinging.line(r#"{"id":9,"method":"mining.ping"}"#))[0]["result"], "pong");
    assert_eq!(sent(&pinging.session.tick(Millis(60_001)))[0]["method"], "mining.ping");
    assert_eq!(pinging.session.tick(Millis(70_000)), [], "asked once");
}

#[test]
fn a_stall_of_half_a_minute_is_forgiven_and_one_with_shares_unanswered_is_not() {
    let mut bench = Bench::mining();
    let id = sent(&bench.find(1, 1))[0]["id"].clone();
    bench.now = Millis(30_000);
    assert_eq!(bench.session.tick(bench.now), []);
    bench.line(&json!({"id": id, "result": true}).to_string());
    assert_eq!(bench.session.report().shares.accepted, 1);
    bench.find(1, 2);
    bench.now = Millis(75_000);
    let actions = bench.session.tick(bench.now);
    assert!(matches!(actions.last(), Some(Action::Close { cause: Cause::Silent, .. })));
}

#[test]
fn a_jump_of_the_clock_ends_a_connection_at_most() {
    let mut bench = Bench::mining();
    bench.find(1, 1);
    bench.now = Millis(9_000_000);
    assert!(closes(&bench.session.tick(bench.now)));
    bench.now = Millis(5);
    assert_eq!(bench.session.tick(bench.now), [], "and none by a jump back");
    let shares = bench.session.report().shares;
    assert_eq!((shares.submitted, shares.unanswered), (1, 1));
}

#[test]
fn extensions_are_asked_for_in_configure_and_nowhere_blindly() {
    let mut wishful = login();
    (wishful.minimum_difficulty, wishful.suggest_difficulty) =
        (Difficulty::new(0.5), Difficulty::new(2.0));
    wishful.subscribe_extranonce = true;
    let mut session = Session::new(wishful, WorkNumbers::of_pool(0));
    let first = sent(&session.connected(Millis(0)));
    assert_eq!(
        first[0]["params"],
        json!([["version-rolling", "subscribe-extranonce", "minimum-difficulty"], {
            "version-rolling.mask": "1fffe000",
            "version-rolling.min-bit-count": 2,
            "minimum-difficulty.value": 0.5,
        }])
    );
    let mut bench = Bench { session, now: Millis(0) };
    // As translator_sv2 grants it: the count of bits is a hex text.
    bench.line(
        r#"{"id":1,"result":{"version-rolling":true,"version-rolling.mask":"1fffe000",
            "version-rolling.min-bit-count":"00000002","subscribe-extranonce":true}}"#,
    );
    bench.line(r#"{"id":2,"result":[[],"00112233445566778899aabbccddeeff",4]}"#);
    let methods: Vec<Value> = sent(&bench.line(r#"{"id":3,"result":true}"#))
        .iter()
        .map(|line| line["method"].clone())
        .collect();
    assert_eq!(methods, ["mining.extranonce.subscribe", "mining.suggest_difficulty"]);
    bench.line(r#"{"method":"mining.set_difficulty","params":[4.656774645894757e-6]}"#);
    let work = hashed(&bench.notify("1#0", false)).unwrap();
    assert_eq!((work.version_mask, work.difficulty), (0x1FFF_E000, 4.656_774_645_894_757e-6));
    assert_eq!(sent(&bench.find(1, 7))[0]["params"][1], "1#0");
}

#[test]
fn absurd_difficulties_do_no_harm() {
    let mut bench = Bench::mining();
    for absurd in ["1e300", "0", "-4", "\"nan\"", "null", "[]"] {
        bench.line(&format!(r#"{{"method":"mining.set_difficulty","params":[{absurd}]}}"#));
    }
    assert!((hashed(&bench.notify("j2", false)).unwrap().difficulty - 0.001).abs() < 1e-12);
    // Every hash is a share now: what the pool does not answer holds the rest back.
    bench.line(r#"{"method":"mining.set_difficulty","params":[1e-300]}"#);
    let work = hashed(&bench.notify("j3", true)).unwrap().number;
    let sent: usize = (0..1_000).map(|nonce| sent(&bench.find(work, nonce)).len()).sum();
    let shares = bench.session.report().shares;
    assert_eq!((sent as u64, shares.submitted, shares.held_back), (64, 64, 936));
}

#[test]
fn refusals_in_a_row_and_noise_end_the_connection() {
    let mut bench = Bench::mining();
    let mut last = Vec::new();
    for nonce in 0..REFUSED_MAX {
        let id = sent(&bench.find(1, nonce))[0]["id"].clone();
        last = bench.line(&json!({"id": id, "error": [23, "Low difficulty", null]}).to_string());
    }
    assert!(closes(&last));
    assert_eq!(bench.session.report().shares.low_difficulty, u64::from(REFUSED_MAX));
    let mut noisy = Bench::mining();
    let ends = (0..GARBAGE_MAX).map(|_| noisy.line("<html>")).filter(|a| closes(a)).count();
    assert_eq!(ends, 1);
}

#[test]
fn a_burst_of_late_shares_at_a_new_block_is_no_quarrel_but_lateness_without_end_is() {
    let mut bench = Bench::mining();
    let mut closed_after = None;
    for nonce in 0..1_000 {
        let id = sent(&bench.find(1, nonce))[0]["id"].clone();
        let answer = json!({"id": id, "error": [21, "job not found", null]}).to_string();
        if closes(&bench.line(&answer)) {
            closed_after = Some(nonce + 1);
            break;
        }
    }
    assert_eq!(closed_after, Some(129));
}

#[test]
fn what_the_pool_asks_is_answered() {
    let mut bench = Bench::mining();
    let answer = sent(&bench.line(r#"{"id":"v","method":"client.get_version","params":[]}"#));
    assert_eq!(answer[0]["id"], "v");
    assert!(answer[0]["result"].as_str().unwrap().starts_with("roadbed-agent/"));
    bench.line(r#"{"method":"client.show_message","params":["maintenance\u0007 at 5"]}"#);
    assert_eq!(bench.session.report().told, "maintenance  at 5");
    assert_eq!(bench.line(r#"{"method":"mining.unheard_of","params":{"a":1}}"#), []);
}

fn any_line() -> impl Strategy<Value = String> {
    let id = prop::sample::select(vec!["null", "1", "2", "3", "4", "5", "\"3\"", "-1", "1e9"]);
    let body = prop::sample::select(vec![
        r#""result":true"#,
        r#""result":null,"error":[21,"x",null]"#,
        r#""error":{"code":"x"}"#,
        r#""result":[[],"00",4]"#,
        r#""result":[[],"zz",99999999999]"#,
        r#""result":{}"#,
        r#""method":"mining.set_difficulty","params":[1e308]"#,
        r#""method":"mining.set_difficulty","params":[-1]"#,
        r#""method":"mining.set_difficulty","params":["1e-300"]"#,
        r#""method":"mining.set_extranonce","params":["",0]"#,
        r#""method":"mining.set_extranonce","params":["ff",2]"#,
        r#""method":"mining.set_version_mask","params":["zz"]"#,
        r#""method":"mining.notify","params":[]"#,
        r#""method":"client.reconnect","params":[7,-1,1e300]"#,
        r#""method":"client.get_version""#,
    ]);
    let notify = prop::sample::select(vec!["j1", "j2", "j3"]).prop_map(|id| {
        let params = NOTIFY.replace("j1", id);
        format!(r#"{{"id":null,"method":"mining.notify","params":{params}}}"#)
    });
    prop_oneof![
        3 => (id, body).prop_map(|(id, body)| format!(r#"{{"id":{id},{body}}}"#)),
        2 => notify,
        1 => ".{0,60}",
    ]
}

proptest! {
    /// Whatever a pool says: no panic, sent lines are JSON, and the books balance.
    #[test]
    fn no_pool_can_upset_the_session(
        lines in prop::collection::vec((any_line(), 0u64..70_000, 0u64..9), 0..120),
    ) {
        let mut bench = Bench::connected();
        for (line, passed, dice) in lines {
            bench.now = Millis(bench.now.0 + passed);
            let mut actions = bench.line(&line);
            actions.extend(match dice {
                0 => bench.session.tick(bench.now),
                1 => bench.session.line_too_long(bench.now),
                2 => {
                    bench.session.disconnected();
                    Vec::new()
                }
                3 => bench.session.connected(bench.now),
                work => bench.find(work, passed as u32),
            });
            sent(&actions);
            prop_assert!(bench.session.jobs.len() <= JOBS_MAX);
            let tally = bench.session.report().shares;
            prop_assert!(tally.accepted + tally.rejected() + tally.unanswered <= tally.submitted);
        }
    }
}
