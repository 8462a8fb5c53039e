//! Difficulty and a mean block's reward from a full node's JSON-RPC.
//!
//! Fees differ from block to block, so they are the mean of the last day's. A node that does not offer `getblockstats`
//! (bcoin) tells none, and that is said: the figure is then the new coins alone.

use std::collections::BTreeMap;
use std::path::Path;

use farm_core::hashprice::{Difficulty, HALVING_BLOCKS, Sats, subsidy};
use roadbed_protocol::UnixMillis;
use serde_json::{Value, json};

use super::{AskError, Part};
use crate::config::{NodeRpc, Pays, RpcLogin, read_line};
use crate::gonka::client::{NodeClient, said};

/// Blocks whose fees make the mean: about a day.
const FEE_BLOCKS: u64 = 144;
/// Blocks between halvings on regtest (Bitcoin Core, `chainparams.cpp`).
const REGTEST_HALVING_BLOCKS: u64 = 150;
/// JSON-RPC: no such method.
const METHOD_NOT_FOUND: i64 = -32_601;

/// What a node tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NetworkState {
    pub difficulty: Difficulty,
    pub reward: Sats,
    pub parts: Vec<Part>,
}

/// A node, and the fees it told before.
#[derive(Debug)]
pub(super) struct Node {
    rpc: NodeRpc,
    /// Fees by height, of the last day.
    fees: BTreeMap<u64, Sats>,
}

enum Refused {
    NoSuchMethod,
    Other(AskError),
}

impl From<AskError> for Refused {
    fn from(error: AskError) -> Self {
        Self::Other(error)
    }
}

impl Node {
    pub fn new(rpc: NodeRpc) -> Self {
        Self { rpc, fees: BTreeMap::new() }
    }

    pub async fn ask(&mut self, now: UnixMillis) -> Result<NetworkState, AskError> {
        let client = self.client()?;
        let info = match self.call(&client, "getblockchaininfo", json!([])).await {
            Ok(info) => info,
            Err(Refused::Other(error)) => return Err(error),
            Err(Refused::NoSuchMethod) => {
                return Err(self.wrong("getblockchaininfo", "is not offered"));
            }
        };
        let difficulty = info.get("difficulty").and_then(Value::as_f64);
        let difficulty = difficulty
            .ok_or_else(|| self.wrong("getblockchaininfo", "the answer has no difficulty"))
            .and_then(|value| {
                let wrong =
                    |error| self.wrong("getblockchaininfo", &format!("difficulty {value} {error}"));
                Difficulty::from_float(value).map_err(wrong)
            })?;
        let height = info.get("blocks").and_then(Value::as_u64);
        let height =
            height.ok_or_else(|| self.wrong("getblockchaininfo", "the answer has no blocks"))?;
        let halving = match info.get("chain").and_then(Value::as_str) {
            Some("regtest") => REGTEST_HALVING_BLOCKS,
            Some(_) | None => HALVING_BLOCKS,
        };
        // What is mined now is the block after the tip.
        let coins = subsidy(height.saturating_add(1), halving);
        let url = self.rpc.url.clone();
        let part = |what: &str, figure: String| Part {
            what: what.to_owned(),
            figure,
            from: url.clone(),
            true_at: Some(now),
        };
        let mut parts = vec![
            part("difficulty", difficulty.to_string()),
            part("new coins of a block", coins.to_string()),
        ];
        let fees = match self.rpc.pays {
            Pays::Pps => Sats(0),
            Pays::Fpps => match self.mean_fees(&client, height).await {
                Ok((fees, blocks)) => {
                    let what = format!("fees of a block, mean of the last {blocks}");
                    parts.push(Part { what, ..part("", fees.to_string()) });
                    fees
                }
                Err(Refused::NoSuchMethod) => {
                    let figure = "none counted: this node has no getblockstats";
                    parts.push(part("fees of a block", figure.to_owned()));
                    Sats(0)
                }
                Err(Refused::Other(error)) => return Err(error),
            },
        };
        Ok(NetworkState { difficulty, reward: Sats(coins.0.saturating_add(fees.0)), parts })
    }

    /// The mean over the last day, of blocks that were not asked for before and those that were.
    async fn mean_fees(
        &mut self,
        client: &NodeClient,
        height: u64,
    ) -> Result<(Sats, usize), Refused> {
        let first = (height + 1).saturating_sub(FEE_BLOCKS);
        self.fees.retain(|at, _| (first..=height).contains(at));
        for at in (first..=height).rev() {
            if self.fees.contains_key(&at) {
                continue;
            }
            // The genesis block has no spent outputs to count, and a pruned node has no old blocks: what there is, counts.
            let stats = match self.call(client, "getblockstats", json!([at, ["totalfee"]])).await {
                Ok(stats) => stats,
                Err(Refused::Other(AskError::Node { .. })) if !self.fees.is_empty() => break,
                Err(refused) => return Err(refused),
            };
            let fee = stats.get("totalfee").and_then(Value::as_u64);
            let fee =
                fee.ok_or_else(|| self.wrong("getblockstats", "the answer has no totalfee"))?;
            self.fees.insert(at, Sats(fee));
        }
        let sum: u128 = self.fees.values().map(|fee| u128::from(fee.0)).sum();
        let mean = sum / self.fees.len().max(1) as u128;
        Ok((Sats(u64::try_from(mean).unwrap_or(u64::MAX)), self.fees.len()))
    }

    async fn call(
        &self,
        client: &NodeClient,
        method: &str,
        params: Value,
    ) -> Result<Value, Refused> {
        let body = json!({"jsonrpc": "1.0", "id": "roadbed", "method": method, "params": params});
        let answer = client.post("/", Some(&body)).await.map_err(AskError::from)?;
        let error = answer.body.get("error").filter(|error| !error.is_null());
        match (error, answer.body.get("result")) {
            (None, Some(result)) => Ok(result.clone()),
            (Some(error), _)
                if error.get("code").and_then(Value::as_i64) == Some(METHOD_NOT_FOUND) =>
            {
                Err(Refused::NoSuchMethod)
            }
            (Some(_), _) | (None, None) => {
                let words = format!("{}: {}", answer.status, said(&answer.body));
                Err(self.wrong(method, &words).into())
            }
        }
    }

    fn client(&self) -> Result<NodeClient, AskError> {
        let (user, password) = match &self.rpc.login {
            RpcLogin::Cookie(file) => {
                let text = login(file)?;
                let (user, password) = text.split_once(':').ok_or_else(|| AskError::File {
                    file: file.display().to_string(),
                    problem: "is no cookie; expected name:password in one line".to_owned(),
                })?;
                (user.to_owned(), password.to_owned())
            }
            RpcLogin::User(user, file) => (user.clone(), login(file)?),
        };
        let client = NodeClient::new(&self.rpc.url, self.rpc.authorities.as_ref());
        Ok(client.logged_in(&user, &password)?)
    }

    fn wrong(&self, method: &str, problem: &str) -> AskError {
        AskError::Node {
            url: self.rpc.url.clone(),
            method: method.to_owned(),
            said: problem.to_owned(),
        }
    }
}

fn login(file: &Path) -> Result<String, AskError> {
    read_line(file).map_err(|problem| AskError::File { file: file.display().to_string(), problem })
}
