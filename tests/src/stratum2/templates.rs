//! A template provider for real Stratum V2 pools: invents blocks, takes solutions, and counts them.
//!
//! There is no chain behind it and no transaction in its blocks: every solution that meets its target makes the next
//! block, whose previous hash is the solution's.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use stratum_core::binary_sv2::{Seq0255Owned, U256Owned};
use stratum_core::bitcoin::hashes::{Hash, sha256d};
use stratum_core::bitcoin::{Transaction, consensus};
use stratum_core::common_messages_sv2::SetupConnectionSuccess;
use stratum_core::parsers_sv2::{
    AnyMessageOwned, CommonMessagesOwned, TemplateDistributionOwned as Distribution,
};
use stratum_core::template_distribution_sv2::{
    NewTemplateOwned, SetNewPrevHashOwned, SubmitSolutionOwned,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::wire::{Authority, Server, WireError};

/// Secret of the authority that signs for our provider; a pool may pin [`Authority::address_key`] of it or nothing.
const SECRET: [u8; 32] = [0x42; 32];
/// Block reward of the first halving period.
const REWARD_SATOSHI: u64 = 5_000_000_000;

/// The provider as the config file gives it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplatesConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Compact target of its blocks; regtest's by default, which every second hash meets.
    #[serde(default = "regtest_bits")]
    pub network_bits: u32,
    /// Wall seconds after which somebody else finds the block; absent: nobody does.
    #[serde(default)]
    pub block_wall_seconds: Option<f64>,
}

fn regtest_bits() -> u32 {
    0x207f_ffff
}

impl TemplatesConfig {
    /// The first value that makes no sense: its field, and what was expected there.
    #[must_use]
    pub fn first_fault(&self) -> Option<(&'static str, &'static str)> {
        let positive = |number: f64| number.is_finite() && number >= 0.1;
        if !self.block_wall_seconds.is_none_or(positive) {
            return Some(("block_wall_seconds", "a number of at least 0.1 expected"));
        }
        None
    }
}

/// The provider's part of the status document.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TemplatesStatus {
    /// Pools that connected.
    pub connections: u64,
    /// Solutions received.
    pub solutions: u64,
    /// Solutions whose header was rebuilt here and met the target: blocks.
    pub blocks: u64,
    /// Solutions that did not, or that came for an older block.
    pub refused: u64,
    /// Blocks that somebody else found.
    pub foreign_blocks: u64,
    /// Height of the block being looked for.
    pub height: u64,
}

/// A running provider.
#[derive(Debug)]
pub struct Templates {
    config: TemplatesConfig,
    status: Mutex<TemplatesStatus>,
    ids: AtomicU64,
}

/// One block being looked for.
#[derive(Debug, Clone)]
struct Block {
    template: u64,
    height: u64,
    previous: [u8; 32],
    time: u32,
}

impl Templates {
    /// What happened so far.
    #[must_use]
    pub fn status(&self) -> TemplatesStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, change: impl FnOnce(&mut TemplatesStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn block(&self, height: u64, previous: [u8; 32]) -> Block {
        self.note(|status| status.height = height);
        let template = self.ids.fetch_add(1, Ordering::Relaxed) + 1;
        Block { template, height, previous, time: unix() }
    }

    /// A future template and the block it is for: what a pool needs to give out work.
    fn messages(&self, block: &Block) -> Result<[Distribution; 2], WireError> {
        let wire = |error| WireError::from_codec(&error);
        let template = NewTemplateOwned {
            template_id: block.template,
            future_template: true,
            version: 0x2000_0000,
            coinbase_tx_version: 2,
            coinbase_prefix: height_push(block.height).try_into().map_err(wire)?,
            coinbase_tx_input_sequence: 0xffff_fffe,
            coinbase_tx_value_remaining: REWARD_SATOSHI,
            coinbase_tx_outputs_count: 0,
            coinbase_tx_outputs: Vec::new().try_into().map_err(wire)?,
            coinbase_tx_locktime: u32::try_from(block.height - 1).unwrap_or(u32::MAX),
            merkle_path: Seq0255Owned::new(Vec::new()).map_err(wire)?,
        };
        let target = stratum_core::bitcoin::Target::from_compact(
            stratum_core::bitcoin::CompactTarget::from_consensus(self.config.network_bits),
        );
        let tip = SetNewPrevHashOwned {
            template_id: block.template,
            prev_hash: U256Owned::from(block.previous),
            header_timestamp: block.time,
            n_bits: self.config.network_bits,
            target: U256Owned::from(target.to_le_bytes()),
        };
        Ok([Distribution::NewTemplate(template), Distribution::SetNewPrevHash(tip)])
    }

    /// The block's hash, if the solution is one for `block`.
    fn solved(&self, block: &Block, solution: &SubmitSolutionOwned) -> Option<[u8; 32]> {
        if solution.template_id != block.template {
            return None;
        }
        let coinbase: Transaction = consensus::deserialize(solution.coinbase_tx.as_bytes()).ok()?;
        let header = [
            &solution.version.to_le_bytes()[..],
            &block.previous,
            &coinbase.compute_txid().to_byte_array(),
            &solution.header_timestamp.to_le_bytes(),
            &self.config.network_bits.to_le_bytes(),
            &solution.header_nonce.to_le_bytes(),
        ]
        .concat();
        let hash = sha256d::Hash::hash(&header).to_byte_array();
        let target = stratum_core::bitcoin::Target::from_compact(
            stratum_core::bitcoin::CompactTarget::from_consensus(self.config.network_bits),
        );
        (stratum_core::bitcoin::Target::from_le_bytes(hash) <= target).then_some(hash)
    }

    async fn serve(&self, mut stream: TcpStream) -> Result<(), Box<dyn std::error::Error>> {
        let mut server = Server::new(&Authority::new(SECRET)?)?;
        let mut block = self.block(1, [0; 32]);
        let mut chunk = [0; 4096];
        let pause = self.config.block_wall_seconds.map_or(Duration::MAX, Duration::from_secs_f64);
        let mut asked = false;
        loop {
            let read = tokio::time::timeout(pause, stream.read(&mut chunk)).await;
            let Ok(read) = read else {
                self.note(|status| status.foreign_blocks += 1);
                let hash = sha256d::Hash::hash(&block.previous).to_byte_array();
                block = self.block(block.height + 1, hash);
                if asked {
                    self.send(&mut server, &mut stream, &block).await?;
                }
                continue;
            };
            let count = read?;
            if count == 0 {
                return Ok(());
            }
            let (reply, messages) = server.take(&chunk[..count])?;
            stream.write_all(&reply).await?;
            for message in messages {
                match message {
                    AnyMessageOwned::Common(CommonMessagesOwned::SetupConnection(_)) => {
                        let answer = SetupConnectionSuccess { used_version: 2, flags: 0 };
                        let answer = CommonMessagesOwned::SetupConnectionSuccess(answer);
                        stream.write_all(&server.seal(AnyMessageOwned::Common(answer))?).await?;
                    }
                    AnyMessageOwned::TemplateDistribution(
                        Distribution::CoinbaseOutputConstraints(_),
                    ) => {
                        asked = true;
                        self.send(&mut server, &mut stream, &block).await?;
                    }
                    AnyMessageOwned::TemplateDistribution(Distribution::SubmitSolution(
                        solution,
                    )) => {
                        let hash = self.solved(&block, &solution);
                        self.note(|status| {
                            status.solutions += 1;
                            status.blocks += u64::from(hash.is_some());
                            status.refused += u64::from(hash.is_none());
                        });
                        if let Some(hash) = hash {
                            block = self.block(block.height + 1, hash);
                            self.send(&mut server, &mut stream, &block).await?;
                        }
                    }
                    other => tracing::debug!("template provider: passed over: {other}"),
                }
            }
        }
    }

    async fn send(
        &self,
        server: &mut Server,
        stream: &mut TcpStream,
        block: &Block,
    ) -> Result<(), Box<dyn std::error::Error>> {
        for message in self.messages(block)? {
            let bytes = server.seal(AnyMessageOwned::TemplateDistribution(message))?;
            stream.write_all(&bytes).await?;
        }
        Ok(())
    }
}

/// A height as BIP 34 wants it at the start of a coinbase: pushed as a script number.
fn height_push(height: u64) -> Vec<u8> {
    // OP_1 to OP_16 push the numbers of their names.
    if let Ok(small @ 1..=16) = u8::try_from(height) {
        return vec![0x50 + small];
    }
    let mut digits: Vec<u8> = height.to_le_bytes().to_vec();
    while digits.last() == Some(&0) {
        digits.pop();
    }
    // The top bit is a sign.
    if digits.last().is_some_and(|top| top & 0x80 != 0) {
        digits.push(0);
    }
    let length = u8::try_from(digits.len()).unwrap_or(8);
    [vec![length], digits].concat()
}

fn unix() -> u32 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    u32::try_from(elapsed).unwrap_or(u32::MAX)
}

/// Listens and serves until `stop`.
///
/// # Errors
/// When the address cannot be bound.
pub async fn start(
    config: &TemplatesConfig,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> std::io::Result<Arc<Templates>> {
    let listener = TcpListener::bind(config.listen).await?;
    let templates = Arc::new(Templates {
        config: config.clone(),
        status: Mutex::default(),
        ids: AtomicU64::new(0),
    });
    let (served, stop, tracker) = (Arc::clone(&templates), stop.clone(), tasks.clone());
    tasks.spawn(async move {
        loop {
            let stream = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!("template provider: {error}");
                        continue;
                    }
                },
            };
            served.note(|status| status.connections += 1);
            let (templates, stop) = (Arc::clone(&served), stop.clone());
            tracker.spawn(async move {
                let end = tokio::select! {
                    () = stop.cancelled() => return,
                    end = templates.serve(stream) => end.map_err(|error| error.to_string()),
                };
                tracing::info!("template provider: a pool left: {end:?}");
            });
        }
    });
    Ok(templates)
}

#[cfg(test)]
mod tests {
    use super::height_push;

    #[test]
    fn heights_are_pushed_as_script_numbers() {
        for (height, want) in [
            (1, vec![0x51]),
            (16, vec![0x60]),
            (17, vec![1, 17]),
            (127, vec![1, 0x7F]),
            (128, vec![2, 0x80, 0]),
            (840_000, vec![3, 0x40, 0xD1, 0x0C]),
        ] {
            assert_eq!(height_push(height), want, "{height}");
        }
    }
}
