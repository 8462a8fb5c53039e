//! The chain's rules that decide what a proof is worth and when it is asked for again (the `inference` module's params).
//!
//! Governance changes them; a field that an older chain does not have is absent here and what needs it gives no answer.

use super::{Decimal, EpochStages, Height, Ngonka, StageWindow};

/// When and how a weight is confirmed inside the epoch (`confirmation_poc_params` and three fields of `epoch_params`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfirmationParams {
    /// Mean number of confirmation PoCs in an epoch, no upper bound; 4 on mainnet.
    pub expected_per_epoch: u32,
    /// Confirmed share of the weight below which the host is jailed and loses the epoch; 0.5 on mainnet.
    pub alpha_threshold: Decimal,
    /// Blocks between the trigger and generation (`inference_validation_cutoff`).
    pub cutoff: Option<u32>,
    /// `poc_exchange_duration`, in blocks.
    pub exchange: Option<u32>,
    /// Blocks before a PoC start in which no confirmation PoC runs (`confirmation_poc_safety_window`; 500 since v0.2.12,
    /// 0 and 50 before it).
    pub safety_window: Option<u32>,
}

impl ConfirmationParams {
    /// Blocks of the epoch in which a confirmation PoC may start. The last trigger is early enough that the whole event
    /// ends before the safety window; without the three fields it may be any block of the inference phase.
    #[must_use]
    pub fn triggers(&self, stages: &EpochStages) -> StageWindow {
        let event = stages.set_new_validators.0.saturating_sub(stages.poc_start.0).max(0);
        let spare = match (self.cutoff, self.exchange, self.safety_window) {
            (Some(cutoff), Some(exchange), Some(safety)) => {
                let around = i64::from(cutoff) + i64::from(exchange) + i64::from(safety);
                event.saturating_add(around).saturating_sub(1)
            }
            (None, _, _) | (_, None, _) | (_, _, None) => 0,
        };
        let start = stages.set_new_validators;
        let end = Height(stages.next_poc_start.0.saturating_sub(spare)).max(start);
        StageWindow { start, end }
    }

    /// Blocks before the next PoC start in which no confirmation PoC runs; `None` when the chain does not say or has none.
    #[must_use]
    pub fn quiet(&self, stages: &EpochStages) -> Option<StageWindow> {
        let safety = self.safety_window.filter(|blocks| *blocks > 0)?;
        let end = stages.next_poc_start;
        let start = Height(end.0.saturating_sub(i64::from(safety))).max(stages.set_new_validators);
        (start < end).then_some(StageWindow { start, end })
    }
}

/// How much of a weight must be backed (`collateral_params`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollateralParams {
    /// Last epoch in which every weight counts without collateral.
    pub grace_period_end_epoch: u64,
    /// Part of a weight that counts without collateral; 0.2.
    pub base_weight_ratio: Decimal,
    /// Ngonka that back one unit of the rest. Zero: any deposit backs it all.
    pub per_weight_unit: Decimal,
    /// Part of the required collateral lost for an invalid inference.
    pub slash_fraction_invalid: Decimal,
    /// Part of it lost for missed requests or a jail.
    pub slash_fraction_downtime: Decimal,
}

impl CollateralParams {
    /// The weight that counts of a host's `weight`, with `deposit` behind it, in `epoch`. The chain's own steps: base
    /// part, the rest as far as it is backed, cut to a whole number at the end.
    #[must_use]
    pub fn backed(&self, weight: u64, deposit: Ngonka, epoch: u64) -> u64 {
        if epoch <= self.grace_period_end_epoch {
            return weight;
        }
        let scaled = |weight: u64| i128::from(weight) * WEIGHT_SCALE;
        let whole = scaled(weight);
        let base = self.base_weight_ratio.of(whole).clamp(0, whole);
        let eligible = whole - base;
        let deposit = i128::try_from(deposit.0).unwrap_or(i128::MAX);
        let activated = if deposit == 0 {
            0
        } else if self.per_weight_unit.value <= 0 {
            eligible
        } else {
            self.per_weight_unit
                .divide(deposit.saturating_mul(WEIGHT_SCALE))
                .map_or(eligible, |weight| weight.min(eligible))
        };
        u64::try_from((base + activated) / WEIGHT_SCALE).unwrap_or(u64::MAX)
    }

    /// Collateral that makes all of `weight` count.
    #[must_use]
    pub fn required(&self, weight: u64) -> Ngonka {
        let whole = i128::from(weight) * WEIGHT_SCALE;
        let eligible = whole - self.base_weight_ratio.of(whole).clamp(0, whole);
        let needed = self.per_weight_unit.of(eligible).max(0);
        let needed = needed / WEIGHT_SCALE + i128::from(needed % WEIGHT_SCALE != 0);
        Ngonka(u128::try_from(needed).unwrap_or(0))
    }
}

/// Weights are carried with nine more digits until the end, so that only one cut to a whole number is made.
const WEIGHT_SCALE: i128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gonka::fixture::{confirmation, stages};

    fn decimal(value: i64, exponent: i32) -> Decimal {
        Decimal::new(value, exponent).unwrap()
    }

    fn params() -> CollateralParams {
        CollateralParams {
            grace_period_end_epoch: 180,
            base_weight_ratio: decimal(2, -1),
            per_weight_unit: decimal(32, 6),
            slash_fraction_invalid: decimal(5, -3),
            slash_fraction_downtime: decimal(1, -4),
        }
    }

    #[test]
    fn a_fifth_is_free_and_the_rest_wants_collateral() {
        let params = params();
        let deposit = |gnk: u128| Ngonka(gnk * 1_000_000_000);
        assert_eq!(params.backed(1_000, Ngonka(0), 180), 1_000);
        assert_eq!(params.backed(1_000, Ngonka(0), 181), 200);
        // 0.032 GNK a unit: 12.8 GNK back 400 of the 800.
        assert_eq!(params.backed(1_000, Ngonka(12_800_000_000), 181), 600);
        assert_eq!(params.required(1_000), Ngonka(25_600_000_000));
        assert_eq!(params.backed(1_000, params.required(1_000), 181), 1_000);
        assert_eq!(params.backed(1_000, deposit(1_000_000), 181), 1_000);
        let free = CollateralParams { per_weight_unit: decimal(0, 0), ..params };
        assert_eq!(
            (free.backed(1_000, Ngonka(1), 181), free.backed(1_000, Ngonka(0), 181)),
            (1_000, 200)
        );
    }

    #[test]
    fn the_last_confirmation_ends_before_the_quiet_blocks() {
        let stages = stages(100_000, 15_391);
        let params = confirmation();
        let quiet = params.quiet(&stages).unwrap();
        assert_eq!((quiet.start, quiet.end), (Height(114_891), Height(115_391)));
        let triggers = params.triggers(&stages);
        assert_eq!(triggers.start, stages.set_new_validators);
        // Trigger, cut-off, generation to new validators and the exchange: the last event ends where the quiet begins.
        assert_eq!(triggers.end.0 - 1 + 2 + 665 + 5, quiet.start.0);
        let unknown = ConfirmationParams { safety_window: None, ..params };
        assert_eq!(unknown.quiet(&stages), None);
        assert_eq!(unknown.triggers(&stages).end, stages.next_poc_start);
    }
}
