//! Incomes held against the network's own published example, and parts that are missing.

use proptest::prelude::*;

use super::*;

fn decimal(value: i64, exponent: i32) -> Decimal {
    Decimal::new(value, exponent).unwrap()
}

/// One H100 of epoch 410 (457 of 497 724), without collateral rules.
fn h100() -> IncomeParts {
    let at = UnixMillis(100);
    let params = CollateralParams {
        grace_period_end_epoch: 1_000,
        base_weight_ratio: decimal(2, -1),
        per_weight_unit: decimal(32, 6),
        slash_fraction_invalid: decimal(2, -1),
        slash_fraction_downtime: decimal(1, -1),
    };
    IncomeParts {
        epoch: Some(Sourced::read(410, at)),
        rate: Some(Sourced::read(371_550, UnixMillis(50))),
        generate: Some(Sourced::read(Millis::from_mins(5), at)),
        epoch_length: Some(Sourced::read(Millis::from_hours(24), at)),
        coefficient: Some(Sourced::read(decimal(246, -3), at)),
        confirmed_permille: Some(Sourced::read(1_000, at)),
        total_weight: Some(Sourced::read(497_724, at)),
        is_in_total: true,
        host_weight_beside: 0,
        others: None,
        mint: Some(Sourced::read(Ngonka(266_000_000_000_000), at)),
        work: None,
        collateral: Some(Sourced::read(params, at)),
        deposit: Some(Sourced::read(Ngonka(0), at)),
        delegation: Some(Sourced::read(decimal(0, 0), at)),
        vesting_epochs: Some(Sourced::read(180, at)),
        expected_loss: Some(Sourced::read(decimal(0, 0), at)),
        price: Some(Sourced::read(500_000, at)),
    }
}

#[test]
fn the_example_of_epoch_410() {
    let income = Income::of(h100());
    assert_eq!((income.steps.nonces, income.steps.weight), (Some(1_857), Some(456)));
    // 456 / 497 724 of 266 000 GNK are 243.7 GNK; at 0.50 they are 121.85 of the site's money.
    assert_eq!(income.steps.reward, Some(Ngonka(243_701_328_447)));
    let sum = income.sum.unwrap();
    assert_eq!((sum.money, sum.rate), (Money(121_850_664), MicrosPerHour(5_077_111)));
    assert_eq!(sum.source, IncomeSource::Data { at: UnixMillis(50) });
}

#[test]
fn what_is_missing_is_named_and_the_steps_before_it_stand() {
    let mut parts = h100();
    (parts.price, parts.mint) = (None, None);
    let income = Income::of(parts);
    assert_eq!(income.steps.share_millionths, Some(916));
    assert_eq!(income.sum, Err(vec![Part::Mint, Part::Price]));
    assert_eq!(Income::of(IncomeParts::default()).sum.unwrap_err().len(), 12);
    let unconfirmed = IncomeParts { confirmed_permille: None, ..h100() };
    assert_eq!(Income::of(unconfirmed).sum.unwrap().source, IncomeSource::Assumption);
    let priced = IncomeParts { price: Some(Sourced::assumed(500_000)), ..h100() };
    assert_eq!(Income::of(priced).sum.unwrap().source, IncomeSource::Assumption);
}

#[test]
fn caps_collateral_delegation_and_loss_each_take_their_part() {
    let mut parts = h100();
    parts.epoch = Some(Sourced::read(1_410, UnixMillis(100)));
    parts.confirmed_permille = Some(Sourced::read(500, UnixMillis(100)));
    parts.deposit = Some(Sourced::read(Ngonka(32_000_000 * 100), UnixMillis(100)));
    parts.host_weight_beside = 228;
    parts.delegation = Some(Sourced::assumed(decimal(5, -2)));
    parts.expected_loss = Some(Sourced::assumed(decimal(1, -2)));
    let steps = Income::of(parts).steps;
    // Of 684 units of the host a fifth is free and 100 are backed: 236, two thirds of it ours; half is confirmed.
    assert_eq!((steps.weight, steps.backed, steps.confirmed), (Some(456), Some(157), Some(78)));
    assert_eq!(steps.kept, Some(75));
    let (reward, expected) = (steps.reward.unwrap().0, steps.expected.unwrap().0);
    assert_eq!(expected, reward - reward / 100);
    // 456 units want collateral for 364.8 of them; a tenth of that is at stake.
    assert_eq!(steps.slash, Some(Ngonka(32_000_000 * 3_648 / 100)));
}

#[test]
fn a_host_over_its_share_is_cut_and_its_rigs_bear_it() {
    let mut parts = h100();
    parts.host_weight_beside = 544;
    parts.total_weight = Some(Sourced::read(1_600, UnixMillis(100)));
    parts.others = Some(Sourced::read(vec![200, 200, 200], UnixMillis(70)));
    let income = Income::of(parts.clone());
    let steps = &income.steps;
    // The host's 1000 are cut to 257 of 857; of them the rig has 456 thousandths. The divisor stays the full weight.
    assert_eq!((steps.kept, steps.capped), (Some(456), Some(117)));
    assert_eq!(steps.share_millionths, Some(73_125));
    assert_eq!(steps.released, Some(Ngonka(steps.expected.unwrap().0 / 180)));
    let of = |part: Part| income.parts.sources().into_iter().find(|(it, _)| *it == part).unwrap().1;
    assert_eq!(of(Part::Cap), Some(IncomeSource::Data { at: UnixMillis(70) }));
    parts.others = None;
    assert_eq!(Income::of(parts).steps.capped, Some(456), "not known: nothing is cut");
}

proptest! {
    #[test]
    fn no_part_makes_it_panic_and_no_step_grows(
        rate in any::<u64>(), generate in any::<u64>(), coefficient in (any::<i64>(), -18..=18_i32),
        confirmed in any::<u32>(), total in any::<u128>(), mint in any::<u128>(), beside in any::<u64>(),
        deposit in any::<u128>(), price in any::<i64>(), share in (any::<i64>(), -18..=18_i32),
        in_total in any::<bool>(), length in any::<u64>(),
    ) {
        let share = Some(Sourced::assumed(decimal(share.0, share.1)));
        let parts = IncomeParts {
            rate: Some(Sourced::assumed(rate)),
            generate: Some(Sourced::assumed(Millis(generate))),
            epoch_length: Some(Sourced::assumed(Millis(length))),
            coefficient: Some(Sourced::assumed(decimal(coefficient.0, coefficient.1))),
            confirmed_permille: Some(Sourced::assumed(confirmed)),
            total_weight: Some(Sourced::assumed(total)),
            is_in_total: in_total,
            host_weight_beside: beside,
            mint: Some(Sourced::assumed(Ngonka(mint))),
            deposit: Some(Sourced::assumed(Ngonka(deposit))),
            delegation: share,
            expected_loss: share,
            price: Some(Sourced::assumed(price)),
            ..h100()
        };
        let steps = Income::of(parts).steps;
        prop_assert!(steps.backed <= steps.weight && steps.confirmed <= steps.backed);
        prop_assert!(steps.kept <= steps.confirmed && steps.expected <= steps.reward);
    }
}
