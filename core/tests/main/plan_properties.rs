//! The planner and the guard against brute force and against chance.

use farm_core::guard;
use farm_core::plan::{
    Availability, CurtailOrder, Hold, Plan, PlanInput, RigInput, WorkOption, plan, worth,
};
use proptest::prelude::*;
use roadbed_protocol::{Cause, Millis, Money, UnixMillis, Watts, Workload};

use crate::plan_fixture::{commitment, farm, feeder_id, option, rig};
use crate::rig_fixture::{mine, prove, serve};

/// Every rig may mine at three powers; GPU rigs may also serve and prove.
fn rigs() -> impl Strategy<Value = Vec<RigInput>> {
    let income = 0_i64..400_000;
    let one = (income.clone(), income.clone(), income, 0_i64..60_000, 0_u64..3, any::<bool>());
    prop::collection::vec(one, 1..=3).prop_map(|rigs| {
        rigs.into_iter()
            .enumerate()
            .map(|(index, (low, high, ai, switch_cost, dwell_hours, is_gpu))| {
                let mut options: Vec<WorkOption> =
                    vec![option(mine(Some(1_800)), 1_800, low), option(mine(None), 3_000, high)];
                if is_gpu {
                    options.push(option(serve(), 1_200, ai));
                    options.push(option(prove(), 1_300, ai / 2));
                }
                let mut rig = rig(&format!("rig-{index}"), options);
                rig.spec.switch_cost = Money(switch_cost);
                rig.spec.min_dwell = Millis::from_hours(dwell_hours);
                rig
            })
            .collect()
    })
}

fn farms() -> impl Strategy<Value = PlanInput> {
    (2_000_u64..10_000, prop::collection::vec(-20_i64..250, 4), rigs())
        .prop_map(|(limit, prices, rigs)| farm(limit, &prices, rigs))
}

/// The farm with silence, holds, promises and orders thrown in.
fn troubled_farms() -> impl Strategy<Value = PlanInput> {
    let dice = (0_u8..8, 0_u8..8, 0_u8..8, 0_u64..9_000, 0_u64..4, any::<bool>(), any::<bool>());
    (farms(), dice).prop_map(|(mut input, (state, hold, promise, limit, hour, breaks, running))| {
        let last = input.rigs.len() - 1;
        match state {
            0 => input.rigs[0].availability = Availability::Silent { since: None },
            1 => {
                let reason = "tripped".into();
                input.rigs[0].availability = Availability::Out { reason, power: Watts(500) };
            }
            _ => {}
        }
        let rig = input.rigs[last].spec.id.clone();
        match hold {
            0 => input.holds.push(Hold { rig, workload: mine(None), operator: "ann".into() }),
            1 => input.holds.push(Hold { rig, workload: Workload::Idle, operator: "ann".into() }),
            _ => {}
        }
        if promise < 4 {
            input.commitments.push(commitment("rig-0", prove(), hour, hour + 2));
        }
        if running {
            for rig in &mut input.rigs {
                rig.current = Some(mine(None));
            }
        }
        input.orders.push(CurtailOrder {
            id: "grid".into(),
            feeder: feeder_id("hall"),
            limit: Watts(limit),
            from: UnixMillis(0) + Millis::from_hours(hour),
            until: UnixMillis(0) + Millis::from_hours(hour + 1),
            breaks_commitments: breaks,
        });
        input
    })
}

/// Load of the hall in every slot by plain reading of the plan: no code of ours helps.
fn loads(input: &PlanInput, plan: &Plan) -> Vec<u64> {
    (0..plan.slots.len())
        .map(|slot| {
            let rigs = input.rigs.iter().zip(&plan.rows);
            rigs.map(|(rig, row)| {
                let to = &row.choices[slot];
                let before = if slot == 0 {
                    rig.current.clone()
                } else {
                    Some(row.choices[slot - 1].workload.clone())
                };
                let of = |workload: &Workload| {
                    let option = rig.spec.options.iter().find(|o| o.workload == *workload);
                    option.map_or(rig.spec.floor.0, |option| option.power.0)
                };
                match (&rig.availability, before) {
                    (Availability::Silent { .. }, _) => rig.spec.nameplate.0,
                    (Availability::Out { power, .. }, _) => power.0.max(rig.spec.floor.0),
                    (Availability::Ready, Some(before))
                        if before.is_active()
                            && to.workload.is_active()
                            && before != to.workload
                            && !before.hands_over_to(&to.workload) =>
                    {
                        of(&before).max(of(&to.workload))
                    }
                    (Availability::Ready, _) => of(&to.workload),
                }
            })
            .sum()
        })
        .collect()
}

/// The most any fixed choice per rig earns over the horizon within the hall's limit.
fn best_fixed(input: &PlanInput) -> Money {
    let (template, _) = plan(input);
    let counts: Vec<usize> = input.rigs.iter().map(|rig| rig.spec.options.len() + 1).collect();
    let mut best = Money(i64::MIN);
    for code in 0..counts.iter().product::<usize>() {
        let (mut fixed, mut rest) = (template.clone(), code);
        for ((row, rig), count) in fixed.rows.iter_mut().zip(&input.rigs).zip(&counts) {
            let option = (rest % count).checked_sub(1).map(|index| &rig.spec.options[index]);
            rest /= count;
            for choice in &mut row.choices {
                choice.workload =
                    option.map_or(Workload::Curtailed, |option| option.workload.clone());
            }
        }
        let fits = loads(input, &fixed).iter().all(|load| *load <= input.feeders[1].limit.0);
        if fits {
            best = best.max(worth(input, &fixed));
        }
    }
    best
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Without a binding limit each rig's way is the best there is, so no fixed choice beats it.
    #[test]
    fn with_room_no_fixed_choice_is_better(mut input in farms()) {
        input.feeders[1].limit = Watts(100_000);
        let (plan, _) = plan(&input);
        prop_assert!(worth(&input, &plan) >= best_fixed(&input));
    }

    /// With a binding limit the search is a heuristic: none of 120,000 such farms was a tenth below the best fixed choice.
    #[test]
    fn under_a_limit_the_best_fixed_choice_is_hardly_ever_better(input in farms()) {
        let (plan, _) = plan(&input);
        let (found, best) = (worth(&input, &plan), best_fixed(&input));
        let slack = Money(best.0.abs() / 10);
        prop_assert!(found + slack >= best, "{found} against {best}");
    }

    #[test]
    fn no_plan_is_above_a_limit(input in farms()) {
        let (plan, notes) = plan(&input);
        for load in loads(&input, &plan) {
            prop_assert!(load <= input.feeders[1].limit.0, "{load} W: {notes:?}");
        }
        let guarded = guard::check(&input, &plan);
        prop_assert_eq!(guarded.sheds, Vec::new(), "the guard finds nothing to do");
    }

    #[test]
    fn equal_inputs_give_equal_plans(input in troubled_farms()) {
        prop_assert_eq!(plan(&input), plan(&input));
    }

    /// Whatever is planned, the guard's answer fits, or says what it cannot shed; and it only takes away.
    #[test]
    fn the_guard_only_sheds_and_always_enough(input in troubled_farms(), wild in any::<u64>()) {
        let (mut plan, _) = plan(&input);
        let mut dice = wild;
        for row in &mut plan.rows {
            for choice in &mut row.choices {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                match dice >> 60 {
                    0..=5 => choice.workload = mine(None),
                    6 => choice.workload = serve(),
                    7 => choice.workload = mine(Some(7)),
                    8 => choice.cause = Cause::OperatorHold,
                    _ => {}
                }
            }
        }
        let guarded = guard::check(&input, &plan);
        for (before, after) in plan.rows.iter().zip(&guarded.plan.rows) {
            for (before, after) in before.choices.iter().zip(&after.choices) {
                prop_assert!(before == after || after.workload == Workload::Curtailed);
            }
        }
        let helpless: u64 = input.rigs.iter().map(|rig| match &rig.availability {
            Availability::Ready => rig.spec.floor.0,
            Availability::Out { power, .. } => power.0.max(rig.spec.floor.0),
            Availability::Silent { .. } => rig.spec.nameplate.0,
        }).sum();
        for load in loads(&input, &guarded.plan) {
            prop_assert!(load <= input.feeders[1].limit.0.max(helpless));
        }
        let again = guard::check(&input, &guarded.plan);
        prop_assert_eq!(again.sheds, Vec::new(), "a checked plan passes the check");
    }

    /// The planner obeys what the guard enforces, also with orders, holds and promises: nothing is left to shed.
    #[test]
    fn the_guard_finds_nothing_in_our_own_plans(input in troubled_farms()) {
        let (plan, _) = plan(&input);
        let guarded = guard::check(&input, &plan);
        prop_assert_eq!(guarded.sheds, Vec::new());
    }

    #[test]
    fn holds_stand_against_orders_and_promises_against_prices(mut input in troubled_farms()) {
        input.feeders[1].limit = Watts(20_000);
        let (plan, _) = plan(&input);
        for (rig, row) in input.rigs.iter().zip(&plan.rows) {
            if rig.availability != Availability::Ready {
                continue;
            }
            let hold = input.holds.iter().find(|hold| hold.rig == rig.spec.id);
            let promised = input.commitments.iter().find(|commitment| {
                let can = rig.spec.options.iter().any(|o| o.workload == commitment.workload);
                commitment.rig == rig.spec.id && can
            });
            for (slot, choice) in plan.slots.iter().zip(&row.choices) {
                if let Some(hold) = hold {
                    let kept = choice.workload == hold.workload
                        || !rig.spec.options.iter().any(|o| o.workload == hold.workload);
                    prop_assert!(kept, "{choice:?}");
                } else if let Some(promised) = promised {
                    let inside = promised.from - promised.load_lead < slot.end()
                        && slot.start < promised.until;
                    let broken = input.orders.iter().any(|order| {
                        order.breaks_commitments
                            && order.from < slot.end()
                            && slot.start < order.until
                    });
                    // While mining stops for it, the promise counts as the greater power, so an order may delay it.
                    prop_assert!(!inside || broken || choice.workload == promised.workload);
                }
            }
        }
    }
}
