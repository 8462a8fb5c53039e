//! When a rig may be taken away, and what it costs to do so at another time.
//!
//! In the safety window before a PoC no confirmation PoC runs, so a rig that is back and loaded at the start has missed
//! nothing but inference. To leave for good it is disabled at the Network Node first and then still serves the epoch out;
//! where it is one of the nodes that serve on through the PoC it may have to serve one more. A chain that does not tell its
//! safety window gets no time named.

use roadbed_protocol::{Millis, Money, UnixMillis};

use super::{Calendar, Stake};

/// How the rig stands with the Network Node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has weight in the epoch under way.
    Active {
        /// It serves on through the PoC and keeps its weight (`POC_SLOT`).
        is_preserved: bool,
    },
    /// It is disabled, but has weight to the end of the epoch.
    Leaving {
        /// See [`Standing::Active`].
        is_preserved: bool,
    },
    /// It has no weight: it may go at any time.
    Free,
    /// Nobody knows.
    Unknown,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absent {
    /// How long it must be away; `None` for good.
    pub needs: Option<Millis>,
    /// Load and warm-up after it is back.
    pub load_lead: Millis,
    /// How it stands.
    pub standing: Standing,
    /// What the epoch is worth, if that is known.
    pub stake: Option<Stake>,
    /// A confirmation PoC is under way.
    pub is_confirming: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advice {
    /// Nothing is lost now.
    Now {
        /// Be back and loaded by then; `None` when no PoC follows for it.
        back_by: Option<UnixMillis>,
    },
    /// Wait until then.
    Wait {
        /// First sure moment.
        from: UnixMillis,
        /// Be back by then; `None` when it goes for good.
        back_by: Option<UnixMillis>,
        /// It may have to serve until then instead: one epoch more.
        at_worst: Option<UnixMillis>,
        /// What to do first.
        first: Option<&'static str>,
    },
    /// No time can be named, and why.
    None {
        /// Why.
        why: String,
    },
}

/// The answer, with what leaving at once would cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintenance {
    /// What to do.
    pub advice: Advice,
    /// Income and collateral at risk when it leaves now; `None` when that is not known, nought when nothing is lost.
    pub cost_now: Option<Money>,
    /// The reasons, for people.
    pub lines: Vec<String>,
}

/// When the rig can be taken away. `current` is the epoch under way, `next` the one after it.
#[must_use]
pub fn maintenance(
    absent: &Absent,
    current: &Calendar,
    next: &Calendar,
    now: UnixMillis,
) -> Maintenance {
    let is_preserved = match absent.standing {
        Standing::Free => {
            let line = "it has no weight in this epoch: nothing is lost".to_owned();
            let back_by = absent.needs.map(|_| next.generate.from.earliest() - absent.load_lead);
            let (advice, cost_now) = (Advice::Now { back_by }, Some(Money::ZERO));
            return Maintenance { advice, cost_now, lines: vec![line] };
        }
        Standing::Unknown => {
            let why = "whether the rig has weight in this epoch is not known".to_owned();
            return Maintenance { advice: Advice::None { why }, cost_now: None, lines: Vec::new() };
        }
        Standing::Active { is_preserved } | Standing::Leaving { is_preserved } => is_preserved,
    };
    let Some(needs) = absent.needs else {
        return for_good(absent, current, next, is_preserved, now);
    };
    let start = next.generate.from.earliest();
    let back_by = start - absent.load_lead;
    let mut lines = Vec::new();
    let missed = current.absence(now, now + needs + absent.load_lead);
    let reaches_poc = now + needs > back_by;
    let is_harmless = missed.is_harmless() && !reaches_poc && !absent.is_confirming;
    let stake = absent.stake.map(|stake| stake.income + stake.penalty);
    let cost_now = if is_harmless { Some(Money::ZERO) } else { stake };
    if absent.is_confirming {
        lines.push("a confirmation PoC is under way: leaving now fails it".into());
    }
    if missed.generate || missed.validate {
        lines.push(format!("the PoC of epoch {} is under way", current.epoch_index));
    }
    if missed.confirmation_possible {
        lines.push(missed.confirmations_millis.map_or_else(
            || "a confirmation PoC may fall into it".into(),
            |millis| {
                format!(
                    "{}.{:02} confirmation PoCs are expected while it is away",
                    millis / 1_000,
                    millis % 1_000 / 10
                )
            },
        ));
    }
    if is_harmless {
        lines.push("no confirmation PoC is raised any more before the next PoC".into());
        let advice = Advice::Now { back_by: Some(back_by) };
        return Maintenance { advice, cost_now, lines };
    }
    let advice = match current.quiet {
        None => Advice::None {
            why: "the chain does not say in which blocks before a PoC no confirmation PoC runs \
                  (confirmation_poc_safety_window), or there are none: every block of the epoch is a risk"
                .into(),
        },
        Some(quiet) => {
            let from = quiet.from.latest().max(now);
            let room = back_by.since(from);
            if needs <= room {
                Advice::Wait { from, back_by: Some(back_by), at_worst: None, first: None }
            } else {
                let why = format!(
                    "it needs {} minutes and the model {} to load; the sure part of the quiet blocks before the PoC leaves {}: \
                     take it out for an epoch (disable it first), or accept the risk",
                    minutes(needs),
                    minutes(absent.load_lead),
                    minutes(room),
                );
                Advice::None { why }
            }
        }
    };
    Maintenance { advice, cost_now, lines }
}

fn for_good(
    absent: &Absent,
    current: &Calendar,
    next: &Calendar,
    is_preserved: bool,
    now: UnixMillis,
) -> Maintenance {
    let is_disabled = match absent.standing {
        Standing::Leaving { .. } => true,
        Standing::Active { .. } | Standing::Free | Standing::Unknown => false,
    };
    // The weight counts until the next epoch's stands, and the claim opens one block later.
    let from = current.claim.from.latest().max(now);
    let at_worst = is_preserved.then(|| next.claim.from.latest());
    let mut lines = vec![
        "a disabled node serves to the end of the epoch and leaves at the next PoC".to_owned(),
        "keep the Network Node online afterwards: it claims the epoch's reward in the next one"
            .to_owned(),
    ];
    if is_preserved {
        lines.push(
            "it is among the nodes that serve through the PoC: it may have to serve one more epoch"
                .into(),
        );
    }
    let first = (!is_disabled).then_some("roadbed gonka disable");
    let cost_now = absent.stake.map(|stake| stake.income + stake.penalty);
    Maintenance { advice: Advice::Wait { from, back_by: None, at_worst, first }, cost_now, lines }
}

const fn minutes(span: Millis) -> u64 {
    span.0 / 60_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gonka::fixture::{confirmation, moment, stages};
    use crate::plan::IncomeSource;

    fn calendars(height: i64, safety_window: Option<u32>) -> (Calendar, Calendar) {
        let stages = stages(100_000, 15_391);
        let next = stages.following();
        let confirmation = super::super::ConfirmationParams { safety_window, ..confirmation() };
        let of = |stages| Calendar::new(stages, None, Some(&confirmation), &moment(height));
        (of(&stages), of(&next))
    }

    fn absent(minutes: Option<u64>) -> Absent {
        let source = IncomeSource::Assumption;
        Absent {
            needs: minutes.map(Millis::from_mins),
            load_lead: Millis::from_mins(10),
            standing: Standing::Active { is_preserved: false },
            stake: Some(Stake { income: Money(9), penalty: Money(1), source }),
            is_confirming: false,
        }
    }

    #[test]
    fn work_is_put_into_the_quiet_blocks() {
        // 2 000 blocks before the next PoC: three hours.
        let (current, next) = calendars(113_391, Some(500));
        let answer = maintenance(&absent(Some(15)), &current, &next, UnixMillis(0));
        let Advice::Wait { from, back_by: Some(back_by), first: None, .. } = answer.advice else {
            panic!("{answer:?}")
        };
        assert_eq!(from, current.quiet.unwrap().from.latest());
        assert!(from < back_by && back_by < next.generate.from.earliest());
        assert_eq!(answer.cost_now, Some(Money(10)));
        // Too long for what is surely quiet.
        let long = maintenance(&absent(Some(40)), &current, &next, UnixMillis(0));
        assert!(matches!(long.advice, Advice::None { .. }), "{long:?}");
        // Inside the window, with little error left, the same work fits.
        let (current, next) = calendars(114_900, Some(500));
        let inside = maintenance(&absent(Some(25)), &current, &next, UnixMillis(0));
        assert!(matches!(inside.advice, Advice::Now { back_by: Some(_) }), "{inside:?}");
        assert_eq!(inside.cost_now, Some(Money::ZERO));
        let confirming = Absent { is_confirming: true, ..absent(Some(5)) };
        let answer = maintenance(&confirming, &current, &next, UnixMillis(0));
        assert_eq!(answer.cost_now, Some(Money(10)));
    }

    #[test]
    fn without_the_chains_word_no_time_is_named() {
        let (current, next) = calendars(114_900, None);
        let answer = maintenance(&absent(Some(5)), &current, &next, UnixMillis(0));
        assert!(matches!(answer.advice, Advice::None { .. }), "{answer:?}");
        let unknown = Absent { standing: Standing::Unknown, ..absent(Some(5)) };
        let answer = maintenance(&unknown, &current, &next, UnixMillis(0));
        assert_eq!((matches!(answer.advice, Advice::None { .. }), answer.cost_now), (true, None));
    }

    #[test]
    fn who_goes_for_good_serves_the_epoch_out_and_perhaps_one_more() {
        let (current, next) = calendars(105_000, Some(500));
        let ask = |standing| {
            let question = Absent { standing, ..absent(None) };
            maintenance(&question, &current, &next, UnixMillis(0)).advice
        };
        let from = current.claim.from.latest();
        let first = Some("roadbed gonka disable");
        let (back_by, at_worst) = (None, Some(next.claim.from.latest()));
        let active = ask(Standing::Active { is_preserved: false });
        assert_eq!(active, Advice::Wait { from, back_by, at_worst: None, first });
        let preserved = ask(Standing::Active { is_preserved: true });
        assert_eq!(preserved, Advice::Wait { from, back_by, at_worst, first });
        let leaving = ask(Standing::Leaving { is_preserved: false });
        assert_eq!(leaving, Advice::Wait { from, back_by, at_worst: None, first: None });
        assert_eq!(ask(Standing::Free), Advice::Now { back_by: None });
    }
}
