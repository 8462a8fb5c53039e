//! The supervisor: every state with every event as a table, its rules of time, and any order of events.

use std::fmt::Write as _;

use proptest::prelude::*;
use roadbed_protocol::HashesPerSecond;

use super::*;

/// Every cell of states and events; read it when it changes: `ROADBED_UPDATE=1` writes it anew.
const TABLE: &str = include_str!("supervisor_table.txt");

const SECOND: u64 = 1_000;

fn terms() -> Terms {
    Terms {
        first_answer: Millis::from_secs(60),
        floor: HashesPerSecond(1_000),
        share_every: None,
        stops_by_api: true,
    }
}

fn figures(rate: u64, accepted: u64) -> Figures {
    Figures {
        hashrate: Some(HashesPerSecond(rate)),
        accepted: Some(accepted),
        ..Figures::default()
    }
}

fn new() -> Supervisor {
    Supervisor::new(terms(), Limits::default())
}

/// A supervisor driven at second 0 by these events.
fn after(events: &[Event]) -> Supervisor {
    let mut supervisor = new();
    for event in events {
        supervisor.handle(Millis(0), event.clone());
    }
    supervisor
}

fn events() -> Vec<(&'static str, Event)> {
    vec![
        ("tick", Event::Tick),
        ("run", Event::Run),
        ("stop", Event::Stop),
        ("cut", Event::Cut),
        ("spawn failed", Event::SpawnFailed("no file".into())),
        ("answered", Event::Answered(figures(5_000, 1))),
        ("unanswered", Event::Unanswered("refused".into())),
        ("exited", Event::Exited("status 1".into())),
        ("group left", Event::Group { left: true }),
        ("group gone", Event::Group { left: false }),
        ("memory free", Event::Memory(MemoryLook::Free)),
        ("memory taken", Event::Memory(MemoryLook::Taken { bytes: 9 << 20 })),
        ("memory unknown", Event::Memory(MemoryLook::Unknown)),
    ]
}

fn states() -> Vec<(&'static str, Supervisor)> {
    let up = Event::Answered(figures(5_000, 0));
    let gone = Event::Group { left: false };
    let mut term = after(&[Event::Run, up.clone(), Event::Stop]);
    term.handle(Millis(5 * SECOND), Event::Tick);
    let mut kill = term.clone();
    kill.handle(Millis(15 * SECOND), Event::Tick);
    let mut hung = kill.clone();
    hung.handle(Millis(25 * SECOND), Event::Tick);
    let crashed = [Event::Run, up.clone(), Event::Exited("status 1".into())];
    let confirmed = Event::Memory(MemoryLook::Free);
    vec![
        ("off", new()),
        ("starting", after(&[Event::Run])),
        ("hashing", after(&[Event::Run, up.clone()])),
        ("stopping by API", after(&[Event::Run, up.clone(), Event::Stop])),
        ("stopping by TERM", term),
        ("stopping by KILL", kill),
        ("crashed", after(&crashed)),
        ("confirming", after(&[Event::Run, up, Event::Stop, gone.clone()])),
        ("waiting", after(&[&crashed[..], &[gone, confirmed]].concat())),
        ("alarm", after(&[Event::Run, Event::SpawnFailed("no file".into())])),
        ("alarm, left over", hung),
    ]
}

#[test]
fn every_state_meets_every_event() {
    let mut table = String::new();
    for (name, state) in states() {
        writeln!(table, "{name}").unwrap();
        for (word, event) in events() {
            let mut next = state.clone();
            let effects = next.handle(Millis(30 * SECOND), event);
            let to =
                if next.state == state.state { "-".into() } else { format!("{:?}", next.state) };
            writeln!(table, "    {word}: {to} {effects:?}").unwrap();
        }
    }
    if std::env::var_os("ROADBED_UPDATE").is_some() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/miner/external/supervisor_table.txt");
        std::fs::write(file, &table).unwrap();
    }
    assert_eq!(table, TABLE);
}

/// Ticks twice a second from `from` to `to`, answering every look; gives the effects with their second.
fn live(
    supervisor: &mut Supervisor,
    from: u64,
    to: u64,
    mut answer: impl FnMut(u64) -> Event,
) -> Vec<(u64, Effect)> {
    let mut seen = Vec::new();
    for second in from..to {
        for effect in supervisor.handle(Millis(second * SECOND), Event::Tick) {
            match effect {
                Effect::Ask => {
                    let event = answer(second);
                    supervisor.handle(Millis(second * SECOND), event);
                }
                effect => seen.push((second, effect)),
            }
        }
    }
    seen
}

fn running() -> Supervisor {
    after(&[Event::Run, Event::Answered(figures(5_000, 0))])
}

fn reason_to_restart(supervisor: &Supervisor) -> &str {
    match supervisor.state() {
        State::Stopping { then: Then::Restart(reason), .. } => reason,
        _ => "",
    }
}

#[test]
fn a_start_that_nobody_hears_of_is_given_up() {
    let mut supervisor = after(&[Event::Run]);
    let seen = live(&mut supervisor, 1, 61, |_| Event::Unanswered("refused".into()));
    assert_eq!(seen, [(60, Effect::AskToStop), (60, Effect::LookAtGroup)]);
    assert!(reason_to_restart(&supervisor).contains("60 s of its start"));
}

#[test]
fn a_silent_api_a_slow_miner_and_one_without_shares_are_stalls() {
    let mut silent = running();
    assert_eq!(live(&mut silent, 1, 60, |_| Event::Unanswered("refused".into())), []);
    live(&mut silent, 60, 61, |_| Event::Unanswered("refused".into()));
    assert_eq!(reason_to_restart(&silent), "its API is silent for 60 s (refused)");

    let mut slow = running();
    // A minute at nothing, while it changes its epoch, is none.
    assert_eq!(live(&mut slow, 1, 60, |_| Event::Answered(figures(0, 0))), []);
    assert_eq!(live(&mut slow, 60, 70, |_| Event::Answered(figures(9_000, 0))), []);
    assert_eq!(live(&mut slow, 70, 310, |_| Event::Answered(figures(999, 0))), []);
    live(&mut slow, 310, 314, |_| Event::Answered(figures(999, 0)));
    assert!(reason_to_restart(&slow).starts_with("it hashes below"), "{:?}", slow.state());

    // A share each ten seconds, then none: twenty times ten seconds, but not before five minutes.
    let mut barren = running();
    assert_eq!(live(&mut barren, 1, 200, |at| Event::Answered(figures(5_000, at / 10))), []);
    assert_eq!(live(&mut barren, 200, 490, |_| Event::Answered(figures(5_000, 19))), []);
    live(&mut barren, 490, 500, |_| Event::Answered(figures(5_000, 19)));
    assert!(
        reason_to_restart(&barren).starts_with("no share was accepted for 300 s"),
        "{:?}",
        barren.state()
    );

    // Told a minute: twenty of them.
    let told = Terms { share_every: Some(Millis::from_secs(60)), ..terms() };
    let mut told = Supervisor::new(told, Limits::default());
    told.handle(Millis(0), Event::Run);
    assert_eq!(live(&mut told, 0, 1_200, |_| Event::Answered(figures(5_000, 0))), []);
    live(&mut told, 1_200, 1_210, |_| Event::Answered(figures(5_000, 0)));
    assert!(reason_to_restart(&told).starts_with("no share"), "{:?}", told.state());

    // Nobody knows: an hour.
    let mut unknown = running();
    assert_eq!(live(&mut unknown, 1, 3_600, |_| Event::Answered(figures(5_000, 0))), []);
    live(&mut unknown, 3_600, 3_610, |_| Event::Answered(figures(5_000, 0)));
    assert!(reason_to_restart(&unknown).starts_with("no share"));
}

#[test]
fn a_counter_that_begins_anew_is_work_too() {
    let mut supervisor = running();
    live(&mut supervisor, 1, 4_000, |at| Event::Answered(figures(5_000, at / 30 % 7)));
    assert!(matches!(supervisor.state(), State::Hashing(_)), "{:?}", supervisor.state());
}

#[test]
fn restarts_come_later_each_time_and_end_in_an_alarm() {
    let mut supervisor = after(&[Event::Run]);
    let (mut now, mut waits) = (0, Vec::new());
    loop {
        supervisor.handle(Millis(now), Event::Exited("status 1".into()));
        supervisor.handle(Millis(now), Event::Group { left: false });
        supervisor.handle(Millis(now), Event::Memory(MemoryLook::Free));
        let State::Waiting { until, .. } = supervisor.state() else { break };
        waits.push((until.0 - now) / SECOND);
        now = until.0;
        assert_eq!(supervisor.handle(Millis(now - 1), Event::Tick), []);
        assert_eq!(supervisor.handle(Millis(now), Event::Tick), [Effect::Spawn]);
    }
    assert_eq!(waits, [5, 10, 20, 40, 80]);
    let State::Alarm { reason, left_over } = supervisor.state() else { panic!("no alarm") };
    assert!(reason.contains("6 failures") && reason.contains("status 1") && !left_over, "{reason}");
    // A good run forgets; a start by hand begins anew.
    assert_eq!(supervisor.handle(Millis(now), Event::Run), [Effect::Spawn]);
    assert_eq!(supervisor.failures(), 0);
    supervisor.handle(Millis(now), Event::Exited("status 1".into()));
    supervisor.handle(Millis(now), Event::Group { left: false });
    supervisor.handle(Millis(now), Event::Memory(MemoryLook::Unknown));
    supervisor.handle(Millis(now + 3 * SECOND), Event::Memory(MemoryLook::Unknown));
    let start = now / SECOND + 10;
    live(&mut supervisor, start, start + 700, |at| Event::Answered(figures(5_000, at)));
    assert_eq!(supervisor.failures(), 0);
}

#[test]
fn memory_is_free_or_waited_for_or_not_known() {
    let confirming = || {
        after(&[
            Event::Run,
            Event::Answered(figures(1, 0)),
            Event::Stop,
            Event::Group { left: false },
        ])
    };
    let taken = || Event::Memory(MemoryLook::Taken { bytes: 512 << 20 });
    let mut late = confirming();
    assert_eq!(late.handle(Millis(19 * SECOND), taken()), []);
    late.handle(Millis(19 * SECOND), Event::Memory(MemoryLook::Free));
    assert_eq!(*late.state(), State::Off(Ended::Confirmed));
    let mut never = confirming();
    never.handle(Millis(20 * SECOND), taken());
    let State::Alarm { reason, left_over: true } = never.state() else { panic!("no alarm") };
    assert!(reason.contains("512 MiB"), "{reason}");
    // Another stop looks again.
    never.handle(Millis(30 * SECOND), Event::Stop);
    never.handle(Millis(30 * SECOND), Event::Group { left: false });
    never.handle(Millis(30 * SECOND), Event::Memory(MemoryLook::Free));
    assert_eq!(*never.state(), State::Off(Ended::Confirmed));
    let mut blind = confirming();
    assert_eq!(blind.handle(Millis(2 * SECOND), Event::Memory(MemoryLook::Unknown)), []);
    blind.handle(Millis(3 * SECOND), Event::Memory(MemoryLook::Unknown));
    assert_eq!(*blind.state(), State::Off(Ended::NotConfirmed));
}

fn any_event() -> impl Strategy<Value = Event> {
    prop::sample::select(events().into_iter().map(|(_, event)| event).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// Nothing is started after a stop, and a stop ends, whatever else happens.
    #[test]
    fn a_stop_holds_and_ends(events in prop::collection::vec((any_event(), 0u64..30), 0..60), more in prop::collection::vec(any_event(), 0..20)) {
        let mut supervisor = after(&[Event::Run]);
        let mut now = 0;
        for (event, wait) in events {
            now += wait * SECOND;
            supervisor.handle(Millis(now), event);
        }
        supervisor.handle(Millis(now), Event::Stop);
        for event in more {
            if event != Event::Run {
                let effects = supervisor.handle(Millis(now), event);
                prop_assert!(!effects.contains(&Effect::Spawn), "{:?}", supervisor.state());
            }
        }
        for _ in 0..120 {
            now += SECOND;
            for effect in supervisor.handle(Millis(now), Event::Tick) {
                prop_assert!(effect != Effect::Spawn);
                match effect {
                    Effect::LookAtGroup => { supervisor.handle(Millis(now), Event::Group { left: false }); }
                    Effect::LookAtMemory => { supervisor.handle(Millis(now), Event::Memory(MemoryLook::Unknown)); }
                    _ => {}
                }
            }
        }
        let ended = matches!(supervisor.state(), State::Off(_) | State::Alarm { .. });
        prop_assert!(ended, "{:?}", supervisor.state());
    }
}
