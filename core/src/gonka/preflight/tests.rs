//! The list with every point as it should be, and each one that is not.

use super::*;

fn good() -> Measured {
    let model = "Qwen/Qwen3-0.6B".to_owned();
    Measured {
        rig: RigId::new("gpu-1").unwrap(),
        at: UnixMillis(1_000_000),
        listed: Some(model.clone()),
        forward: Forward::Answered { took: Millis(80), model: model.clone() },
        callback: Reach::Answered { took: Millis(3) },
        skew: Some(-12),
        rate: Some(ProofRate {
            model: model.clone(),
            seq_len: 1_024,
            millinonces_per_minute: 98_500,
            measured_at: UnixMillis(900_000),
        }),
        usual_rate: Some(100_000),
        draws_more: Watts(300),
        feeders: vec![FeederRoom {
            feeder: FeederId::new("hall").unwrap(),
            load: Watts(5_000),
            limit: Watts(8_000),
        }],
        pow: PowStatus::Idle,
        is_confirming: false,
        poc_start: Height(100_000),
        model,
    }
}

type Change = fn(&mut Measured);

#[test]
fn each_measurement_decides_its_own_point() {
    assert_eq!(preflight(&good()).grade(), Grade::Ready);
    let table: [(Check, Grade, Change); 21] = [
        (Check::Forward, Grade::Doubtful, |m| {
            m.forward = Forward::Answered { took: Millis(30_000), model: m.model.clone() };
        }),
        (Check::Forward, Grade::NotReady, |m| m.forward = Forward::Failed { why: "503".into() }),
        (Check::Forward, Grade::Doubtful, |m| m.forward = Forward::Untried { why: "off".into() }),
        (Check::Model, Grade::NotReady, |m| m.listed = Some("qwen/qwen3-0.6b".into())),
        (Check::Callback, Grade::NotReady, |m| {
            m.callback = Reach::Failed { why: "refused".into() }
        }),
        (Check::Callback, Grade::Doubtful, |m| m.callback = Reach::NoAddress),
        (Check::Clock, Grade::Doubtful, |m| m.skew = Some(5_000)),
        (Check::Clock, Grade::NotReady, |m| m.skew = Some(-60_000)),
        (Check::Clock, Grade::NotReady, |m| m.skew = Some(i64::MIN)),
        (Check::Clock, Grade::Doubtful, |m| m.skew = None),
        (Check::Rate, Grade::Doubtful, |m| m.rate = None),
        (Check::Rate, Grade::Doubtful, |m| m.usual_rate = None),
        (Check::Rate, Grade::Doubtful, |m| m.usual_rate = Some(120_000)),
        (Check::Rate, Grade::NotReady, |m| m.usual_rate = Some(300_000)),
        (Check::Rate, Grade::Doubtful, |m| m.at = UnixMillis(900_000_000)),
        (Check::Power, Grade::Doubtful, |m| m.draws_more = Watts(2_900)),
        (Check::Power, Grade::NotReady, |m| m.draws_more = Watts(3_100)),
        (Check::Status, Grade::NotReady, |m| m.pow = PowStatus::Generating(Height(99_000))),
        (Check::Status, Grade::Doubtful, |m| {
            m.is_confirming = true;
            m.pow = PowStatus::Generating(Height(99_000));
        }),
        (Check::Status, Grade::Ready, |m| m.pow = PowStatus::Generating(Height(100_000))),
        (Check::Status, Grade::Doubtful, |m| m.pow = PowStatus::Unread { why: "timeout".into() }),
    ];
    for (check, grade, change) in table {
        let mut measured = good();
        change(&mut measured);
        let list = preflight(&measured);
        assert_eq!(list.points.len(), 7);
        for point in &list.points {
            let expected = if point.check == check { grade } else { Grade::Ready };
            assert_eq!(point.grade, expected, "{point:?} while {check} should be {grade}");
            assert_eq!(point.advice.is_none(), point.grade == Grade::Ready);
        }
    }
}

#[test]
fn the_list_is_due_twice_and_never_after_the_start() {
    let minutes = |minutes: i64| UnixMillis(minutes * 60_000);
    let start = Estimate { at: minutes(100), error: Millis::from_mins(5) };
    assert_eq!(preflight_due(start, None, minutes(0)), Some(minutes(60)));
    assert_eq!(preflight_due(start, None, minutes(70)), Some(minutes(70)));
    assert_eq!(preflight_due(start, Some(minutes(60)), minutes(61)), Some(minutes(85)));
    assert_eq!(preflight_due(start, Some(minutes(86)), minutes(87)), None);
    assert_eq!(preflight_due(start, None, minutes(95)), None);
    // The start turned out to be two minutes later than thought.
    let later = Estimate { at: minutes(102), ..start };
    assert_eq!(preflight_due(later, Some(minutes(60)), minutes(61)), Some(minutes(87)));
}
