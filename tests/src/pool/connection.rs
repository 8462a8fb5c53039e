//! One miner's connection to the pool: lines of JSON in, answers and jobs out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::difficulty::Target;
use super::job::{Job, Solution, from_hex, parse_number};
use super::{Pool, Rejection};

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

/// Serves one miner until it goes away.
///
/// # Errors
/// What the socket said, or a line that was too long.
pub async fn serve(stream: TcpStream, pool: Arc<Pool>) -> std::io::Result<()> {
    let mut latest = pool.latest.subscribe();
    let (read, write) = stream.into_split();
    let mut lines = Lines::new(read);
    let mut miner = Connection {
        extranonce1: pool.next_extranonce().to_vec(),
        pool,
        write,
        mask: 0,
        subscribed: false,
        authorized: false,
        difficulty: None,
        issued: HashMap::new(),
        seen: HashSet::new(),
    };
    loop {
        tokio::select! {
            line = lines.next() => match line? {
                Some(line) => miner.take(&line).await?,
                None => return Ok(()),
            },
            changed = latest.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                if miner.authorized {
                    miner.send_newest_job().await?;
                }
            }
        }
    }
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
    /// Difficulty in force for each job sent.
    issued: HashMap<u64, f64>,
    seen: HashSet<(u64, Solution)>,
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
        self.answer(id, Ok(json!(true))).await
    }

    /// Sends the newest job, and before it its difficulty if that is new to the miner.
    async fn send_newest_job(&mut self) -> std::io::Result<()> {
        let Some((n, job)) = self.pool.newest() else {
            return Ok(());
        };
        if self.issued.contains_key(&n) {
            return Ok(());
        }
        let difficulty = self.pool.config.difficulty_of_job(n);
        if self.difficulty != Some(difficulty) {
            self.difficulty = Some(difficulty);
            self.send(
                &json!({ "id": null, "method": "mining.set_difficulty", "params": [difficulty] }),
            )
            .await?;
        }
        if job.clean {
            self.issued.clear();
            self.seen.clear();
        }
        self.issued.insert(n, difficulty);
        self.send(&json!({ "id": null, "method": "mining.notify", "params": job.notify() })).await
    }

    async fn submit(&mut self, id: &Value, params: &Value) -> std::io::Result<()> {
        match self.judge(params) {
            Ok((difficulty, is_block)) => {
                self.pool.count_accepted(difficulty, is_block);
                self.answer(id, Ok(json!(true))).await
            }
            Err(reason) => {
                self.pool.count_rejected(reason);
                let error = match reason {
                    Rejection::Stale => (21, "Job not found"),
                    Rejection::Duplicate => (22, "Duplicate share"),
                    Rejection::LowDifficulty => (23, "Low difficulty share"),
                    Rejection::Other(why) => (20, why),
                };
                self.answer(id, Err(error)).await
            }
        }
    }

    /// Difficulty of a good share, and whether it is a block.
    fn judge(&mut self, params: &Value) -> Result<(f64, bool), Rejection> {
        if !self.authorized {
            return Err(Rejection::Other("not authorized"));
        }
        let id = params.get(1).and_then(Value::as_str).unwrap_or("");
        let (n, job) = self.pool.find(id)?;
        let Some(&difficulty) = self.issued.get(&n) else {
            return Err(Rejection::Other("job was not sent to this connection"));
        };
        let share = read_share(params, &job, &self.extranonce1, EXTRANONCE2_BYTES, self.mask)?;
        let verdict = weigh(&job, &share, difficulty)?;
        if self.seen.len() >= SEEN_SHARES_MAX {
            return Err(Rejection::Other("too many shares for one block"));
        }
        if !self.seen.insert((n, share)) {
            return Err(Rejection::Duplicate);
        }
        Ok((difficulty, verdict))
    }

    async fn answer(
        &mut self,
        id: &Value,
        result: Result<Value, (u32, &str)>,
    ) -> std::io::Result<()> {
        let message = match result {
            Ok(result) => json!({ "id": id, "result": result, "error": null }),
            Err((code, text)) => json!({ "id": id, "result": null, "error": [code, text, null] }),
        };
        self.send(&message).await
    }

    async fn send(&mut self, message: &Value) -> std::io::Result<()> {
        let mut line = message.to_string().into_bytes();
        line.push(b'\n');
        self.write.write_all(&line).await
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
