//! Stand-in of a Stratum V2 pool, as a state: bytes of one miner in, bytes out. No socket, no clock.
//!
//! It rebuilds the header of every share from what was sent and hashes it again, and answers with the codes of the real
//! `pool_sv2` 0.7.0. Its blocks are invented. Like that pool it sends the first job of a channel to the channel and all
//! later ones to the *group*, unless the connection asked for standard jobs.
//!
//! Misbehaves on purpose as [`Manners`] says, and [`PoolDouble::say`] and [`PoolDouble::server`] send whatever a test
//! wants: messages at the wrong time, for the wrong channel, cut, or of no kind at all.

use std::collections::{HashMap, HashSet};

use stratum_core::binary_sv2::{Seq0255Owned, Sv2OptionOwned, U256Owned};
use stratum_core::bitcoin::Target;
use stratum_core::bitcoin::hashes::{Hash, sha256d};
use stratum_core::common_messages_sv2::{
    SetupConnectionErrorOwned, SetupConnectionOwned, SetupConnectionSuccess,
};
use stratum_core::mining_sv2::{
    NewExtendedMiningJobOwned, NewMiningJobOwned, OpenExtendedMiningChannelSuccessOwned,
    OpenStandardMiningChannelSuccessOwned, SetNewPrevHashOwned, SetTargetOwned,
    SubmitSharesErrorOwned, SubmitSharesSuccess,
};
use stratum_core::parsers_sv2::{AnyMessageOwned, CommonMessagesOwned, MiningOwned};

use super::wire::{Authority, Server, WireError};

/// Number of our one channel, and of the group it is in.
pub const CHANNEL: u32 = 7;
pub const GROUP: u32 = 3;
/// Compact target of the invented network: out of reach, so that no share is a block.
const NETWORK_BITS: u32 = 0x1d00_ffff;
const VERSION: u32 = 0x2000_0000;
/// Version bits a miner may change, BIP 320.
const VERSION_MASK: u32 = 0x1FFF_E000;
/// Bytes of the whole extranonce, the same for every channel of a group.
const EXTRANONCE_BYTES: usize = 20;
/// Bytes of it that a miner on an extended channel rolls.
const ROLLED_BYTES: usize = 16;
/// Seconds a header may run ahead of its job.
const TIME_AHEAD_MAX: u32 = 7_200;
/// Flag of `SetupConnection`: standard jobs only.
const STANDARD_JOBS: u32 = 1;

/// How it behaves.
#[derive(Debug, Clone)]
pub struct Manners {
    /// Its target, least significant byte first; a new job takes the newest.
    pub target: [u8; 32],
    /// Good shares that are acknowledged together.
    pub batch: u32,
    /// Flags of its consent to a connection.
    pub consent_flags: u32,
    /// Flags that it refuses a connection for.
    pub refused_flags: u32,
    /// Whether extended jobs let the version be rolled.
    pub version_rolling: bool,
}

impl Default for Manners {
    fn default() -> Self {
        let target = [0xFF; 32];
        Self { target, batch: 1, consent_flags: 0, refused_flags: 0, version_rolling: true }
    }
}

#[derive(Debug, Clone)]
struct Job {
    version_rolling: bool,
    /// Coinbase around the extranonce.
    head: Vec<u8>,
    tail: Vec<u8>,
    path: Vec<[u8; 32]>,
    prefix: Vec<u8>,
    target: [u8; 32],
    time: u32,
    /// The block it is for.
    height: u32,
}

/// A share as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub channel: u32,
    pub sequence: u32,
    pub job: u32,
    pub nonce: u32,
    pub time: u32,
    pub version: u32,
    pub extranonce: Vec<u8>,
}

/// The pool and its one connection.
pub struct PoolDouble {
    pub manners: Manners,
    /// What it thought of each share: none is good, else the code.
    pub verdicts: Vec<(Share, Option<&'static str>)>,
    /// Messages of the miner that are neither setup nor shares.
    pub heard: Vec<String>,
    /// Flags of the last `SetupConnection`.
    pub flags: u32,
    server: Server,
    opened: Option<bool>,
    jobs: HashMap<u32, Job>,
    job: u32,
    height: u32,
    prefix: Vec<u8>,
    seen: HashSet<[u8; 32]>,
    good: u32,
}

impl PoolDouble {
    /// A pool with a fresh connection.
    ///
    /// # Errors
    /// For a key pair that is none.
    pub fn new(authority: &Authority, manners: Manners) -> Result<Self, WireError> {
        Ok(Self {
            manners,
            verdicts: Vec::new(),
            heard: Vec::new(),
            flags: 0,
            server: Server::new(authority)?,
            opened: None,
            jobs: HashMap::new(),
            job: 0,
            height: 100,
            prefix: Vec::new(),
            seen: HashSet::new(),
            good: 0,
        })
    }

    /// The connection itself, to send what no message is.
    pub const fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// Takes bytes of the miner; gives the answers.
    ///
    /// # Errors
    /// When the miner does not speak the protocol.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Vec<u8>, WireError> {
        let (mut reply, messages) = self.server.take(bytes)?;
        for message in messages {
            reply.extend(self.answer(message)?);
        }
        Ok(reply)
    }

    /// Says anything.
    ///
    /// # Errors
    /// Before the handshake.
    pub fn say(&mut self, message: MiningOwned) -> Result<Vec<u8>, WireError> {
        self.server.seal(AnyMessageOwned::Mining(message))
    }

    /// A new block was found: a job for it and the block, to the group.
    ///
    /// # Errors
    /// Before the handshake.
    pub fn block(&mut self) -> Result<Vec<u8>, WireError> {
        self.height += 1;
        let addressee = self.addressee();
        let mut bytes = self.send_job(addressee, true)?;
        bytes.extend(self.send_tip(addressee)?);
        Ok(bytes)
    }

    /// A better job for the same block, to be mined at once.
    ///
    /// # Errors
    /// Before the handshake.
    pub fn refresh(&mut self) -> Result<Vec<u8>, WireError> {
        self.send_job(self.addressee(), false)
    }

    /// A new target for jobs to come.
    ///
    /// # Errors
    /// Before the handshake.
    pub fn retarget(&mut self, target: [u8; 32]) -> Result<Vec<u8>, WireError> {
        self.manners.target = target;
        let maximum_target = U256Owned::from(target);
        self.say(MiningOwned::SetTarget(SetTargetOwned { channel_id: CHANNEL, maximum_target }))
    }

    /// The extranonce prefix of jobs to come; the message is the test's to send.
    pub fn reprefix(&mut self, prefix: Vec<u8>) {
        self.prefix = prefix;
    }

    /// Judges a share of an extended channel that did not come over the connection.
    ///
    /// # Errors
    /// Before the handshake.
    pub fn judge_extended(
        &mut self,
        share: stratum_core::mining_sv2::SubmitSharesExtendedOwned,
    ) -> Result<Vec<u8>, WireError> {
        self.answer(AnyMessageOwned::Mining(MiningOwned::SubmitSharesExtended(share)))
    }

    const fn addressee(&self) -> u32 {
        if self.flags & STANDARD_JOBS == 0 { GROUP } else { CHANNEL }
    }

    fn answer(&mut self, message: AnyMessageOwned) -> Result<Vec<u8>, WireError> {
        match message {
            AnyMessageOwned::Common(CommonMessagesOwned::SetupConnection(setup)) => {
                self.set_up(&setup)
            }
            AnyMessageOwned::Mining(MiningOwned::OpenStandardMiningChannel(open)) => {
                self.opened = Some(false);
                self.prefix = vec![0xA5; EXTRANONCE_BYTES];
                let opened = OpenStandardMiningChannelSuccessOwned {
                    request_id: open.request_id,
                    channel_id: CHANNEL,
                    target: U256Owned::from(self.manners.target),
                    extranonce_prefix: short(&self.prefix)?,
                    group_channel_id: GROUP,
                };
                let opened = self.say(MiningOwned::OpenStandardMiningChannelSuccess(opened))?;
                self.first_job(opened)
            }
            AnyMessageOwned::Mining(MiningOwned::OpenExtendedMiningChannel(open)) => {
                self.opened = Some(true);
                self.prefix = vec![0xA5; EXTRANONCE_BYTES - ROLLED_BYTES];
                let opened = OpenExtendedMiningChannelSuccessOwned {
                    request_id: open.request_id,
                    channel_id: CHANNEL,
                    target: U256Owned::from(self.manners.target),
                    extranonce_size: 16,
                    extranonce_prefix: short(&self.prefix)?,
                    group_channel_id: GROUP,
                };
                let opened = self.say(MiningOwned::OpenExtendedMiningChannelSuccess(opened))?;
                self.first_job(opened)
            }
            AnyMessageOwned::Mining(MiningOwned::SubmitSharesStandard(share)) => {
                self.judge(Share {
                    channel: share.channel_id,
                    sequence: share.sequence_number,
                    job: share.job_id,
                    nonce: share.nonce,
                    time: share.ntime,
                    version: share.version,
                    extranonce: Vec::new(),
                })
            }
            AnyMessageOwned::Mining(MiningOwned::SubmitSharesExtended(share)) => {
                self.judge(Share {
                    channel: share.channel_id,
                    sequence: share.sequence_number,
                    job: share.job_id,
                    nonce: share.nonce,
                    time: share.ntime,
                    version: share.version,
                    extranonce: share.extranonce.as_bytes().to_vec(),
                })
            }
            other => {
                self.heard.push(other.to_string());
                Ok(Vec::new())
            }
        }
    }

    fn set_up(&mut self, setup: &SetupConnectionOwned) -> Result<Vec<u8>, WireError> {
        self.flags = setup.flags;
        let refused = setup.flags & self.manners.refused_flags;
        let answer = if refused == 0 {
            let flags = self.manners.consent_flags;
            CommonMessagesOwned::SetupConnectionSuccess(SetupConnectionSuccess {
                used_version: setup.max_version,
                flags,
            })
        } else {
            let error_code = "unsupported-feature-flags".try_into().map_err(codec)?;
            let refusal = SetupConnectionErrorOwned { flags: refused, error_code };
            CommonMessagesOwned::SetupConnectionError(refusal)
        };
        self.server.seal(AnyMessageOwned::Common(answer))
    }

    fn first_job(&mut self, mut bytes: Vec<u8>) -> Result<Vec<u8>, WireError> {
        bytes.extend(self.send_job(CHANNEL, true)?);
        bytes.extend(self.send_tip(CHANNEL)?);
        Ok(bytes)
    }

    fn previous(height: u32) -> [u8; 32] {
        sha256d::Hash::hash(&height.to_le_bytes()).to_byte_array()
    }

    fn time(&self) -> u32 {
        1_700_000_000 + self.height * 600
    }

    fn send_job(&mut self, addressee: u32, future: bool) -> Result<Vec<u8>, WireError> {
        self.job += 1;
        let time = self.time() + if future { 0 } else { 30 };
        // A coinbase that spends nothing, its script a height and the extranonce, and one output.
        let script_bytes = u8::try_from(4 + EXTRANONCE_BYTES).unwrap_or(u8::MAX);
        let head = [
            &[2, 0, 0, 0, 1][..],
            &[0; 32],
            &[0xFF; 4],
            &[script_bytes, 3],
            &self.job.to_le_bytes()[..3],
        ]
        .concat();
        let tail = [&[0xFF; 4][..], &[1], &[0; 8], &[1, 0x51], &[0; 4]].concat();
        let path = vec![[self.job as u8; 32], [0x77; 32]];
        let job = Job {
            version_rolling: self.manners.version_rolling || self.opened == Some(false),
            head,
            tail,
            path,
            prefix: self.prefix.clone(),
            target: self.manners.target,
            time,
            height: self.height,
        };
        let min_ntime = Sv2OptionOwned::new((!future).then_some(time));
        // On a connection for standard jobs all are; else the first of a standard channel is.
        let standard = self.opened == Some(false) && addressee == CHANNEL;
        let message = if standard {
            MiningOwned::NewMiningJob(NewMiningJobOwned {
                channel_id: addressee,
                job_id: self.job,
                min_ntime,
                version: VERSION,
                merkle_root: U256Owned::from(job.root(&[])),
            })
        } else {
            let path = job.path.iter().map(|branch| U256Owned::from(*branch)).collect();
            MiningOwned::NewExtendedMiningJob(NewExtendedMiningJobOwned {
                channel_id: addressee,
                job_id: self.job,
                min_ntime,
                version: VERSION,
                version_rolling_allowed: self.manners.version_rolling,
                merkle_path: Seq0255Owned::new(path).map_err(codec)?,
                coinbase_tx_prefix: job.head.clone().try_into().map_err(codec)?,
                coinbase_tx_suffix: job.tail.clone().try_into().map_err(codec)?,
            })
        };
        self.jobs.insert(self.job, job);
        self.say(message)
    }

    fn send_tip(&mut self, addressee: u32) -> Result<Vec<u8>, WireError> {
        self.seen.clear();
        let tip = SetNewPrevHashOwned {
            channel_id: addressee,
            job_id: self.job,
            prev_hash: U256Owned::from(Self::previous(self.height)),
            min_ntime: self.time(),
            nbits: NETWORK_BITS,
        };
        self.say(MiningOwned::SetNewPrevHash(tip))
    }

    fn judge(&mut self, share: Share) -> Result<Vec<u8>, WireError> {
        let fault = self.fault(&share);
        self.verdicts.push((share.clone(), fault));
        if let Some(code) = fault {
            return self.say(MiningOwned::SubmitSharesError(SubmitSharesErrorOwned {
                channel_id: share.channel,
                sequence_number: share.sequence,
                error_code: code.try_into().map_err(codec)?,
            }));
        }
        self.good += 1;
        if self.good < self.manners.batch {
            return Ok(Vec::new());
        }
        let batch = SubmitSharesSuccess {
            channel_id: share.channel,
            last_sequence_number: share.sequence,
            new_submits_accepted_count: std::mem::take(&mut self.good),
            new_shares_sum: 0,
        };
        self.say(MiningOwned::SubmitSharesSuccess(batch))
    }

    fn fault(&mut self, share: &Share) -> Option<&'static str> {
        if share.channel != CHANNEL {
            return Some("invalid-channel-id");
        }
        let Some(job) = self.jobs.get(&share.job) else { return Some("invalid-job-id") };
        if job.height + 1 < self.height {
            return Some("invalid-job-id");
        }
        if job.height < self.height {
            return Some("stale-share");
        }
        let rolled = if self.opened == Some(true) { ROLLED_BYTES } else { 0 };
        if share.extranonce.len() != rolled {
            return Some("bad-extranonce-size");
        }
        let mask = if job.version_rolling { VERSION_MASK } else { 0 };
        if (share.version ^ VERSION) & !mask != 0 {
            return Some("invalid-non-rollable-version-bit");
        }
        if share.time < job.time || share.time > job.time + TIME_AHEAD_MAX {
            return Some("invalid-share");
        }
        let header = [
            &share.version.to_le_bytes()[..],
            &Self::previous(self.height),
            &job.root(&share.extranonce),
            &share.time.to_le_bytes(),
            &NETWORK_BITS.to_le_bytes(),
            &share.nonce.to_le_bytes(),
        ]
        .concat();
        let hash = sha256d::Hash::hash(&header).to_byte_array();
        if Target::from_le_bytes(hash) > Target::from_le_bytes(job.target) {
            return Some("difficulty-too-low");
        }
        (!self.seen.insert(hash)).then_some("duplicate-share")
    }
}

impl Job {
    fn root(&self, extranonce: &[u8]) -> [u8; 32] {
        let coinbase = [&self.head, &self.prefix, extranonce, &self.tail].concat();
        let hash = |bytes: &[u8]| sha256d::Hash::hash(bytes).to_byte_array();
        self.path.iter().fold(hash(&coinbase), |node, branch| hash(&[node, *branch].concat()))
    }
}

fn short(bytes: &[u8]) -> Result<stratum_core::binary_sv2::B032Owned, WireError> {
    bytes.to_vec().try_into().map_err(codec)
}

fn codec(error: stratum_core::binary_sv2::Error) -> WireError {
    WireError::from_codec(&error)
}
