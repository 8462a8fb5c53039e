//! No host is paid for more than a part of the network: the chain cuts the largest weights to one cap.
//!
//! The rule and its shares were read in public code around gonka-ai/gonka and in a public audit of mainnet's epochs 245 to
//! 255, which reckons every host's reward with it; the chain's params as read here do not carry the share.

/// Percent of all weight that one host may have, by the number of hosts; `None` for a host alone.
const fn share_percent(hosts: usize) -> Option<u128> {
    match hosts {
        0 | 1 => None,
        2 => Some(50),
        3 => Some(40),
        _ => Some(30),
    }
}

/// The weight above which nobody is paid; `None` when nobody has too much.
///
/// From the lightest up, the first host that would have more than its share even if all heavier ones had no more than it
/// sets the cap: such that every capped host has exactly the share of what is left.
#[must_use]
pub fn power_cap(weights: &[u64]) -> Option<u64> {
    let percent = share_percent(weights.len())?;
    let mut sorted = weights.to_vec();
    sorted.sort_unstable();
    let mut before: u128 = 0;
    for (place, weight) in sorted.iter().copied().enumerate() {
        let (wide, left) = (u128::from(weight), (sorted.len() - place) as u128);
        let flat = before.saturating_add(wide.saturating_mul(left));
        if wide.saturating_mul(100) > percent.saturating_mul(flat) {
            // The condition leaves something of the hundred, or it could not hold.
            let rest = 100_u128.saturating_sub(percent.saturating_mul(left)).max(1);
            return u64::try_from(percent.saturating_mul(before) / rest).ok();
        }
        before = before.saturating_add(wide);
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_largest_are_cut_to_their_share() {
        assert_eq!(power_cap(&[]), None);
        assert_eq!(power_cap(&[9]), None, "a host alone has all of it");
        assert_eq!(power_cap(&[10, 10]), None);
        assert_eq!(power_cap(&[10, 30]), Some(10));
        assert_eq!(power_cap(&[30, 30, 40]), None);
        // 40 % of 100 = 60 + cap, so the cap is 40 of 100.
        assert_eq!(power_cap(&[100, 20, 40]), Some(40));
        // 0.3 * (60 + cap) = cap: 25 of 85.
        assert_eq!(power_cap(&[100, 20, 20, 20]), Some(25));
        assert_eq!(power_cap(&[25, 25, 25, 25]), None);
    }

    proptest! {
        #[test]
        fn whatever_the_weights_a_capped_host_has_no_more_than_its_share(
            weights in prop::collection::vec(any::<u64>(), 4..12),
        ) {
            let capped: Vec<u64> = match power_cap(&weights) {
                Some(cap) => weights.iter().map(|weight| *weight.min(&cap)).collect(),
                None => weights,
            };
            let total: u128 = capped.iter().map(|weight| u128::from(*weight)).sum();
            let largest = u128::from(capped.iter().copied().max().unwrap_or(0));
            prop_assert!(largest * 100 <= total * 30);
        }
    }
}
