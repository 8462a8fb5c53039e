//! The rig machine, every state and every event: what each cell of the table does.
//!
//! A cell names the state after the event; `.` is taken without a change of state, `-` is ignored and counted, `x` is
//! refused with an answer. Where one event carries the machine through several states, the last is named.

use farm_core::rig::{RigEffect, RigEvent, TripCause, is_legal};
use roadbed_protocol::{EventKind, RigState, Workload};

use crate::rig_fixture::{Bench, HOT, SAFE, prove, serve};

const TABLE: &str = "
event           booting   idle      starting  running   draining  stopping  curtailed faulted   tripped
probed          idle      -         -         -         -         -         -         starting  -
probe-failed    faulted   -         -         -         -         -         -         .         -
assign-serve    .         starting  .         .         running   .         starting  .         .
assign-prove    .         starting  .         .         running   .         starting  .         .
assign-idle     .         .         stopping  draining  .         .         idle      .         .
assign-curtail  .         curtailed stopping  draining  .         .         .         .         .
assign-old      x         x         x         x         x         x         x         x         x
started         -         -         running   -         -         -         -         -         -
handed-over     -         -         -         -         -         -         -         -         -
failed          faulted   faulted   faulted   faulted   faulted   faulted   faulted   -         -
drained         -         -         -         -         stopping  -         -         -         -
stopped         -         -         -         -         idle      idle      -         .         .
measured-safe   .         .         .         .         .         .         .         .         .
measured-hot    tripped   tripped   tripped   tripped   tripped   tripped   tripped   tripped   .
link-up         .         .         .         .         .         .         .         .         .
link-down       .         .         .         .         .         .         .         .         .
trip-signal     tripped   tripped   tripped   tripped   tripped   tripped   tripped   tripped   .
operator-reset  x         x         x         x         x         x         x         x         starting
tick            .         .         .         .         .         .         .         .         .
";

fn say(bench: &mut Bench, event: &str) -> Vec<RigEffect> {
    let event = match event {
        "probed" => RigEvent::Probed,
        "probe-failed" => RigEvent::ProbeFailed { reason: "no answer".into() },
        "assign-serve" => return bench.assign(9, serve()),
        "assign-prove" => return bench.assign(9, prove()),
        "assign-idle" => return bench.assign(9, Workload::Idle),
        "assign-curtail" => return bench.assign(9, Workload::Curtailed),
        "assign-old" => return bench.assign(0, Workload::Idle),
        "started" => RigEvent::Started { workload: serve() },
        "handed-over" => RigEvent::HandedOver { workload: prove() },
        "failed" => RigEvent::Failed { reason: "it broke".into() },
        "drained" => RigEvent::Drained,
        "stopped" => RigEvent::Stopped,
        "measured-safe" => RigEvent::Measured(SAFE),
        "measured-hot" => RigEvent::Measured(HOT),
        "link-up" => RigEvent::LinkUp,
        "link-down" => RigEvent::LinkDown,
        "trip-signal" => RigEvent::TripSignal(TripCause::Interlock),
        "operator-reset" => RigEvent::OperatorReset { operator: "ann".into() },
        "tick" => RigEvent::Tick,
        other => panic!("no such event: {other}"),
    };
    bench.say(event)
}

fn cell(bench: &Bench, before: RigState, effects: &[RigEffect]) -> String {
    let refused = effects
        .iter()
        .any(|effect| matches!(effect, RigEffect::Refuse { .. } | RigEffect::ResetRefused { .. }));
    let ignored = effects.iter().any(|effect| matches!(effect, RigEffect::Ignored { .. }));
    match (refused, ignored) {
        (true, _) => "x".into(),
        (_, true) => "-".into(),
        _ if bench.state() == before => ".".into(),
        _ => bench.state().word().into(),
    }
}

#[test]
fn every_cell_does_what_the_table_says() {
    let mut lines = TABLE.trim().lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let heads = lines.next().unwrap();
    assert_eq!(heads[1..], RigState::ALL.map(RigState::word));
    let (mut wrong, mut cells) = (Vec::new(), 0);
    for line in lines {
        for (state, expected) in RigState::ALL.into_iter().zip(&line[1..]) {
            let mut bench = Bench::in_state(state);
            let effects = say(&mut bench, line[0]);
            let found = cell(&bench, state, &effects);
            if found != *expected {
                wrong.push(format!("{} in {state}: {found}, not {expected}", line[0]));
            }
            cells += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(cells, 19 * RigState::ALL.len());
}

#[test]
fn every_recorded_move_is_in_the_design() {
    for state in RigState::ALL {
        for line in TABLE.trim().lines().skip(1) {
            let mut bench = Bench::in_state(state);
            let mut at = state;
            let event = line.split_whitespace().next().unwrap();
            for effect in say(&mut bench, event) {
                if let RigEffect::Record { kind: EventKind::StateChanged { from, to }, .. } = effect
                {
                    assert_eq!(from, at, "{event} in {state}");
                    assert!(is_legal(from, to), "{event} in {state}: {from} -> {to}");
                    at = to;
                }
            }
            assert_eq!(at, bench.state(), "{event} in {state}: a move without a record");
        }
    }
}

#[test]
fn the_legal_moves_are_those_of_the_design() {
    let count: usize = RigState::ALL.iter().map(|from| farm_core::rig::moves(*from).len()).sum();
    assert_eq!(count, 3 + 4 + 4 + 3 + 4 + 3 + 3 + 3 + 1);
    for from in RigState::ALL {
        assert_eq!(is_legal(from, RigState::Tripped), from != RigState::Tripped);
        assert!(!is_legal(from, RigState::Booting));
    }
}
