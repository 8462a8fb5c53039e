//! Plans with their reasons, as text to be read in a diff. `UPDATE_GOLDEN=1` writes them anew.

use std::fmt::Write as _;
use std::path::Path;

use farm_core::forecast::{PricePoint, PriceSeries};
use farm_core::guard;
use farm_core::plan::{
    Availability, Commitment, CurtailOrder, Feeder, Hold, IncomeSource, PlanInput, RigInput,
    RigSpec, WorkOption, plan, worth,
};
use farm_core::policy::PolicyRules;
use roadbed_protocol::{
    FeederId, MicrosPerHour, MicrosPerMwh, Millis, Money, RigId, RigKind, UnixMillis, Watts,
    Workload,
};

const HOUR: Millis = Millis::from_hours(1);
const SPIKE: [i64; 8] = [22, 24, 60, 212, 1_480, 190, 45, 20];

fn at(hours: u64) -> UnixMillis {
    UnixMillis(0) + Millis::from_hours(hours)
}

fn feeder_id(id: &str) -> FeederId {
    FeederId::new(id).unwrap()
}

fn option(workload: Workload, watts: u64, income: i64) -> WorkOption {
    let (income, source) = (vec![MicrosPerHour(income)], IncomeSource::Assumption);
    WorkOption { workload, power: Watts(watts), income, source, hashrate: None }
}

fn rig(id: &str, kind: RigKind, feeder: &str, floor: u64, options: Vec<WorkOption>) -> RigInput {
    RigInput {
        spec: RigSpec {
            id: RigId::new(id).unwrap(),
            kind,
            feeder: feeder_id(feeder),
            floor: Watts(floor),
            nameplate: Watts(3_800),
            options,
            switch_cost: Money(5_000),
            hand_over_cost: Money(500),
            switch_time: Millis::from_mins(4),
            min_dwell: Millis::ZERO,
        },
        availability: Availability::Ready,
        current: None,
        since: at(0) - HOUR,
    }
}

/// Two ASICs that can be stepped, in one hall, and a GPU rig in another.
fn farm(prices: &[i64]) -> PlanInput {
    let mine = |power_target: Option<u64>| Workload::Mine { power_target: power_target.map(Watts) };
    let asic = |id, gain: i64| {
        let options = vec![
            option(mine(Some(2_000)), 2_000, 215_000 + gain),
            option(mine(None), 3_250, 312_000 + gain),
        ];
        rig(id, RigKind::Asic, "hall-a", 20, options)
    };
    let model = || "Qwen/Qwen3-4B".to_owned();
    let gpu = vec![
        option(Workload::Serve { model: model() }, 1_400, 240_000),
        option(Workload::Prove { model: model() }, 1_500, 90_000),
    ];
    let points = prices.iter().enumerate().map(|(hour, price)| PricePoint {
        at: at(hour as u64),
        price: MicrosPerMwh(price * 1_000_000),
    });
    let rules = PolicyRules { price_hold: HOUR, ..PolicyRules::default() };
    let (slots, _) = PriceSeries::new(points.collect(), HOUR).slots(at(0), HOUR, 8, &[], &rules);
    PlanInput {
        now: at(0),
        slots,
        rigs: vec![
            asic("asic-1", 0),
            asic("asic-2", 12_000),
            rig("gpu-1", RigKind::Gpu, "hall-b", 110, gpu),
        ],
        feeders: vec![
            Feeder { id: feeder_id("site"), parent: None, limit: Watts(9_000) },
            Feeder {
                id: feeder_id("hall-a"),
                parent: Some(feeder_id("site")),
                limit: Watts(7_000),
            },
            Feeder {
                id: feeder_id("hall-b"),
                parent: Some(feeder_id("site")),
                limit: Watts(2_000),
            },
        ],
        rules,
        commitments: Vec::new(),
        holds: Vec::new(),
        orders: Vec::new(),
    }
}

fn commitment() -> Commitment {
    Commitment {
        id: "epoch-412".into(),
        rig: RigId::new("gpu-1").unwrap(),
        workload: Workload::Prove { model: "Qwen/Qwen3-4B".into() },
        from: at(4),
        until: at(6),
        load_lead: Millis::from_mins(20),
        penalty: Money(900_000),
        income: Money(400_000),
        source: IncomeSource::Assumption,
    }
}

fn text(input: &PlanInput) -> String {
    let (planned, notes) = plan(input);
    let guarded = guard::check(input, &planned);
    assert_eq!(guarded.plan, planned, "the guard agrees");
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{}", line.trim_end()).unwrap();
    for note in &notes {
        line(format!("note: {note}"));
    }
    for (index, slot) in planned.slots.iter().enumerate() {
        line(format!(
            "{} {} {:?} {}",
            slot.start,
            slot.price,
            slot.quality,
            planned.power_at(index)
        ));
        for row in &planned.rows {
            let choice = &row.choices[index];
            line(format!(
                "  {:<7} {:<12} {:>7} {:>12} {:<13} {}",
                row.rig,
                choice.workload.to_string(),
                choice.power.to_string(),
                choice.margin.to_string(),
                choice.cause,
                choice.reason
            ));
        }
    }
    line(format!("worth {}", worth(input, &planned)));
    text
}

fn check(name: &str, input: &PlanInput) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.txt"));
    let found = text(input);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{} differs; found:\n{found}", path.display());
}

#[test]
fn a_flat_price_keeps_everything_running() {
    check("flat_price", &farm(&[25; 8]));
}

#[test]
fn a_spike_sends_the_asics_to_sleep() {
    check("spike", &farm(&SPIKE));
}

#[test]
fn a_cap_steps_down_before_it_sheds() {
    let mut input = farm(&[25; 8]);
    input.orders.push(CurtailOrder {
        id: "grid-7".into(),
        feeder: feeder_id("site"),
        limit: Watts(6_700),
        from: at(2),
        until: at(4),
        breaks_commitments: false,
    });
    check("cap", &input);
}

#[test]
fn a_commitment_goes_through_a_spike() {
    let mut input = farm(&SPIKE);
    input.commitments.push(commitment());
    check("commitment_in_a_spike", &input);
}

#[test]
fn a_hold_outranks_price_and_order() {
    let mut input = farm(&SPIKE);
    let rig = RigId::new("asic-1").unwrap();
    let workload = Workload::Mine { power_target: Some(Watts(2_000)) };
    input.holds.push(Hold { rig, workload, operator: "ann".into() });
    let rig = RigId::new("gpu-1").unwrap();
    input.holds.push(Hold { rig, workload: Workload::Idle, operator: "bob".into() });
    check("hold", &input);
}

#[test]
fn prices_that_end_are_held_then_nothing_starts() {
    let mut input = farm(&[25, 30, 28]);
    input.commitments.push(commitment());
    check("stale_prices", &input);
}

#[test]
fn a_silent_rig_counts_at_nameplate() {
    let mut input = farm(&[25; 8]);
    input.rigs[0].availability = Availability::Silent { since: Some(at(0) - HOUR) };
    input.rigs[0].current = Some(Workload::Mine { power_target: None });
    check("silent_rig", &input);
}
