//! Booking: samples and events into priced ledger entries.

use roadbed_protocol::{
    EventKind, Millis, Money, RigEventReport, RigState, TelemetryBatch, TelemetrySample,
};

use super::Farm;
use crate::forecast::PriceQuality;
use crate::ledger::{Entry, Part};
use crate::plan::{IncomeSource, RigSpec, WorkOption};

/// A sample's hashrate may exceed the option's by this much before it is no longer believed, in percent.
const HASHRATE_PERCENT_MAX: u64 = 120;

impl Farm {
    pub(super) fn booked_samples(&self, batch: &TelemetryBatch) -> Entry {
        let spec = self.rig(&batch.rig).map(|view| &view.member.spec);
        let parts = batch
            .samples
            .iter()
            .flat_map(|sample| {
                let income = spec.and_then(|spec| income(spec, sample));
                std::iter::once(self.energy(batch, sample)).chain(income)
            })
            .collect();
        Entry {
            agent: Some(batch.agent.clone()),
            journal: batch.journal.clone(),
            seq: batch.seq,
            parts,
        }
    }

    /// A sample's energy at the price of its middle.
    fn energy(&self, batch: &TelemetryBatch, sample: &TelemetrySample) -> Part {
        let energy = sample.power.watts.over(sample.span);
        let middle = sample.at - Millis(sample.span.0 / 2);
        let price = match self.prices.at(middle, &self.settings.rules) {
            (price, PriceQuality::Known | PriceQuality::Held) => Some(price),
            (_, PriceQuality::Missing) => None,
        };
        Part::Energy {
            rig: batch.rig.clone(),
            at: sample.at,
            span: sample.span,
            energy,
            source: sample.power.source,
            price,
            cost: price.map_or(Money::ZERO, |price| energy.cost(price)),
        }
    }
}

/// What a sample earned: the option's rate while its workload runs, less where it hashes more slowly.
fn income(spec: &RigSpec, sample: &TelemetrySample) -> Option<Part> {
    let workload = sample.workload.as_ref().filter(|_| sample.state == RigState::Running)?;
    let option = spec.options.iter().find(|option| option.workload == *workload)?;
    let full = option.income_at(0).over(sample.span);
    let money = scaled(full, option, sample);
    (money != Money::ZERO).then(|| Part::Income {
        rig: spec.id.clone(),
        at: sample.at,
        kind: workload.kind(),
        money,
        assumed: option.source == IncomeSource::Assumption,
    })
}

fn scaled(full: Money, option: &WorkOption, sample: &TelemetrySample) -> Money {
    let (Some(nominal), Some(hashrate)) = (option.hashrate, sample.hashrate) else { return full };
    let most = u128::from(nominal.0) * u128::from(HASHRATE_PERCENT_MAX) / 100;
    let believed = i128::try_from(u128::from(hashrate.0).min(most)).unwrap_or(i128::MAX);
    let nominal = i128::from(nominal.0.max(1));
    Money(i64::try_from(i128::from(full.0) * believed / nominal).unwrap_or(full.0))
}

pub(super) fn booked_event(event: &RigEventReport) -> Entry {
    let part = match &event.kind {
        EventKind::Switched { from, to } => Some(Part::Switch {
            rig: event.rig.clone(),
            at: event.at,
            from: from.clone(),
            to: to.clone(),
            reason: event.reason.clone(),
        }),
        EventKind::ArtifactsDelivered { block_hash, nonces } => Some(Part::Artifacts {
            rig: event.rig.clone(),
            block_hash: block_hash.clone(),
            nonces: nonces.clone(),
        }),
        EventKind::StateChanged { .. }
        | EventKind::Tripped
        | EventKind::Fault
        | EventKind::Refused
        | EventKind::LeaseLapsed
        | EventKind::Unconfirmed
        | EventKind::CallbackRefused { .. } => None,
    };
    Entry {
        agent: Some(event.agent.clone()),
        journal: event.journal.clone(),
        seq: event.seq,
        parts: part.into_iter().collect(),
    }
}
