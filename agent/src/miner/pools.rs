//! Which pool of a list is hashed for, and which are kept connected. Pure: events and the time in, a decision out.
//!
//! Pools of the lowest priority number that is up are hashed for; among equals the hashes are shared by weight. A pool
//! that goes down is left at once, and a fallback, once hashed for, is left only for a pool that has proved itself: up
//! without a break for a minute, longer each time it fails soon after.
//!
//! Shares of a split are counted in hashes done. Time would pay a paused or throttled pool; accepted difficulty is luck
//! on a small rig, and a pool that lies about it, or refuses everything, would draw more and more.

use std::num::NonZeroU32;

use roadbed_protocol::Millis;

use super::dialect::Cause;

/// How long a pool that failed must be up before hashing returns to it.
const RETURN_AFTER: Millis = Millis::from_secs(60);
/// The same at most, after failing again and again.
const RETURN_AFTER_MAX: Millis = Millis::from_secs(30 * 60);
/// A pool that was up for this long beyond its proof has made good its earlier failures.
const CALM_AFTER: Millis = Millis::from_secs(10 * 60);
/// How long a pool may take to be up before the next of the list is connected as well.
const GRACE: Millis = Millis::from_secs(10);
/// A pool that refused our shares is left alone for this long, doubled each time it does so again.
const BENCH: Millis = Millis::from_secs(60);
/// The same at most.
const BENCH_MAX: Millis = Millis::from_secs(30 * 60);
/// A pool that is no longer hashed for stays connected for this long, so that shares under way are answered.
const LINGER: Millis = Millis::from_secs(30);
/// Time between two changes among pools that share by weight: long beside a job switch, short beside a payout.
const SLICE: Millis = Millis::from_secs(30);
/// Bits behind the point of a hash count divided by its weight.
const PASS_BITS: u32 = 24;

/// A pool's place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// Lowest first.
    pub priority: u32,
    /// Share among those of the same priority.
    pub weight: NonZeroU32,
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The pool to hash for.
    pub hash_for: Option<usize>,
    /// Which pools are to be connected.
    pub connect: Vec<bool>,
}

#[derive(Debug, Clone)]
struct Member {
    rank: Rank,
    /// It lets us in and has given work, since then.
    up: Option<Millis>,
    /// It is up but has no work at the moment.
    resting: bool,
    /// It was wanted, and is since then.
    wanted: Option<Millis>,
    /// It went down or could not be reached since it was last wanted or up.
    failed: bool,
    /// How long it must be up before hashing returns to it.
    proof: Millis,
    benched_until: Millis,
    strikes: u32,
    /// When it was last hashed for.
    left: Option<Millis>,
    /// Hashes done for it over its weight; the least is next.
    pass: u128,
    /// Whether `pass` counts: it takes part in the split since it is steady.
    counted: bool,
}

impl Member {
    fn is_benched(&self, now: Millis) -> bool {
        now < self.benched_until
    }

    fn is_usable(&self, now: Millis) -> bool {
        self.up.is_some() && !self.resting && !self.is_benched(now)
    }

    /// Usable, and up for long enough to be returned to.
    fn is_steady(&self, now: Millis) -> bool {
        self.is_usable(now) && self.up.is_some_and(|since| since.0 + self.proof.0 <= now.0)
    }

    /// Usable, or may soon be.
    fn is_hopeful(&self, now: Millis) -> bool {
        let waited = self.wanted.map_or(0, |since| now.0.saturating_sub(since.0));
        let may_come = !self.failed && !self.is_benched(now) && waited < GRACE.0;
        self.is_usable(now) || may_come
    }
}

/// The policy's memory.
#[derive(Debug, Clone)]
pub struct Pools {
    members: Vec<Member>,
    hash_for: Option<usize>,
    slice_began: Millis,
}

impl Pools {
    /// A list of which nothing is known yet.
    #[must_use]
    pub fn new(ranks: impl IntoIterator<Item = Rank>) -> Self {
        let member = |rank| Member {
            rank,
            up: None,
            resting: false,
            wanted: None,
            failed: false,
            proof: Millis::ZERO,
            benched_until: Millis::ZERO,
            strikes: 0,
            left: None,
            pass: 0,
            counted: false,
        };
        Self {
            members: ranks.into_iter().map(member).collect(),
            hash_for: None,
            slice_began: Millis::ZERO,
        }
    }

    /// A pool let us in and gave work; again and again is no event.
    pub fn up(&mut self, pool: usize, now: Millis) {
        let Some(member) = self.members.get_mut(pool) else { return };
        (member.failed, member.resting) = (false, false);
        if member.up.is_none() {
            member.up = Some(now);
            member.counted = false;
        }
    }

    /// A pool is connected but has no work for now.
    pub fn rests(&mut self, pool: usize) {
        let Some(member) = self.members.get_mut(pool) else { return };
        member.resting = true;
        if self.hash_for == Some(pool) {
            self.hash_for = None;
        }
    }

    /// A connection to a pool ended, or none could be made.
    pub fn down(&mut self, pool: usize, now: Millis, cause: Option<Cause>) {
        let Some(member) = self.members.get_mut(pool) else { return };
        let lived = member.up.take().map(|since| now.0.saturating_sub(since.0));
        if self.hash_for == Some(pool) {
            self.hash_for = None;
            member.left = Some(now);
        }
        if member.wanted.is_none() {
            // We closed it ourselves.
            return;
        }
        member.failed = true;
        let calm_after = member.proof.0 + CALM_AFTER.0;
        let was_calm = lived.is_some_and(|lived| lived >= calm_after);
        if was_calm {
            (member.proof, member.strikes) = (RETURN_AFTER, 0);
        }
        match cause {
            // It is well, and will be back.
            Some(Cause::Asked) => member.proof = Millis::ZERO,
            Some(Cause::SharesRefused) => {
                let bench = BENCH.0.saturating_mul(1 << member.strikes.min(16)).min(BENCH_MAX.0);
                member.benched_until = Millis(now.0 + bench);
                member.strikes += 1;
                member.proof = member.proof.max(RETURN_AFTER);
            }
            Some(Cause::Silent | Cause::NotLetIn) | None if lived.is_some() && !was_calm => {
                member.proof = Millis(member.proof.0 * 2).clamp(RETURN_AFTER, RETURN_AFTER_MAX);
            }
            Some(Cause::Silent | Cause::NotLetIn) | None => {
                member.proof = member.proof.max(RETURN_AFTER);
            }
        }
    }

    /// So many hashes were done since the last call, for the pool that was chosen then.
    pub fn hashed(&mut self, hashes: u64) {
        let chosen = self.hash_for.and_then(|pool| self.members.get_mut(pool));
        if let Some(member) = chosen {
            member.pass += (u128::from(hashes) << PASS_BITS) / u128::from(member.rank.weight.get());
        }
    }

    /// What is to be done now; call after every event and about twice a second.
    pub fn decide(&mut self, now: Millis) -> Decision {
        let chosen = self.choose(now);
        if chosen != self.hash_for {
            if let Some(left) = self.hash_for.and_then(|pool| self.members.get_mut(pool)) {
                left.left = Some(now);
            }
            self.hash_for = chosen;
            self.slice_began = now;
        }
        self.want(now);
        let connect = self.members.iter().map(|member| member.wanted.is_some()).collect();
        Decision { hash_for: self.hash_for, connect }
    }

    fn choose(&mut self, now: Millis) -> Option<usize> {
        let current = self
            .hash_for
            .and_then(|pool| Some((pool, self.members.get(pool)?)))
            .filter(|(_, member)| member.is_usable(now))
            .map(|(pool, member)| (pool, member.rank.priority));
        let first = |fit: fn(&Member, Millis) -> bool| {
            let fitting = self.members.iter().filter(|member| fit(member, now));
            fitting.map(|member| member.rank.priority).min()
        };
        let steady = first(Member::is_steady);
        match (current, steady) {
            (Some((_, priority)), Some(better)) if better < priority => {
                self.next_of(better, now, Member::is_steady)
            }
            (Some((pool, priority)), _) => {
                if now.0.saturating_sub(self.slice_began.0) < SLICE.0 {
                    return Some(pool);
                }
                self.slice_began = now;
                self.next_of(priority, now, Member::is_steady).or(Some(pool))
            }
            (None, _) => {
                let priority = first(Member::is_usable)?;
                self.next_of(priority, now, Member::is_usable)
            }
        }
    }

    /// The one of this priority that has had least for its weight.
    fn next_of(
        &mut self,
        priority: u32,
        now: Millis,
        fit: fn(&Member, Millis) -> bool,
    ) -> Option<usize> {
        let fits = |member: &Member| member.rank.priority == priority && fit(member, now);
        // Whoever joins the split begins level: what it missed while it was down is not made up for.
        let level = self.members.iter().filter(|member| fits(member) && member.counted);
        let level = level.map(|member| member.pass).min();
        for member in self.members.iter_mut().filter(|member| fits(member) && !member.counted) {
            member.pass = member.pass.max(level.unwrap_or(0));
            member.counted = true;
        }
        let candidates = self.members.iter().enumerate().filter(|(_, member)| fits(member));
        candidates.min_by_key(|(_, member)| member.pass).map(|(pool, _)| pool)
    }

    /// Connected are all that might be hashed for now, and one step further where none of them may soon be.
    fn want(&mut self, now: Millis) {
        let chosen = self.hash_for.and_then(|pool| self.members.get(pool));
        let reach = chosen.map(|member| member.rank.priority).or_else(|| {
            let hopeful = self.members.iter().filter(|member| member.is_hopeful(now));
            hopeful.map(|member| member.rank.priority).min()
        });
        for (pool, member) in self.members.iter_mut().enumerate() {
            let lingers = member.left.is_some_and(|left| now.0.saturating_sub(left.0) < LINGER.0);
            let within = reach.is_none_or(|reach| member.rank.priority <= reach);
            let wanted = self.hash_for == Some(pool)
                || (!member.is_benched(now) && (within || (lingers && member.up.is_some())));
            if !wanted {
                (member.wanted, member.failed) = (None, false);
            } else if member.wanted.is_none() {
                member.wanted = Some(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rank(priority: u32, weight: u32) -> Rank {
        Rank { priority, weight: NonZeroU32::new(weight).unwrap() }
    }

    fn seconds(seconds: u64) -> Millis {
        Millis::from_secs(seconds)
    }

    fn chosen(pools: &mut Pools, second: u64) -> Option<usize> {
        pools.decide(seconds(second)).hash_for
    }

    fn wanted(pools: &mut Pools, second: u64) -> Vec<usize> {
        let connect = pools.decide(seconds(second)).connect;
        connect.iter().enumerate().filter(|(_, on)| **on).map(|(pool, _)| pool).collect()
    }

    #[test]
    fn the_first_of_the_list_is_waited_for_and_then_the_next_is_tried() {
        let mut pools = Pools::new([rank(1, 1), rank(2, 1), rank(3, 1)]);
        assert_eq!(wanted(&mut pools, 0), [0]);
        assert_eq!(wanted(&mut pools, 9), [0]);
        assert_eq!(wanted(&mut pools, 10), [0, 1], "it takes its time");
        pools.down(0, seconds(11), None);
        pools.down(1, seconds(12), None);
        assert_eq!(wanted(&mut pools, 12), [0, 1, 2], "both are down");
        pools.up(2, seconds(13));
        assert_eq!(chosen(&mut pools, 13), Some(2));
        pools.up(1, seconds(14));
        assert_eq!(chosen(&mut pools, 14), Some(2), "it has yet to prove itself");
        assert_eq!(chosen(&mut pools, 74), Some(1));
        assert_eq!(wanted(&mut pools, 103), [0, 1, 2], "answers are waited for");
        assert_eq!(wanted(&mut pools, 104), [0, 1]);
    }

    #[test]
    fn a_dead_primary_is_left_at_once_and_returned_to_with_growing_doubt() {
        let mut pools = Pools::new([rank(1, 1), rank(2, 1)]);
        pools.decide(seconds(0));
        pools.up(0, seconds(1));
        assert_eq!(chosen(&mut pools, 1), Some(0));
        let (mut now, mut doubts) = (2, Vec::new());
        for _ in 0..7 {
            pools.down(0, seconds(now), Some(Cause::Silent));
            assert_ne!(chosen(&mut pools, now), Some(0));
            assert_eq!(wanted(&mut pools, now), [0, 1]);
            pools.up(1, seconds(now));
            assert_eq!(chosen(&mut pools, now), Some(1));
            pools.up(0, seconds(now));
            let back = now;
            while chosen(&mut pools, now) != Some(0) {
                now += 1;
            }
            doubts.push(now - back);
            now += 1;
        }
        assert_eq!(doubts, [60, 120, 240, 480, 960, 1_800, 1_800]);
    }

    #[test]
    fn a_pool_that_asks_us_to_come_back_is_returned_to_at_once() {
        let mut pools = Pools::new([rank(1, 1), rank(2, 1)]);
        pools.decide(seconds(0));
        pools.up(0, seconds(1));
        assert_eq!(chosen(&mut pools, 1), Some(0));
        pools.down(0, seconds(2), Some(Cause::Asked));
        pools.decide(seconds(2));
        pools.up(1, seconds(3));
        assert_eq!(chosen(&mut pools, 3), Some(1));
        pools.up(0, seconds(4));
        assert_eq!(chosen(&mut pools, 4), Some(0));
    }

    #[test]
    fn a_pool_that_refuses_our_shares_is_left_alone_for_longer_each_time() {
        let mut pools = Pools::new([rank(1, 1)]);
        let mut now = 0;
        for bench in [60, 120, 240] {
            pools.up(0, seconds(now));
            assert_eq!(chosen(&mut pools, now), Some(0));
            pools.down(0, seconds(now), Some(Cause::SharesRefused));
            assert_eq!(wanted(&mut pools, now), [] as [usize; 0]);
            assert_eq!(wanted(&mut pools, now + bench - 1), [] as [usize; 0]);
            assert_eq!(wanted(&mut pools, now + bench), [0]);
            now += bench;
        }
    }

    proptest! {
        /// Whatever comes and goes: never for a pool that is down, never idle while one is up, and a better one that has
        /// proved itself is hashed for.
        #[test]
        fn hashing_is_for_a_pool_that_is_up(
            ranks in prop::collection::vec((1u32..4, 1u32..5), 1..5),
            events in prop::collection::vec((0usize..5, 0u8..6, 0u64..40_000), 1..200),
        ) {
            let mut pools = Pools::new(ranks.iter().map(|(priority, weight)| rank(*priority, *weight)));
            let (mut now, mut up) = (Millis::ZERO, vec![false; ranks.len()]);
            pools.decide(now);
            for (pool, what, passed) in events {
                now = Millis(now.0 + passed);
                let pool = pool % ranks.len();
                let cause = [None, Some(Cause::Silent), Some(Cause::Asked), Some(Cause::SharesRefused)];
                match what {
                    0 | 1 => {
                        pools.up(pool, now);
                        up[pool] = true;
                    }
                    what => {
                        pools.down(pool, now, cause[usize::from(what) - 2]);
                        up[pool] = false;
                    }
                }
                pools.hashed(passed);
                let decision = pools.decide(now);
                let usable = |pool: usize| up[pool] && !pools.members[pool].is_benched(now);
                match decision.hash_for {
                    Some(chosen) => {
                        prop_assert!(usable(chosen) && decision.connect[chosen]);
                        let own = ranks[chosen].0;
                        let better = |other: &usize| ranks[*other].0 < own;
                        let missed = (0..ranks.len()).filter(better).find(|other| pools.members[*other].is_steady(now));
                        prop_assert_eq!(missed, None);
                    }
                    None => prop_assert!(!(0..ranks.len()).any(usable)),
                }
                let benched = (0..ranks.len()).all(|pool| pools.members[pool].is_benched(now));
                prop_assert!(benched || decision.connect.contains(&true), "somebody is always tried");
            }
        }

        /// The split follows the weights to within some slices' worth of hashes, however the rate changes.
        #[test]
        fn the_split_follows_the_weights(
            weights in prop::collection::vec(1u32..20, 2..5),
            rates in prop::collection::vec(0u64..1_000, 10..40),
        ) {
            let mut pools = Pools::new(weights.iter().map(|weight| rank(1, *weight)));
            for pool in 0..weights.len() {
                pools.up(pool, Millis::ZERO);
            }
            let mut hashes = vec![0u64; weights.len()];
            let mut chosen = pools.decide(Millis::ZERO).hash_for.unwrap();
            for second in 1..4_000u64 {
                let rate = rates[usize::try_from(second / 100).unwrap() % rates.len()];
                hashes[chosen] += rate;
                pools.hashed(rate);
                chosen = pools.decide(seconds(second)).hash_for.unwrap();
            }
            let (total, all) = (hashes.iter().sum::<u64>() as f64, weights.iter().sum::<u32>());
            let slice = 1_000.0 * 30.0;
            for (pool, weight) in weights.iter().enumerate() {
                let due = total * f64::from(*weight) / f64::from(all);
                let off = (hashes[pool] as f64 - due).abs();
                prop_assert!(off <= slice * (weights.len() + 1) as f64, "{off} of {total} for {weights:?}");
            }
        }

        /// A pool that was away does not make up for it when it is back.
        #[test]
        fn nobody_hogs_the_rig_after_an_absence(away in 100u64..5_000) {
            let mut pools = Pools::new([rank(1, 1), rank(1, 1)]);
            pools.decide(Millis::ZERO);
            pools.up(0, Millis::ZERO);
            let mut hashes = [0u64; 2];
            let mut chosen = 0;
            for second in 0..away + 2_000 {
                if second == away {
                    pools.up(1, seconds(second));
                }
                hashes[chosen] += 10;
                pools.hashed(10);
                chosen = pools.decide(seconds(second)).hash_for.unwrap();
            }
            let late = hashes[1].abs_diff(2_000 * 10 / 2);
            prop_assert!(late <= 10 * 30 * 3, "{hashes:?} after {away} s");
        }
    }
}
