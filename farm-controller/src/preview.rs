//! A plan without a running farm: what the planner would do if every rig were ready and asleep.

use farm_core::guard;
use farm_core::plan::{Availability, PlanInput, RigInput, plan};
use roadbed_protocol::UnixMillis;

use crate::coins::CoinSource;
use crate::config::Site;
use crate::control::snapshot::{Memory, plan_view};
use crate::feeds::{self, FeedError, Hashing};
use crate::hashprice::{HashpriceSource, Kept, Source as _};
use crate::view::PlanView;

/// Plans for the farm as it would start at `now`.
///
/// # Errors
/// [`FeedError`] when the prices cannot be read.
pub fn preview(site: &Site, now: UnixMillis) -> Result<PlanView, FeedError> {
    let input = input(site, now)?;
    let (planned, mut notes) = plan(&input);
    let guarded = guard::check(&input, &planned);
    notes.extend(guarded.notes);
    let memory = Memory {
        notes: notes.iter().map(ToString::to_string).collect(),
        sheds: guarded.sheds.iter().map(|shed| format!("{}: {}", shed.rig, shed.reason)).collect(),
        ..Memory::default()
    };
    Ok(plan_view(&guarded.plan, &memory))
}

/// What the planner would be asked at `now`.
///
/// # Errors
/// [`FeedError`] when the prices cannot be read.
pub fn input(site: &Site, now: UnixMillis) -> Result<PlanInput, FeedError> {
    let settings = site.settings();
    let timing = settings.timing;
    let cuts: Vec<UnixMillis> = site
        .commitments
        .iter()
        .flat_map(|commitment| [commitment.from - commitment.load_lead, commitment.until])
        .collect();
    let (slots, _) = feeds::prices(site, now)?.slots(
        now,
        timing.slot,
        timing.horizon_slots,
        &cuts,
        &settings.rules,
    );
    // As a running controller last heard it, if one did.
    let kept = Kept::in_folder(&site.state_dir, HashpriceSource::FILE).read();
    let coins = Kept::in_folder(&site.state_dir, CoinSource::FILE).read();
    let price = feeds::hash_income(site, kept.as_ref(), now);
    let hashing = Hashing { price, coins: coins.as_ref(), rates: &[] };
    let rigs = settings
        .rigs
        .iter()
        .zip(&site.rigs)
        .map(|(member, rig)| {
            let mut spec = member.spec.clone();
            spec.options = feeds::options(site, rig, &site.commitments, hashing, now);
            RigInput {
                spec,
                availability: Availability::Ready,
                current: None,
                since: UnixMillis(0),
            }
        })
        .collect();
    Ok(PlanInput {
        now,
        slots,
        rigs,
        feeders: settings.feeders,
        rules: settings.rules,
        commitments: feeds::commitments(&site.commitments),
        holds: Vec::new(),
        orders: Vec::new(),
    })
}
