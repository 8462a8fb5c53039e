//! What a rig may expect of an epoch, with its parts kept apart: a sum nobody can take to pieces convinces nobody.
//!
//! Every part has a source, the chain, a measurement or the operator, and an age. A part that is needed and not known
//! gives no sum, and the answer says which one it is; the steps before it are still shown.

use std::fmt;

use roadbed_protocol::{MicrosPerHour, Millis, Money, UnixMillis};

use super::{CollateralParams, Decimal, Ngonka, Stake, power_cap};
use crate::plan::IncomeSource;

/// Ngonka in one GNK.
const NGONKA_PER_GNK: i128 = 1_000_000_000;

/// A figure with where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The figure.
    pub value: T,
    /// Data with its time, or an assumption.
    pub source: IncomeSource,
}

impl<T> Sourced<T> {
    /// A figure that was true at `at`.
    pub const fn read(value: T, at: UnixMillis) -> Self {
        Self { value, source: IncomeSource::Data { at } }
    }

    /// A figure the operator wrote down.
    pub const fn assumed(value: T) -> Self {
        Self { value, source: IncomeSource::Assumption }
    }
}

/// What the figure is made of. `None` is "not known", never zero.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IncomeParts {
    /// Epoch it is asked for; needed.
    pub epoch: Option<Sourced<u64>>,
    /// Thousandths of a nonce per minute, as the rig measured it; needed.
    pub rate: Option<Sourced<u64>>,
    /// How long nonces are taken; needed. From the first block to the wind-down is what is sure.
    pub generate: Option<Sourced<Millis>>,
    /// Length of an epoch; needed for a rate by the hour.
    pub epoch_length: Option<Sourced<Millis>>,
    /// Weight of a nonce of the model; needed.
    pub coefficient: Option<Sourced<Decimal>>,
    /// Share of the weight that confirmation PoCs bore out, in thousandths. Without it all of it is taken to be, which
    /// makes the figure an assumption.
    pub confirmed_permille: Option<Sourced<u32>>,
    /// Weight of all hosts; needed.
    pub total_weight: Option<Sourced<u128>>,
    /// The rig's weight is in that total.
    pub is_in_total: bool,
    /// Weight of the host's other rigs: collateral is the host's, not a rig's.
    pub host_weight_beside: u64,
    /// Weights of all other hosts, for the cap on one host. Without them nothing is cut.
    pub others: Option<Sourced<Vec<u64>>>,
    /// What the epoch mints; needed.
    pub mint: Option<Sourced<Ngonka>>,
    /// Fees of inference the rig may expect in an epoch. Without it none are counted.
    pub work: Option<Sourced<Ngonka>>,
    /// The chain's rules of collateral; needed.
    pub collateral: Option<Sourced<CollateralParams>>,
    /// The host's deposit; needed.
    pub deposit: Option<Sourced<Ngonka>>,
    /// Share of the weight given away or taken for models not served (5 % delegated, 10 % refused, 15 % neither, each
    /// model); needed, and nought is an answer.
    pub delegation: Option<Sourced<Decimal>>,
    /// Epochs over which a reward is paid out (`reward_vesting_period`). Without it nothing is said of when it comes.
    pub vesting_epochs: Option<Sourced<u64>>,
    /// Share of epochs expected to be lost (missed requests, failed confirmations); needed, and nought is an answer.
    pub expected_loss: Option<Sourced<Decimal>>,
    /// Millionths of the site's currency for one GNK; needed, and only the operator can know it.
    pub price: Option<Sourced<i64>>,
}

/// One of the parts, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// See [`IncomeParts::epoch`].
    Epoch,
    /// See [`IncomeParts::rate`].
    Rate,
    /// See [`IncomeParts::generate`].
    Generate,
    /// See [`IncomeParts::epoch_length`].
    EpochLength,
    /// See [`IncomeParts::coefficient`].
    Coefficient,
    /// See [`IncomeParts::confirmed_permille`].
    Confirmed,
    /// See [`IncomeParts::total_weight`].
    TotalWeight,
    /// See [`IncomeParts::others`].
    Cap,
    /// See [`IncomeParts::mint`].
    Mint,
    /// See [`IncomeParts::work`].
    Work,
    /// See [`IncomeParts::collateral`].
    Collateral,
    /// See [`IncomeParts::deposit`].
    Deposit,
    /// See [`IncomeParts::delegation`].
    Delegation,
    /// See [`IncomeParts::vesting_epochs`].
    Vesting,
    /// See [`IncomeParts::expected_loss`].
    ExpectedLoss,
    /// See [`IncomeParts::price`].
    Price,
}

impl Part {
    /// The words people read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Epoch => "the epoch",
            Self::Rate => "the rig's nonces per minute",
            Self::Generate => "the length of the generate stage",
            Self::EpochLength => "the length of an epoch",
            Self::Coefficient => "the model's coefficient",
            Self::Confirmed => "the confirmed share of the weight",
            Self::TotalWeight => "the network's total weight",
            Self::Cap => "the cap on one host (a rule read in public code, by the weights of all)",
            Self::Mint => "the epoch's mint",
            Self::Work => "fees of inference",
            Self::Collateral => "the chain's collateral rules",
            Self::Deposit => "the host's collateral",
            Self::Delegation => "the delegation shares",
            Self::Vesting => "the epochs over which a reward is paid out",
            Self::ExpectedLoss => "the share of epochs expected to be lost",
            Self::Price => "the operator's price of a GNK",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// The steps from nonces to money; each is there as far as the parts before it are known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Steps {
    /// Nonces of one generate stage.
    pub nonces: Option<u64>,
    /// Nonces by the coefficient.
    pub weight: Option<u64>,
    /// Of it, what is free or backed by collateral: the weight the epoch begins with.
    pub backed: Option<u64>,
    /// Of it, what is confirmed.
    pub confirmed: Option<u64>,
    /// Of it, what delegation leaves.
    pub kept: Option<u64>,
    /// Of it, what the cap on one host leaves.
    pub capped: Option<u64>,
    /// Millionths of all weight.
    pub share_millionths: Option<u64>,
    /// That share of the mint.
    pub reward: Option<Ngonka>,
    /// Reward and fees, less the epochs expected to be lost.
    pub expected: Option<Ngonka>,
    /// What of that is paid out with each epoch of its vesting.
    pub released: Option<Ngonka>,
    /// Collateral slashed when the epoch is broken off.
    pub slash: Option<Ngonka>,
}

/// What an epoch brings, in the site's money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochIncome {
    /// By the epoch. It vests over 180 epochs; the price is today's.
    pub money: Money,
    /// The same by the hour.
    pub rate: MicrosPerHour,
    /// What the slashed collateral is worth.
    pub slash: Money,
    /// An assumption if one part is, else the age of the oldest part.
    pub source: IncomeSource,
}

impl EpochIncome {
    /// The same as what a commitment stakes.
    #[must_use]
    pub const fn stake(&self) -> Stake {
        Stake { income: self.money, penalty: self.slash, source: self.source }
    }
}

/// Expected income of one rig, its parts and its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Income {
    /// What went in.
    pub parts: IncomeParts,
    /// How far it went.
    pub steps: Steps,
    /// The sum, or the parts that are missing for it.
    pub sum: Result<EpochIncome, Vec<Part>>,
}

impl Income {
    /// Goes as far as the parts allow. The divisions are the chain's: each cuts to a whole number. What it is worth that a
    /// reward is paid out over many epochs nobody can reckon without a price to come; the sum is today's.
    #[must_use]
    pub fn of(parts: IncomeParts) -> Self {
        let steps = steps(&parts);
        let sum = sum(&parts, &steps);
        Self { parts, steps, sum }
    }
}

fn steps(parts: &IncomeParts) -> Steps {
    let nonces = both(parts.rate, parts.generate).map(|(rate, generate)| {
        let nonces = u128::from(rate) * u128::from(generate.0) / 60_000_000;
        u64::try_from(nonces).unwrap_or(u64::MAX)
    });
    let scaled = |share: Decimal, weight: u64| {
        let part = share.of(i128::from(weight)).clamp(0, i128::from(u64::MAX));
        u64::try_from(part).unwrap_or(u64::MAX)
    };
    let weight = nonces
        .zip(parts.coefficient)
        .map(|(nonces, coefficient)| scaled(coefficient.value, nonces));
    let backed = weight.and_then(|weight| {
        let (params, deposit) = both(parts.collateral, parts.deposit)?;
        let host = parts.host_weight_beside.saturating_add(weight);
        let backed = params.backed(host, deposit, parts.epoch?.value);
        let part = u128::from(weight) * u128::from(backed) / u128::from(host.max(1));
        u64::try_from(part).ok()
    });
    let borne_out = parts.confirmed_permille.map_or(1_000, |share| share.value.min(1_000));
    let confirmed = backed.map(|weight| {
        let part = u128::from(weight) * u128::from(borne_out) / 1_000;
        u64::try_from(part).unwrap_or(weight)
    });
    let kept = confirmed
        .zip(parts.delegation)
        .map(|(weight, share)| weight.saturating_sub(scaled(share.value, weight)));
    let capped = kept.map(|kept| {
        let host = parts.host_weight_beside.saturating_add(kept);
        let cap = parts.others.as_ref().and_then(|others| {
            let all: Vec<u64> = others.value.iter().copied().chain([host]).collect();
            power_cap(&all)
        });
        match cap.filter(|cap| *cap < host) {
            // The chain cuts the host; its rigs bear it by their weight.
            Some(cap) => {
                let part = u128::from(kept) * u128::from(cap) / u128::from(host.max(1));
                u64::try_from(part).unwrap_or(kept)
            }
            None => kept,
        }
    });
    // The chain divides by what hosts entered the epoch with: what is taken from one is not given to the others.
    let total = backed.zip(parts.total_weight).map(|(backed, total)| {
        let beside = if parts.is_in_total { 0 } else { u128::from(backed) };
        total.value.saturating_add(beside).max(1)
    });
    let share_millionths = capped.zip(total).map(|(kept, total)| {
        u64::try_from(u128::from(kept) * 1_000_000 / total).unwrap_or(u64::MAX)
    });
    let reward = capped.zip(total).and_then(|(kept, total)| {
        Some(Ngonka(parts.mint?.value.0.saturating_mul(u128::from(kept)) / total))
    });
    let expected = reward.zip(parts.expected_loss).map(|(reward, loss)| {
        let work = parts.work.map_or(0, |work| work.value.0);
        let gross = i128::try_from(reward.0.saturating_add(work)).unwrap_or(i128::MAX);
        let lost = loss.value.of(gross).clamp(0, gross);
        Ngonka(u128::try_from(gross - lost).unwrap_or(0))
    });
    let released = expected
        .zip(parts.vesting_epochs)
        .map(|(expected, epochs)| Ngonka(expected.0 / u128::from(epochs.value.max(1))));
    let slash = weight.zip(parts.collateral).map(|(weight, params)| {
        let required = i128::try_from(params.value.required(weight).0).unwrap_or(i128::MAX);
        let slash = params.value.slash_fraction_downtime.of(required).clamp(0, required);
        Ngonka(u128::try_from(slash).unwrap_or(0))
    });
    Steps {
        nonces,
        weight,
        backed,
        confirmed,
        kept,
        capped,
        share_millionths,
        reward,
        expected,
        released,
        slash,
    }
}

fn both<A: Copy, B: Copy>(a: Option<Sourced<A>>, b: Option<Sourced<B>>) -> Option<(A, B)> {
    Some((a?.value, b?.value))
}

fn sum(parts: &IncomeParts, steps: &Steps) -> Result<EpochIncome, Vec<Part>> {
    let sources = parts.sources();
    let missing: Vec<Part> = sources
        .iter()
        .filter(|(part, source)| source.is_none() && part.is_needed())
        .map(|(part, _)| *part)
        .collect();
    let (Some(expected), Some(slash), Some(price), Some(length), true) =
        (steps.expected, steps.slash, parts.price, parts.epoch_length, missing.is_empty())
    else {
        return Err(missing);
    };
    let assumed = sources.iter().any(|(part, source)| {
        *source == Some(IncomeSource::Assumption) || (*part == Part::Confirmed && source.is_none())
    });
    let oldest = sources
        .iter()
        .filter_map(|(_, source)| match source {
            Some(IncomeSource::Data { at }) => Some(*at),
            Some(IncomeSource::Assumption) | None => None,
        })
        .min();
    let source = match oldest {
        Some(at) if !assumed => IncomeSource::Data { at },
        Some(_) | None => IncomeSource::Assumption,
    };
    let money = |amount: Ngonka| {
        let amount = i128::try_from(amount.0).unwrap_or(i128::MAX);
        let micros = amount.saturating_mul(i128::from(price.value)) / NGONKA_PER_GNK;
        Money(i64::try_from(micros).unwrap_or(if micros < 0 { i64::MIN } else { i64::MAX }))
    };
    let income = money(expected);
    let hour = i128::from(Millis::from_hours(1).0);
    let rate = i128::from(income.0) * hour / i128::from(length.value.0.max(1));
    let rate = i64::try_from(rate).unwrap_or(if rate < 0 { i64::MIN } else { i64::MAX });
    Ok(EpochIncome { money: income, rate: MicrosPerHour(rate), slash: money(slash), source })
}

impl Part {
    /// True when no sum is given without it.
    #[must_use]
    pub const fn is_needed(self) -> bool {
        match self {
            Self::Confirmed | Self::Cap | Self::Work | Self::Vesting => false,
            Self::Epoch
            | Self::Rate
            | Self::Generate
            | Self::EpochLength
            | Self::Coefficient
            | Self::TotalWeight
            | Self::Mint
            | Self::Collateral
            | Self::Deposit
            | Self::Delegation
            | Self::ExpectedLoss
            | Self::Price => true,
        }
    }
}

impl IncomeParts {
    /// Every part with its source, in the order of the steps; `None` is not known.
    #[must_use]
    pub fn sources(&self) -> [(Part, Option<IncomeSource>); 16] {
        fn of<T>(part: Option<&Sourced<T>>) -> Option<IncomeSource> {
            part.map(|part| part.source)
        }
        [
            (Part::Epoch, of(self.epoch.as_ref())),
            (Part::Rate, of(self.rate.as_ref())),
            (Part::Generate, of(self.generate.as_ref())),
            (Part::EpochLength, of(self.epoch_length.as_ref())),
            (Part::Coefficient, of(self.coefficient.as_ref())),
            (Part::Confirmed, of(self.confirmed_permille.as_ref())),
            (Part::TotalWeight, of(self.total_weight.as_ref())),
            (Part::Cap, of(self.others.as_ref())),
            (Part::Mint, of(self.mint.as_ref())),
            (Part::Work, of(self.work.as_ref())),
            (Part::Collateral, of(self.collateral.as_ref())),
            (Part::Deposit, of(self.deposit.as_ref())),
            (Part::Delegation, of(self.delegation.as_ref())),
            (Part::Vesting, of(self.vesting_epochs.as_ref())),
            (Part::ExpectedLoss, of(self.expected_loss.as_ref())),
            (Part::Price, of(self.price.as_ref())),
        ]
    }
}

#[cfg(test)]
mod tests;
