//! A child process that never outlives this one: a server, an external miner.
//!
//! It leads a process group of its own, so that what it starts ends with it and a Ctrl-C at our terminal is ours to act
//! on. A stop is SIGTERM, a time to end, then SIGKILL to the whole group; it is over when nobody of the group is left,
//! because only then its GPU memory is free. Should this process be killed without a word, a guard (a shell that
//! waits for the end of our pipe) kills the group. The kernel's own death signal would reach the first process only,
//! and come when the thread that started it ends.

use std::collections::VecDeque;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::config::ServerCommand;

/// After SIGKILL a process is gone as soon as the driver has let go of its memory; longer is a stuck driver.
const GONE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Between two looks whether anybody of the group is left.
const GONE_POLL: Duration = Duration::from_millis(20);
/// Given to its last lines to arrive once it has ended; whom it started may hold its pipes open for ever.
const LAST_LINES_WAIT: Duration = Duration::from_millis(500);
/// Longest line of a child shown; what is longer is a dump.
const LINE_BYTES_MAX: usize = 1_000;
/// Lines of a child shown in a second; one in trouble may write thousands.
const LINES_PER_SECOND_MAX: u32 = 50;
/// Lines kept to explain an end.
const LAST_LINES: usize = 8;

/// Ends when its input does, and takes the process group in its first argument along.
const GUARD: &str = r#"trap '' INT TERM HUP; read -r _; kill -s KILL -- "-$1""#;

/// What stands where a secret stood.
const HIDDEN: &str = "***";
/// Shorter ones are no secrets, and hiding them would hide half of every line: pools take `x` for a password.
const SECRET_CHARS_MIN: usize = 4;

/// Who a child is to people, and what of its words they must not see.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manners {
    /// What it is: `server`, `miner`.
    pub(crate) what: &'static str,
    /// Hidden in what it writes.
    pub(crate) secrets: Vec<String>,
}

/// See the module head. Dropping it kills the group at once.
pub(crate) struct ChildProcess {
    what: &'static str,
    child: Child,
    group: Pid,
    guard: Option<Child>,
    readers: [JoinHandle<()>; 2],
    /// Its end was seen.
    ended: Option<Instant>,
    last_lines: Arc<Mutex<VecDeque<String>>>,
    stop_wait: Duration,
}

impl ChildProcess {
    /// Starts a program.
    ///
    /// # Errors
    /// What could not be started and what to look at.
    pub(crate) fn start(command: &ServerCommand, manners: &Manners) -> Result<Self, String> {
        let what = manners.what;
        let mut program = Command::new(&command.program);
        program
            .args(&command.args)
            .envs(command.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(folder) = &command.folder {
            program.current_dir(folder);
        }
        let mut child = program.spawn().map_err(|error| {
            let folder = command.folder.as_ref().map(|folder| format!(" in {}", folder.display()));
            let folder = folder.unwrap_or_default();
            format!("`{}` cannot be started{folder}: {error}", command.program)
        })?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let Some(group) = group else { return Err(format!("the {what} ended as it was started")) };
        let last_lines = Arc::default();
        let show = Show { manners: manners.clone(), last_lines: Arc::clone(&last_lines) };
        let readers = [
            tokio::spawn(read_lines(child.stdout.take(), show.clone())),
            tokio::spawn(read_lines(child.stderr.take(), show)),
        ];
        tracing::info!(
            program = command.program,
            pid = group.as_raw_nonzero().get(),
            "{what} started"
        );
        let stop_wait = command.stop_wait;
        let ended = None;
        let mut process =
            Self { what, child, group, guard: None, readers, ended, last_lines, stop_wait };
        // Should it fail, dropping the process ends the child.
        process.guard = Some(guard(group)?);
        Ok(process)
    }

    /// Waits for its end; says how it ended, with its last lines. May be called again, and dropped.
    pub(crate) async fn exited(&mut self) -> String {
        let how = match self.child.wait().await {
            Ok(status) => status_words(status),
            Err(error) => format!("was lost ({error})"),
        };
        let ended = *self.ended.get_or_insert_with(Instant::now);
        let all_read = |readers: &[JoinHandle<()>]| readers.iter().all(JoinHandle::is_finished);
        while !all_read(&self.readers) && ended.elapsed() < LAST_LINES_WAIT {
            tokio::time::sleep(GONE_POLL).await;
        }
        format!("its process {how}{}", self.last_words())
    }

    /// Its last lines, to explain an end; empty if it wrote none.
    pub(crate) fn last_words(&self) -> String {
        let lines = lock(&self.last_lines);
        if lines.is_empty() {
            return String::new();
        }
        format!(
            "; its last lines: {}",
            Vec::from_iter(lines.iter().map(String::as_str)).join(" | ")
        )
    }

    /// The number of its group, which is that of its first process.
    pub(crate) fn id(&self) -> Pid {
        self.group
    }

    /// Asks everybody of the group to end.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends everybody of the group who can be ended.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Whether nobody of the group is left.
    pub(crate) fn is_gone(&mut self) -> bool {
        // Reaped first: the dead would count. An error says that there is nothing to reap.
        drop(self.child.try_wait());
        !is_anyone_left(self.group)
    }

    /// Ends it and everything it started; returns when nobody is left.
    pub(crate) async fn stop(mut self) {
        let began = Instant::now();
        self.signal(Signal::TERM);
        let ended = tokio::time::timeout(self.stop_wait, self.gone()).await.is_ok();
        if !ended {
            let waited = self.stop_wait.as_secs_f64();
            let what = self.what;
            tracing::warn!("the {what} did not end within {waited} s of SIGTERM and is killed");
            self.signal(Signal::KILL);
            if tokio::time::timeout(GONE_WAIT_MAX, self.gone()).await.is_err() {
                tracing::error!("processes of the {what} are still there after SIGKILL");
            }
        }
        tracing::info!(millis = began.elapsed().as_millis(), "{} stopped", self.what);
        self.dismiss_guard().await;
    }

    fn signal(&self, signal: Signal) {
        // An error says that nobody is left.
        let _ = kill_process_group(self.group, signal);
    }

    /// Returns when the first process is reaped and nobody of its group is left.
    async fn gone(&mut self) {
        // An error says that there is nothing to wait for.
        drop(self.child.wait().await);
        while is_anyone_left(self.group) {
            tokio::time::sleep(GONE_POLL).await;
        }
    }

    async fn dismiss_guard(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.kill().await);
        }
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        // The guard, if there is one, does the same once more when its input ends with it.
        self.signal(Signal::KILL);
        self.readers.iter().for_each(JoinHandle::abort);
    }
}

fn lock(lines: &Mutex<VecDeque<String>>) -> MutexGuard<'_, VecDeque<String>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

/// True while a process of the group holds anything. The dead whom nobody has reaped hold nothing; in a container
/// whose first process does not care they stay for ever.
fn is_anyone_left(group: Pid) -> bool {
    if test_kill_process_group(group).is_err() {
        return false;
    }
    let Ok(processes) = std::fs::read_dir("/proc") else { return true };
    let group = group.as_raw_nonzero().get().to_string();
    processes.flatten().any(|process| {
        let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        // `pid (name) state parent group ..`; a name may hold anything.
        let after_name = stat.rsplit_once(") ").map_or("", |(_, after)| after);
        let fields: Vec<&str> = after_name.split(' ').take(3).collect();
        matches!(fields[..], [state, _parent, own] if own == group && !matches!(state, "Z" | "X"))
    })
}

fn guard(group: Pid) -> Result<Child, String> {
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", GUARD, "roadbed-guard", &group.as_raw_nonzero().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    shell.spawn().map_err(|error| format!("/bin/sh, which guards the server, is missing: {error}"))
}

fn status_words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Where the lines of a child go.
#[derive(Clone)]
struct Show {
    manners: Manners,
    last_lines: Arc<Mutex<VecDeque<String>>>,
}

/// Shows what a child writes, line by line, and keeps the end of it.
async fn read_lines(from: Option<impl AsyncRead + Unpin>, show: Show) {
    let Some(mut from) = from else { return };
    let mut budget = Budget::new(Instant::now());
    let mut buffer = [0; 8 << 10];
    let mut line: Vec<u8> = vec![];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        for &byte in &buffer[..count] {
            if byte == b'\n' {
                show.line(&std::mem::take(&mut line), &mut budget);
            } else if line.len() < LINE_BYTES_MAX {
                line.push(byte);
            }
        }
        // A child that never lets go of the line, or of the processor, still lets others have their turn.
        tokio::task::yield_now().await;
    }
    show.line(&line, &mut budget);
}

impl Show {
    fn line(&self, line: &[u8], budget: &mut Budget) {
        let text = String::from_utf8_lossy(line);
        let mut text: String = text.chars().filter(|c| !c.is_control()).collect();
        for secret in &self.manners.secrets {
            if secret.chars().count() >= SECRET_CHARS_MIN {
                text = text.replace(secret, HIDDEN);
            }
        }
        let (text, what) = (text.trim(), self.manners.what);
        if text.is_empty() {
            return;
        }
        {
            let mut lines = lock(&self.last_lines);
            if lines.len() == LAST_LINES {
                lines.pop_front();
            }
            lines.push_back(text.to_owned());
        }
        if let Some(missed) = budget.spend(Instant::now()) {
            if missed > 0 {
                tracing::warn!(target: "child", "{missed} lines of the {what} were passed over");
            }
            tracing::info!(target: "child", what, "{text}");
        }
    }
}

/// Lines that may still be shown in this second.
struct Budget {
    began: Instant,
    shown: u32,
    missed: u64,
}

impl Budget {
    const fn new(now: Instant) -> Self {
        Self { began: now, shown: 0, missed: 0 }
    }

    /// How many were passed over since the last, if this one may be shown.
    fn spend(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.began) >= Duration::from_secs(1) {
            self.began = now;
            self.shown = 0;
        }
        if self.shown >= LINES_PER_SECOND_MAX {
            self.missed += 1;
            return None;
        }
        self.shown += 1;
        Some(std::mem::take(&mut self.missed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_by_its_number() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let shown = (0..1_000).filter(|_| budget.spend(start).is_some()).count();
        assert_eq!(shown, 50);
        assert_eq!(budget.spend(start + Duration::from_secs(1)), Some(950));
        assert_eq!(budget.spend(start + Duration::from_secs(1)), Some(0));
    }

    fn manners() -> Manners {
        Manners { what: "server", secrets: vec!["x".into(), "hush-hush".into()] }
    }

    fn shell(line: &str, stop_millis: u64) -> ChildProcess {
        let mut command = ServerCommand::shell(line);
        command.stop_wait = Duration::from_millis(stop_millis);
        ChildProcess::start(&command, &manners()).unwrap()
    }

    #[tokio::test]
    async fn an_end_is_told_with_its_last_lines() {
        let mut process = shell("echo one; echo two x hush-hush >&2; exit 3", 1_000);
        let said = process.exited().await;
        assert!(said.contains("ended with status 3") && said.contains("one"), "{said}");
        assert!(said.contains("two x ***") && !said.contains("hush"), "{said}");
        process.stop().await;
        let missing = ServerCommand { program: "/nowhere/vllm".into(), ..ServerCommand::shell("") };
        let refusal = ChildProcess::start(&missing, &manners()).err().unwrap();
        assert!(refusal.contains("/nowhere/vllm"), "{refusal}");
    }

    #[tokio::test]
    async fn a_stop_ends_the_whole_group() {
        // The first process is deaf to SIGTERM, and so is the one it started.
        let process = shell("trap '' TERM; (trap '' TERM; sleep 300) & sleep 300", 50);
        let group = process.group;
        assert!(is_anyone_left(group));
        process.stop().await;
        assert!(!is_anyone_left(group));
    }

    #[tokio::test]
    async fn a_dropped_server_is_killed_with_all_it_started() {
        let process = shell("(sleep 300) & sleep 300", 1_000);
        let group = process.group;
        drop(process);
        while is_anyone_left(group) {
            tokio::time::sleep(GONE_POLL).await;
        }
    }
}
