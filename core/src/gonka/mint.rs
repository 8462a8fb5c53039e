//! What the chain mints in an epoch: `initial * exp(decay)^(epoch - genesis)`, in whole ngonka.
//!
//! The chain does not take the exponential of a product: it looks `exp(decay)` up as a decimal of sixteen places and raises
//! that to a whole power. The same is done here in fixed point, so the figure is the chain's own but for the last ngonka;
//! for a rate that its table does not hold (it mints nothing then) the exponential is worked out.

use super::{Decimal, Ngonka};

/// How the chain mints (`bitcoin_reward_params`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MintParams {
    /// Minted in the genesis epoch; 323 000 GNK on mainnet.
    pub initial: Ngonka,
    /// Logarithm of the change from one epoch to the next; -0.000475 on mainnet.
    pub decay: Decimal,
    /// The first epoch; 1 on mainnet.
    pub genesis_epoch: u64,
}

impl MintParams {
    /// What `epoch` mints for all hosts together. `None` before the genesis epoch, when the decay is not between -1 and
    /// 1, and when the sum leaves 128 bits.
    #[must_use]
    pub fn of_epoch(&self, epoch: u64) -> Option<Ngonka> {
        let elapsed = epoch.checked_sub(self.genesis_epoch)?;
        let step =
            if self.decay == MAINNET_DECAY { MAINNET_STEP } else { exponential(self.decay)? };
        let step = (step << 64) / PLACES;
        mul_q64(self.initial.0, power(step, elapsed)?).map(Ngonka)
    }
}

/// Sixteen decimal places.
const PLACES: u128 = 10_000_000_000_000_000;
/// Mainnet's rate, and its exponential in the chain's table: a double's shortest form, half a unit above the true value
/// in the last place, which makes 7 ngonka in epoch 410.
const MAINNET_DECAY: Decimal = Decimal { value: -475, exponent: -6 };
const MAINNET_STEP: u128 = 9_995_251_127_946_402;
/// One, with 62 bits behind the point: a product of two numbers below 2 fits an `i128`.
const ONE_Q62: i128 = 1 << 62;

/// `exp(rate)` in units of 1e-16, rounded, for rates from -1 to 1.
fn exponential(rate: Decimal) -> Option<u128> {
    let rate = rate.of(ONE_Q62);
    if rate.abs() > ONE_Q62 {
        return None;
    }
    let (mut sum, mut term) = (ONE_Q62, ONE_Q62);
    // 1/21! is below 2^-62.
    for n in 1..=21 {
        term = (term * rate) / (ONE_Q62 * n);
        sum += term;
    }
    let places = i128::try_from(PLACES).ok()?;
    u128::try_from((sum * places + ONE_Q62 / 2) / ONE_Q62).ok()
}

/// `base^exponent` with 64 bits behind the point.
fn power(mut base: u128, mut exponent: u64) -> Option<u128> {
    let mut result = 1_u128 << 64;
    while exponent > 0 {
        if exponent % 2 == 1 {
            result = mul_q64(result, base)?;
        }
        exponent /= 2;
        if exponent > 0 {
            base = mul_q64(base, base)?;
        }
    }
    Some(result)
}

/// `a * b / 2^64`, cut; `None` when it leaves 128 bits.
fn mul_q64(a: u128, b: u128) -> Option<u128> {
    const LOW: u128 = (1 << 64) - 1;
    let high = (a >> 64).checked_mul(b)?;
    let middle = (a & LOW).checked_mul(b >> 64)?;
    let low = ((a & LOW) * (b & LOW)) >> 64;
    high.checked_add(middle)?.checked_add(low)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mainnet() -> MintParams {
        let decay = Decimal::new(-475, -6).unwrap();
        MintParams { initial: Ngonka(323_000_000_000_000), decay, genesis_epoch: 1 }
    }

    #[test]
    fn mainnet_mints_what_is_known() {
        let minted = |epoch| mainnet().of_epoch(epoch).unwrap().0;
        assert_eq!(minted(1), 323_000_000_000_000);
        // By decimals of forty places.
        assert!((265_968_351_724_181..=265_968_351_724_182).contains(&minted(410)));
        assert_eq!(mainnet().of_epoch(0), None);
        assert_eq!(exponential(mainnet().decay), Some(MAINNET_STEP - 1));
        assert_eq!(exponential(Decimal::new(1, -4).unwrap()), Some(10_001_000_050_001_667));
        assert_eq!(exponential(Decimal::new(-1, -6).unwrap()), Some(9_999_990_000_005_000));
    }

    proptest! {
        #[test]
        fn it_is_the_exponential_and_never_panics(
            initial in 0_u64..=1 << 60,
            decay in -100_000_i64..=100_000,
            exponent in -8_i32..=-4,
            epoch in 0_u64..20_000,
        ) {
            let decay = Decimal::new(decay, exponent).unwrap();
            let params = MintParams { initial: Ngonka(initial.into()), decay, genesis_epoch: 1 };
            let rate = decay.value as f64 * 10_f64.powi(exponent);
            if let Some(minted) = params.of_epoch(epoch) {
                let expected = initial as f64 * (rate * (epoch - 1) as f64).exp();
                let error = (minted.0 as f64 - expected).abs();
                // An error in the sixteenth place of the step grows with the number of steps, 2^-64 of the whole with it.
                let allowed = expected * 1e-9 + initial as f64 * 1e-15 + 2.0;
                prop_assert!(error <= allowed, "{minted:?} for {expected}");
            }
            if rate <= 0.0 && epoch >= 1 && rate >= -1.0 {
                prop_assert!(params.of_epoch(epoch).is_some_and(|minted| minted.0 <= u128::from(initial)));
            }
        }
    }
}
