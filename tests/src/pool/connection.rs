//! One miner's connection to the pool: lines of JSON in, answers and jobs out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::difficulty::Target;
use super::faults::{Faults, HELD_MAX};
use super::job::{Job, Solution, from_hex, parse_number};
use super::vardiff::Vardiff;
use super::{FoundBlock, Pool, Rejection};

/// Bits a miner may roll in the version (BIP 320).
const VERSION_MASK: u32 = 0x1fff_e000;
/// Bytes of a miner's part of the extranonce.
const EXTRANONCE2_BYTES: usize = 4;
/// Longest line read from a miner; real ones stay below 500 bytes.
const LINE_BYTES_MAX: usize = 4 * 1024;
/// Shares of one block remembered to find duplicates.
const SEEN_SHARES_MAX: usize = 100_000;
/// Seconds a header's time may run ahead of its job's: Bitcoin's own rule is two hours.
const TIME_AHEAD_MAX: u32 = 7_200;
/// Workers named in the status document.
const WORKERS_MAX: usize = 64;
/// Bytes that a mute pool keeps to say later.
const UNSAID_BYTES_MAX: usize = 1 << 20;

/// Serves one miner until it goes away.
///
/// # Errors
/// What the socket said, or a line that was too long.
pub async fn serve(stream: TcpStream, pool: Arc<Pool>) -> std::io::Result<()> {
    let mut latest = pool.latest.subscribe();
    let mut faults = pool.faults.subscribe();
    let (read, write) = stream.into_split();
    let mut lines = Lines::new(read);
    let config = &pool.config;
    let vardiff = config.seconds_per_share.map(|seconds| Vardiff::new(seconds, config.difficulty));
    let mut miner = Connection {
        extranonce1: pool.next_extranonce().to_vec(),
        pool,
        write,
        mask: 0,
        subscribed: false,
        authorized: false,
        difficulty: None,
        vardiff,
        job_sent: Instant::now(),
        issued: HashMap::new(),
        seen: HashSet::new(),
        unsaid: Vec::new(),
        held: Vec::new(),
    };
    let ended = loop {
        let outcome = tokio::select! {
            line = lines.next() => match line {
                Ok(Some(line)) => miner.take(&line).await,
                Ok(None) => break Ok(()),
                Err(error) => Err(error),
            },
            changed = latest.changed() => match changed {
                Ok(()) if miner.authorized => miner.send_newest_job().await,
                Ok(()) => Ok(()),
                Err(_) => break Ok(()),
            },
            changed = faults.changed() => match changed {
                Ok(()) => miner.say_unsaid().await,
                Err(_) => break Ok(()),
            },
        };
        if outcome.is_err() {
            break outcome;
        }
    };
    miner.pool.remember_answers(miner.held);
    ended
}

/// What holds for the shares of a job on this connection.
#[derive(Debug, Clone)]
struct Terms {
    difficulty: f64,
    extranonce1: Vec<u8>,
}

struct Connection {
    pool: Arc<Pool>,
    write: OwnedWriteHalf,
    extranonce1: Vec<u8>,
    /// Version bits this miner may roll; none before `mining.configure`.
    mask: u32,
    subscribed: bool,
    authorized: bool,
    /// Difficulty last told.
    difficulty: Option<f64>,
    vardiff: Option<Vardiff>,
    /// When the last job was sent.
    job_sent: Instant,
    /// Terms in force for each job sent.
    issued: HashMap<u64, Terms>,
    seen: HashSet<(u64, Solution)>,
    /// What a mute pool has not said yet.
    unsaid: Vec<u8>,
    /// Answers held back to be given in another order.
    held: Vec<Value>,
}

impl Connection {
    async fn take(&mut self, line: &[u8]) -> std::io::Result<()> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let Ok(request) = serde_json::from_slice::<Value>(line) else {
            return self.answer(&Value::Null, Err((20, "not JSON"))).await;
        };
        let id = request.get("id").cloned().unwrap_or(Value::Null);
        let params = request.get("params").cloned().unwrap_or(Value::Null);
        match request.get("method").and_then(Value::as_str).unwrap_or("") {
            "mining.configure" => {
                let result = self.configure(&params);
                self.answer(&id, Ok(result)).await
            }
            "mining.subscribe" => {
                self.subscribed = true;
                let result = json!([
                    [["mining.set_difficulty", "d1"], ["mining.notify", "n1"]],
                    super::job::to_hex(&self.extranonce1),
                    EXTRANONCE2_BYTES
                ]);
                self.answer(&id, Ok(result)).await
            }
            "mining.authorize" => self.authorize(&id, &params).await,
            "mining.submit" => self.submit(&id, &params).await,
            "mining.suggest_difficulty" | "mining.extranonce.subscribe" => {
                self.answer(&id, Ok(json!(true))).await
            }
            _ => self.answer(&id, Err((20, "Unknown method"))).await,
        }
    }

    /// Grants what the miner asks for of version rolling, and nothing else.
    fn configure(&mut self, params: &Value) -> Value {
        let asked = params
            .get(0)
            .and_then(Value::as_array)
            .is_some_and(|names| names.iter().any(|name| name == "version-rolling"));
        if !asked {
            return json!({});
        }
        let wanted = params
            .pointer("/1/version-rolling.mask")
            .and_then(Value::as_str)
            .and_then(parse_number)
            .unwrap_or(u32::MAX);
        self.mask = wanted & VERSION_MASK;
        json!({
            "version-rolling": true,
            "version-rolling.mask": format!("{:08x}", self.mask),
        })
    }

    async fn authorize(&mut self, id: &Value, params: &Value) -> std::io::Result<()> {
        let worker = params.get(0).and_then(Value::as_str).unwrap_or("");
        if !self.subscribed || worker.is_empty() {
            return self.answer(id, Err((24, "Unauthorized worker"))).await;
        }
        self.authorized = true;
        {
            let mut status = self.pool.counters();
            if status.workers.len() < WORKERS_MAX && !status.workers.iter().any(|w| w == worker) {
                status.workers.push(worker.to_owned());
            }
        }
        self.send_newest_job().await?;
        self.answer(id, Ok(json!(true))).await?;
        for late in self.pool.remembered_answers() {
            self.send(&late).await?;
        }
        Ok(())
    }

    /// Sends the newest job, and before it its difficulty if that is new to the miner.
    async fn send_newest_job(&mut self) -> std::io::Result<()> {
        let Some((n, job)) = self.pool.newest() else {
            return Ok(());
        };
        if self.issued.contains_key(&n) {
            return Ok(());
        }
        let faults = self.pool.faults();
        let first = self.difficulty.is_none();
        let passed = std::mem::replace(&mut self.job_sent, Instant::now()).elapsed().as_secs_f64();
        let difficulty = match &mut self.vardiff {
            Some(vardiff) if first => vardiff.difficulty,
            Some(vardiff) => vardiff.next(passed),
            None => self.pool.config.difficulty_of_job(n),
        };
        if self.difficulty != Some(difficulty) || !faults.says_difficulties.is_empty() {
            self.difficulty = Some(difficulty);
            let said = match faults.says_difficulties.as_slice() {
                [] => vec![json!(difficulty)],
                lies => lies.to_vec(),
            };
            for difficulty in said {
                self.call("mining.set_difficulty", json!([difficulty])).await?;
            }
        }
        if faults.changes_extranonce && !first {
            self.extranonce1 = self.pool.next_extranonce().to_vec();
            let params = json!([super::job::to_hex(&self.extranonce1), EXTRANONCE2_BYTES]);
            self.call("mining.set_extranonce", params).await?;
        }
        for void in self.pool.void_jobs(&job, faults.floods) {
            self.call("mining.notify", void.notify()).await?;
        }
        if job.clean {
            self.issued.clear();
            self.seen.clear();
        }
        let judged_by = difficulty * faults.harder_than_said.unwrap_or(1.0);
        let extranonce1 = self.extranonce1.clone();
        self.issued.insert(n, Terms { difficulty: judged_by, extranonce1 });
        self.call("mining.notify", job.notify()).await
    }

    async fn call(&mut self, method: &str, params: Value) -> std::io::Result<()> {
        self.send(&json!({ "id": null, "method": method, "params": params })).await
    }

    async fn submit(&mut self, id: &Value, params: &Value) -> std::io::Result<()> {
        let outcome = match self.judge(params) {
            Ok((difficulty, block)) => {
                self.pool.count_accepted(difficulty, block);
                if let Some(vardiff) = &mut self.vardiff {
                    vardiff.share();
                }
                Ok(json!(true))
            }
            Err(reason) => {
                self.pool.count_rejected(reason);
                Err(match reason {
                    Rejection::Stale => (21, "Job not found"),
                    Rejection::Duplicate => (22, "Duplicate share"),
                    Rejection::LowDifficulty => (23, "Low difficulty share"),
                    Rejection::Other(why) => (20, why),
                })
            }
        };
        self.answer_share(answer(id, outcome)).await
    }

    /// Answers a share, as well or badly as the faults say.
    async fn answer_share(&mut self, answer: Value) -> std::io::Result<()> {
        let Faults { cuts_next_answer, answers_reversed, answers_twice, .. } = self.pool.faults();
        if cuts_next_answer {
            self.pool.misbehave(|faults| faults.cuts_next_answer = false);
            let line = answer.to_string();
            self.write.write_all(&line.as_bytes()[..line.len() / 2]).await?;
            return Err(std::io::Error::other("cut in the middle of a line, on purpose"));
        }
        let mut answers = vec![answer];
        if answers_reversed > 1 && self.held.len() < HELD_MAX {
            self.held.append(&mut answers);
            if self.held.len() >= answers_reversed {
                answers = std::mem::take(&mut self.held);
                answers.reverse();
            }
        }
        for answer in &answers {
            for _ in 0..=u8::from(answers_twice) {
                self.send(answer).await?;
            }
        }
        Ok(())
    }

    /// Difficulty of a good share, and its header if that is a block.
    fn judge(&mut self, params: &Value) -> Result<(f64, Option<FoundBlock>), Rejection> {
        if !self.authorized {
            return Err(Rejection::Other("not authorized"));
        }
        let id = params.get(1).and_then(Value::as_str).unwrap_or("");
        let (n, job) = self.pool.find(id)?;
        let Some(terms) = self.issued.get(&n) else {
            return Err(Rejection::Other("job was not sent to this connection"));
        };
        let difficulty = terms.difficulty;
        let share = read_share(params, &job, &terms.extranonce1, EXTRANONCE2_BYTES, self.mask)?;
        let block = weigh(&job, &share, difficulty)?.then(|| FoundBlock::of(&job, &share));
        if self.seen.len() >= SEEN_SHARES_MAX {
            return Err(Rejection::Other("too many shares for one block"));
        }
        if !self.seen.insert((n, share)) {
            return Err(Rejection::Duplicate);
        }
        Ok((difficulty, block))
    }

    async fn answer(
        &mut self,
        id: &Value,
        result: Result<Value, (u32, &str)>,
    ) -> std::io::Result<()> {
        self.send(&answer(id, result)).await
    }

    async fn send(&mut self, message: &Value) -> std::io::Result<()> {
        if self.unsaid.len() < UNSAID_BYTES_MAX {
            self.unsaid.extend_from_slice(message.to_string().as_bytes());
            self.unsaid.push(b'\n');
        }
        self.say_unsaid().await
    }

    async fn say_unsaid(&mut self) -> std::io::Result<()> {
        if self.pool.faults().mute {
            return Ok(());
        }
        self.write.write_all(&std::mem::take(&mut self.unsaid)).await
    }
}

fn answer(id: &Value, result: Result<Value, (u32, &str)>) -> Value {
    match result {
        Ok(result) => json!({ "id": id, "result": result, "error": null }),
        Err((code, text)) => json!({ "id": id, "result": null, "error": [code, text, null] }),
    }
}

/// Reads parameters of `mining.submit`: worker, job, extranonce2, time, nonce and, with version rolling, the rolled bits.
///
/// # Errors
/// [`Rejection::Other`] with the field that is wrong.
pub fn read_share(
    params: &Value,
    job: &Job,
    extranonce1: &[u8],
    extranonce2_bytes: usize,
    mask: u32,
) -> Result<Solution, Rejection> {
    let text = |place: usize, field| {
        params.get(place).and_then(Value::as_str).ok_or(Rejection::Other(field))
    };
    let number = |place: usize, field| {
        text(place, field).and_then(|text| parse_number(text).ok_or(Rejection::Other(field)))
    };
    let extranonce2 = from_hex(text(2, "extranonce2 missing")?, extranonce2_bytes)
        .filter(|bytes| bytes.len() == extranonce2_bytes)
        .ok_or(Rejection::Other("extranonce2 of the wrong size"))?;
    let time = number(3, "bad ntime")?;
    if time < job.time || time - job.time > TIME_AHEAD_MAX {
        return Err(Rejection::Other("ntime out of range"));
    }
    let nonce = number(4, "bad nonce")?;
    let rolled = if params.get(5).is_some() { number(5, "bad version bits")? } else { 0 };
    if rolled & !mask != 0 {
        return Err(Rejection::Other("version bits outside the mask"));
    }
    let version =
        if params.get(5).is_some() { (job.version & !mask) | rolled } else { job.version };
    Ok(Solution { extranonce1: extranonce1.to_vec(), extranonce2, time, nonce, version })
}

/// Hashes a share again; tells whether it is a block.
///
/// # Errors
/// [`Rejection::LowDifficulty`] when its hash is above the share target.
pub fn weigh(job: &Job, share: &Solution, difficulty: f64) -> Result<bool, Rejection> {
    let hash = job.hash(share);
    let target = Target::of_difficulty(difficulty).ok_or(Rejection::Other("no difficulty"))?;
    if !target.is_met_by(&hash) {
        return Err(Rejection::LowDifficulty);
    }
    Ok(Target::of_bits(job.bits).is_met_by(&hash))
}

/// Lines of a socket, each of bounded length. Losing the race of a `select!` loses no bytes.
struct Lines {
    read: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
}

impl Lines {
    fn new(read: OwnedReadHalf) -> Self {
        Self { read: BufReader::new(read), line: Vec::new() }
    }

    async fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        loop {
            let bytes = self.read.fill_buf().await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(bytes.len(), |end| end + 1);
            self.line.extend_from_slice(&bytes[..taken]);
            self.read.consume(taken);
            if self.line.len() > LINE_BYTES_MAX {
                return Err(std::io::Error::other("line too long"));
            }
            if end.is_some() {
                return Ok(Some(std::mem::take(&mut self.line)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_share_upsets_it(texts in proptest::collection::vec("[0-9a-fx ]{0,12}", 0..8), mask: u32) {
            let job = Job::invented(1, 1, 0x207f_ffff, 1_600_000_000, true);
            if let Ok(share) = read_share(&json!(texts), &job, &[1, 2, 3, 4], 4, mask) {
                let _ = weigh(&job, &share, 1.0);
            }
        }
    }
}
