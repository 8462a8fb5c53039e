//! The open channel: jobs and targets from the pool, shares from the hash threads.

use std::sync::Arc;

use roadbed_protocol::Millis;
use stratum_core::mining_sv2::SubmitSharesSuccess;
use stratum_core::parsers_sv2::MiningOwned;

use super::{End, JOBS_MAX, Session};
use crate::miner::dialect::{Action, Cause};
use crate::miner::share::{REFUSED_MAX, Reason};
use crate::miner::stratum2::channel::{ChannelError, Unsendable};
use crate::miner::work::Find;

/// Shares sent in one second at most. A pool asks for a few a minute; one that lets every hash count would be flooded
/// and hang up, because it remembers only some thousands per block.
const SHARES_PER_SECOND_MAX: u32 = 20;

/// Counts the shares of the current second.
#[derive(Debug, Default)]
pub(super) struct Pace {
    second: u64,
    sent: u32,
}

impl Pace {
    /// Whether one more may be sent now; if so it counts.
    fn allows(&mut self, now: Millis) -> bool {
        let second = now.0 / 1_000;
        if second != self.second {
            *self = Self { second, sent: 0 };
        }
        self.sent += 1;
        self.sent <= SHARES_PER_SECOND_MAX
    }
}

impl Session {
    /// A message of the mining protocol while the channel is open.
    pub(super) fn mining(
        &mut self,
        now: Millis,
        message: MiningOwned,
        actions: &mut Vec<Action>,
    ) -> Result<(), End> {
        let Some(channel) = &mut self.channel else { return Ok(()) };
        if let Some(id) = addressee(&message)
            && !channel.is_addressed(id)
        {
            return self.nonsense(&format_args!("for channel {id}, which is not ours: {message}"));
        }
        let outcome = match message {
            MiningOwned::NewMiningJob(job) => channel.standard_job(job),
            MiningOwned::NewExtendedMiningJob(job) => channel.extended_job(job),
            MiningOwned::SetNewPrevHash(tip) => match channel.new_block(tip) {
                Ok(()) => Ok(true),
                Err(error) => {
                    // The old block is over, and for the new one we have nothing.
                    actions.push(Action::Rest);
                    Err(error)
                }
            },
            MiningOwned::SetTarget(target) => {
                channel.set_target(target.maximum_target.to_array()).map(|()| false)
            }
            MiningOwned::SetExtranoncePrefix(prefix) => {
                channel.set_prefix(prefix.extranonce_prefix.to_owned_bytes()).map(|()| false)
            }
            MiningOwned::SetGroupChannel(group) => {
                channel.regroup(group.group_channel_id, group.channel_ids.as_slice());
                Ok(false)
            }
            MiningOwned::SubmitSharesSuccess(batch) => {
                self.accepted(now, batch);
                Ok(false)
            }
            MiningOwned::SubmitSharesError(refusal) => {
                let code = refusal.error_code.as_utf8_or_hex();
                return self.rejected(now, refusal.sequence_number, &code);
            }
            MiningOwned::UpdateChannelError(refusal) => {
                tracing::debug!(
                    "pool: does not take our rate: {}",
                    refusal.error_code.as_utf8_or_hex()
                );
                Ok(false)
            }
            MiningOwned::CloseChannel(order) => {
                self.told = order.reason_code.as_utf8_or_hex();
                let reason = format!("it closed our channel: {}", self.told);
                return Err(End { cause: Cause::NotLetIn, reason, to: None });
            }
            other => return self.nonsense(&format_args!("not for a miner: {other}")),
        };
        match outcome.and_then(|mine| if mine { self.mine(actions) } else { Ok(()) }) {
            Ok(()) => Ok(()),
            Err(error) => self.nonsense(&error),
        }
    }

    /// Hands the channel's active job to the hash threads.
    fn mine(&mut self, actions: &mut Vec<Action>) -> Result<(), ChannelError> {
        let Some(channel) = &self.channel else { return Ok(()) };
        let work = channel.work(self.numbers.next());
        let Ok(Some((job, work))) = work else {
            actions.push(Action::Rest);
            return work.map(|_| ());
        };
        let work = Arc::new(work);
        self.works += 1;
        self.jobs.push_back((job, work.clone()));
        if self.jobs.len() > JOBS_MAX {
            self.jobs.pop_front();
        }
        actions.push(Action::Hash(work));
        Ok(())
    }

    /// Hands in a find, if the pool would take it.
    pub(super) fn hand_in(
        &mut self,
        now: Millis,
        find: &Find,
        actions: &mut Vec<Action>,
    ) -> Result<(), End> {
        let job = self.jobs.iter().find(|(_, work)| work.number == find.work);
        let (Some((job, work)), Some(channel)) = (job, &mut self.channel) else {
            self.book.missed();
            return Ok(());
        };
        if !self.sent_lately.allows(now) {
            self.book.held_back();
            return Ok(());
        }
        let roll = &find.roll;
        let numbers = [*job, roll.ntime, roll.version_bits, find.nonce].map(u32::to_be_bytes);
        if !self.book.admits([numbers.as_flattened(), &roll.extranonce2].concat()) {
            return Ok(());
        }
        match channel.share(self.sequence + 1, *job, work, find) {
            Ok(message) => {
                self.sequence += 1;
                self.book.sent(now, u64::from(self.sequence), work.difficulty);
                self.send(message, actions)
            }
            Err(Unsendable::Duplicate) => Ok(()),
            Err(Unsendable::Stale) => {
                self.book.missed();
                Ok(())
            }
            Err(Unsendable::Wrong(code)) => {
                tracing::warn!("a share was not sent, the pool would have refused it: {code}");
                self.book.missed();
                Ok(())
            }
        }
    }

    /// A batch of shares was taken. Its sum is in whole units of difficulty 1, which small shares never reach: the
    /// work counted is our own, from the target of each share's job.
    fn accepted(&mut self, now: Millis, batch: SubmitSharesSuccess) {
        let (last, count) =
            (u64::from(batch.last_sequence_number), batch.new_submits_accepted_count);
        let known = self.book.accepted_through(now, last, u64::from(count));
        if known != u64::from(count) {
            tracing::debug!("pool: took {count} shares, {known} of them known to us");
        }
        if let Some(channel) = &mut self.channel {
            channel.accepted(count, batch.new_shares_sum);
        }
    }

    fn rejected(&mut self, now: Millis, sequence: u32, code: &str) -> Result<(), End> {
        if !self.book.rejected(now, u64::from(sequence), reason(code)) {
            return self.nonsense(&format_args!("refuses share {sequence}, which is not open"));
        }
        tracing::debug!("pool: refused share {sequence}: {code}");
        if let Some(channel) = &mut self.channel {
            channel.rejected(code);
        }
        let cause = Cause::SharesRefused;
        if code == "invalid-channel-id" {
            let reason = "it no longer knows our channel".to_owned();
            return Err(End { cause, reason, to: None });
        }
        if self.book.is_always_late() {
            let reason = "it finds every share too late".to_owned();
            return Err(End { cause, reason, to: None });
        }
        if self.book.is_always_refused() {
            let reason = format!("it refused {REFUSED_MAX} shares in a row, the last: {code}");
            return Err(End { cause, reason, to: None });
        }
        Ok(())
    }
}

/// Which column of the books a refusal belongs to; codes of the specification and of `pool_sv2` 0.7.0.
fn reason(code: &str) -> Reason {
    match code {
        // A pool forgets jobs two blocks old, and then no longer knows that they were its own.
        "stale-share" | "invalid-job-id" => Reason::Stale,
        "duplicate-share" => Reason::Duplicate,
        "difficulty-too-low" => Reason::LowDifficulty,
        _ => Reason::Other,
    }
}

/// The channel or group a message names; none where it names no single one.
fn addressee(message: &MiningOwned) -> Option<u32> {
    match message {
        MiningOwned::NewMiningJob(message) => Some(message.channel_id),
        MiningOwned::NewExtendedMiningJob(message) => Some(message.channel_id),
        MiningOwned::SetNewPrevHash(message) => Some(message.channel_id),
        MiningOwned::SetTarget(message) => Some(message.channel_id),
        MiningOwned::SetExtranoncePrefix(message) => Some(message.channel_id),
        MiningOwned::SubmitSharesSuccess(message) => Some(message.channel_id),
        MiningOwned::SubmitSharesError(message) => Some(message.channel_id),
        MiningOwned::UpdateChannelError(message) => Some(message.channel_id),
        MiningOwned::CloseChannel(message) => Some(message.channel_id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_real_pool_are_sorted() {
        for (code, want) in [
            ("stale-share", Reason::Stale),
            ("invalid-job-id", Reason::Stale),
            ("duplicate-share", Reason::Duplicate),
            ("difficulty-too-low", Reason::LowDifficulty),
            ("invalid-share", Reason::Other),
            ("bad-extranonce-size", Reason::Other),
            ("", Reason::Other),
        ] {
            assert_eq!(reason(code), want, "{code}");
        }
    }

    #[test]
    fn a_second_holds_so_many_shares_and_the_next_holds_as_many() {
        let mut pace = Pace::default();
        let sent = |pace: &mut Pace, now| (0..100).filter(|_| pace.allows(Millis(now))).count();
        assert_eq!(sent(&mut pace, 0), SHARES_PER_SECOND_MAX as usize);
        assert_eq!(sent(&mut pace, 999), 0);
        assert_eq!(sent(&mut pace, 1_000), SHARES_PER_SECOND_MAX as usize);
    }
}
