//! Our channel with a pool: which jobs it has, what is mined now, and which shares are worth sending.
//!
//! The state itself is the client side of `channels_sv2`, which keeps jobs, targets and seen shares by the rules of the
//! specification; here its two kinds look alike, and its jobs become [`Work`]. One trap decides the routing: the first
//! job names our channel, but later ones may name the *group* it is a member of.

use std::fmt;

use roadbed_compute::hash::{Extranonce, Header, Job, Target};
use stratum_core::binary_sv2::Error as WireError;
use stratum_core::bitcoin::Target as WireTarget;
use stratum_core::channels_sv2::chain_tip::ChainTip;
use stratum_core::channels_sv2::client::extended::{ExtendedChannel, ExtendedJob};
use stratum_core::channels_sv2::client::share_accounting::ShareValidationError;
use stratum_core::channels_sv2::client::standard::{StandardChannel, StandardJob};
use stratum_core::channels_sv2::extranonce_manager::ExtranoncePrefix;
use stratum_core::channels_sv2::merkle_root::merkle_root_from_path;
use stratum_core::mining_sv2::{
    NewExtendedMiningJobOwned, NewMiningJobOwned, OpenExtendedMiningChannelSuccessOwned,
    OpenStandardMiningChannelSuccessOwned, SetNewPrevHashOwned, SubmitSharesExtendedOwned,
    SubmitSharesStandardOwned,
};
use stratum_core::parsers_sv2::{AnyMessageOwned, MiningOwned};

use crate::miner::work::{Find, Source, Work};

/// Version bits we roll, BIP 320. The crates allow those of BIP 323 as well, but a pool may not.
const VERSION_MASK: u32 = 0x1FFF_E000;

/// Why a message could not be followed. The pool speaks the protocol, but this makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct ChannelError {
    what: &'static str,
    why: String,
}

impl ChannelError {
    fn of(what: &'static str) -> impl Fn(&dyn fmt::Debug) -> Self {
        move |why| Self { what, why: format!("{why:?}") }
    }
}

/// Why a find is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsendable {
    /// Its job is over.
    Stale,
    /// It was sent before.
    Duplicate,
    /// The pool would refuse it for another reason; a hash thread or we are wrong.
    Wrong(&'static str),
}

enum State {
    Standard(Box<StandardChannel>),
    Extended(Box<ExtendedChannel>),
}

/// An open channel.
pub struct Channel {
    id: u32,
    group: u32,
    version_rolling: bool,
    state: State,
}

impl Channel {
    /// From the pool's consent to a standard channel, alone or grouped.
    ///
    /// # Errors
    /// A target that no hash can meet, or an extranonce beyond what a coinbase holds.
    pub fn standard(
        opened: OpenStandardMiningChannelSuccessOwned,
        user: &str,
        rate: f32,
        version_rolling: bool,
    ) -> Result<Self, ChannelError> {
        let wrong = ChannelError::of("the channel it opened");
        let prefix = ExtranoncePrefix::from_wire(opened.extranonce_prefix.to_owned_bytes())
            .map_err(|error| wrong(&error))?;
        let target = WireTarget::from_le_bytes(opened.target.to_array());
        let channel =
            StandardChannel::new(opened.channel_id, user.into(), prefix, target, rate, None)
                .map_err(|error| wrong(&error))?;
        let (id, group) = (opened.channel_id, opened.group_channel_id);
        Ok(Self { id, group, version_rolling, state: State::Standard(Box::new(channel)) })
    }

    /// From the pool's consent to an extended channel.
    ///
    /// # Errors
    /// As [`Self::standard`].
    pub fn extended(
        opened: OpenExtendedMiningChannelSuccessOwned,
        user: &str,
        rate: f32,
        version_rolling: bool,
    ) -> Result<Self, ChannelError> {
        let wrong = ChannelError::of("the channel it opened");
        let prefix = ExtranoncePrefix::from_wire(opened.extranonce_prefix.to_owned_bytes())
            .map_err(|error| wrong(&error))?;
        let channel = ExtendedChannel::new(
            opened.channel_id,
            user.into(),
            prefix,
            WireTarget::from_le_bytes(opened.target.to_array()),
            rate,
            version_rolling,
            opened.extranonce_size,
            None,
        )
        .map_err(|error| wrong(&error))?;
        let (id, group) = (opened.channel_id, opened.group_channel_id);
        Ok(Self { id, group, version_rolling, state: State::Extended(Box::new(channel)) })
    }

    /// The pool's number of it.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Whether a message to channel `id` is for us: it names our channel or our group.
    #[must_use]
    pub const fn is_addressed(&self, id: u32) -> bool {
        id == self.id || id == self.group
    }

    /// The pool makes a group; we follow when we are named.
    pub fn regroup(&mut self, group: u32, members: &[u32]) {
        if members.contains(&self.id) {
            self.group = group;
        }
    }

    /// A job of a standard channel. True when it is to be mined now, not after the next block.
    ///
    /// # Errors
    /// On an extended channel, or before its time.
    pub fn standard_job(&mut self, job: NewMiningJobOwned) -> Result<bool, ChannelError> {
        let wrong = ChannelError::of("its job");
        let now = !job.is_future();
        match &mut self.state {
            State::Standard(channel) => {
                channel.on_new_mining_job(job).map_err(|error| wrong(&error))?;
            }
            State::Extended(_) => return Err(wrong(&"a standard job on an extended channel")),
        }
        Ok(now)
    }

    /// A job with a coinbase, ours or our group's. True when it is to be mined now.
    ///
    /// # Errors
    /// A coinbase that is no transaction.
    pub fn extended_job(&mut self, job: NewExtendedMiningJobOwned) -> Result<bool, ChannelError> {
        let wrong = ChannelError::of("its job");
        let now = !job.is_future();
        match &mut self.state {
            State::Standard(channel) => {
                channel.on_new_group_channel_job(job).map_err(|error| wrong(&error))?;
            }
            State::Extended(channel) => {
                channel.on_new_extended_mining_job(job).map_err(|error| wrong(&error))?;
            }
        }
        Ok(now)
    }

    /// A block was found: the named job is mined from now on, all others are over.
    ///
    /// # Errors
    /// When we do not have that job; then there is nothing to mine.
    pub fn new_block(&mut self, tip: SetNewPrevHashOwned) -> Result<(), ChannelError> {
        let wrong = ChannelError::of("its new block");
        match &mut self.state {
            State::Standard(channel) => {
                channel.on_set_new_prev_hash(tip).map_err(|error| wrong(&error))
            }
            State::Extended(channel) => {
                channel.on_set_new_prev_hash(tip).map_err(|error| wrong(&error))
            }
        }
    }

    /// A new target for jobs to come, and for those that wait for a block.
    ///
    /// # Errors
    /// A target that no hash can meet; the old one stays.
    pub fn set_target(&mut self, target: [u8; 32]) -> Result<(), ChannelError> {
        let wrong = ChannelError::of("its target");
        let target = WireTarget::from_le_bytes(target);
        match &mut self.state {
            State::Standard(channel) => channel.set_target(target).map_err(|error| wrong(&error)),
            State::Extended(channel) => channel.set_target(target).map_err(|error| wrong(&error)),
        }
    }

    /// A new first part of the extranonce for jobs to come.
    ///
    /// # Errors
    /// One that is too long; the old one stays.
    pub fn set_prefix(&mut self, prefix: Vec<u8>) -> Result<(), ChannelError> {
        let wrong = ChannelError::of("its extranonce");
        let prefix = ExtranoncePrefix::from_wire(prefix).map_err(|error| wrong(&error))?;
        match &mut self.state {
            State::Standard(channel) => {
                channel.set_extranonce_prefix(prefix).map_err(|error| wrong(&error))
            }
            State::Extended(channel) => {
                channel.set_extranonce_prefix(prefix).map_err(|error| wrong(&error))
            }
        }
    }

    /// What is mined now, as work number `number`, with the pool's number of its job; none before the first block.
    ///
    /// # Errors
    /// A coinbase that is no transaction.
    pub fn work(&self, number: u64) -> Result<Option<(u32, Work)>, ChannelError> {
        let (id, target, rolling, source) = match &self.state {
            State::Standard(channel) => {
                let Some((job, tip)) = channel.get_active_job().zip(channel.get_chain_tip()) else {
                    return Ok(None);
                };
                let id = job.job_message.job_id;
                (id, job.target, true, Source::Header { id, header: header(job, tip) })
            }
            State::Extended(channel) => {
                let Some((job, tip)) = channel.get_active_job().zip(channel.get_chain_tip()) else {
                    return Ok(None);
                };
                let size = usize::from(channel.get_rollable_extranonce_size());
                let extranonce =
                    Extranonce { first: job.extranonce_prefix.clone(), second_size: size };
                let source = Source::Coinbase { job: coinbase(job, tip, &extranonce)?, extranonce };
                (
                    job.job_message.job_id,
                    job.target,
                    job.job_message.version_rolling_allowed,
                    source,
                )
            }
        };
        let target = Target(target.to_be_bytes());
        let version_mask = if rolling && self.version_rolling { VERSION_MASK } else { 0 };
        let difficulty = target.difficulty();
        Ok(Some((id, Work { source, version_mask, target, difficulty, number })))
    }

    /// The message that hands in a find of job `job`, if the pool would take it.
    ///
    /// # Errors
    /// Why it would not.
    pub fn share(
        &mut self,
        sequence_number: u32,
        job_id: u32,
        work: &Work,
        find: &Find,
    ) -> Result<AnyMessageOwned, Unsendable> {
        let (channel_id, version) = (self.id, work.header(&find.roll).version);
        let (nonce, ntime) = (find.nonce, find.roll.ntime);
        let (message, verdict) = match &mut self.state {
            State::Standard(channel) => {
                let share = SubmitSharesStandardOwned {
                    channel_id,
                    sequence_number,
                    job_id,
                    nonce,
                    ntime,
                    version,
                };
                (MiningOwned::SubmitSharesStandard(share.clone()), channel.validate_share(share))
            }
            State::Extended(channel) => {
                let extranonce = find.roll.extranonce2.clone().try_into();
                let share = SubmitSharesExtendedOwned {
                    channel_id,
                    sequence_number,
                    job_id,
                    nonce,
                    ntime,
                    version,
                    extranonce: extranonce
                        .map_err(|_: WireError| Unsendable::Wrong("extranonce too long"))?,
                };
                (MiningOwned::SubmitSharesExtended(share.clone()), channel.validate_share(share))
            }
        };
        match verdict {
            Ok(_) => Ok(AnyMessageOwned::Mining(message)),
            Err(error) => Err(unsendable(&error)),
        }
    }

    /// The pool took `count` shares.
    pub fn accepted(&mut self, count: u32, sum: u64) {
        match &mut self.state {
            State::Standard(channel) => channel.on_share_acknowledgement(count, sum),
            State::Extended(channel) => channel.on_share_acknowledgement(count, sum),
        }
    }

    /// The pool refused a share.
    pub fn rejected(&mut self, code: &str) {
        match &mut self.state {
            State::Standard(channel) => channel.on_share_rejection(code),
            State::Extended(channel) => channel.on_share_rejection(code),
        }
    }
}

fn unsendable(error: &ShareValidationError) -> Unsendable {
    match error {
        ShareValidationError::Stale(_)
        | ShareValidationError::InvalidJobId(_)
        | ShareValidationError::NoChainTip => Unsendable::Stale,
        ShareValidationError::DuplicateShare(_) => Unsendable::Duplicate,
        ShareValidationError::Invalid(code)
        | ShareValidationError::DoesNotMeetTarget(code)
        | ShareValidationError::VersionRollingNotAllowed(code)
        | ShareValidationError::BadExtranonceSize(code) => Unsendable::Wrong(code),
    }
}

/// Fields as received: unlike Stratum V1, nothing is swapped.
fn header(job: &StandardJob, tip: &ChainTip) -> Header {
    Header {
        version: job.job_message.version,
        previous: tip.prev_hash().to_array(),
        merkle_root: job.job_message.merkle_root.to_array(),
        ntime: earliest(job.job_message.min_ntime.as_ref(), tip),
        nbits: tip.nbits(),
    }
}

fn coinbase(
    job: &ExtendedJob,
    tip: &ChainTip,
    extranonce: &Extranonce,
) -> Result<Job, ChannelError> {
    let message = &job.job_message;
    let (head, tail) =
        (message.coinbase_tx_prefix.as_bytes(), message.coinbase_tx_suffix.as_bytes());
    let whole = [extranonce.first.clone(), extranonce.second(0)].concat();
    if merkle_root_from_path(head, tail, &whole, message.merkle_path.as_slice()).is_none() {
        return Err(ChannelError::of("its job")(&"the coinbase is no transaction"));
    }
    Ok(Job {
        id: message.job_id.to_string(),
        previous: tip.prev_hash().to_array(),
        coinbase_head: head.to_vec(),
        coinbase_tail: tail.to_vec(),
        branches: message.merkle_path.iter().map(|branch| branch.to_array()).collect(),
        version: message.version,
        nbits: tip.nbits(),
        ntime: earliest(message.min_ntime.as_ref(), tip),
        clean: false,
    })
}

/// First time that may stand in a header: the job's own, which is set once it is mined, or else the tip's.
fn earliest(min_ntime: Option<&u32>, tip: &ChainTip) -> u32 {
    min_ntime.copied().unwrap_or_else(|| tip.min_ntime())
}
