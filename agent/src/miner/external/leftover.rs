//! Miners whose agent died and whose guard died with it: found at the next start by what was written down, and ended.
//!
//! A number of a process says little, because the system gives it out again. A process is ours when it began at the tick
//! that was written down, in the same boot, or when its environment holds the mark that was made for that start; nobody
//! else is touched.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process_group};
use serde::{Deserialize, Serialize};

use super::launch::MARK;
use crate::engine::kept::kept_folder;

/// Notes looked at; more are no notes of ours.
const NOTES_MAX: usize = 64;
/// Longest note.
const NOTE_BYTES_MAX: u64 = 4_096;
/// Given to SIGKILL.
const GONE_WAIT_MAX: Duration = Duration::from_secs(10);
const GONE_POLL: Duration = Duration::from_millis(20);

/// Why a leftover is still there.
#[derive(Debug, thiserror::Error)]
pub enum LeftoverError {
    /// It cannot be ended.
    #[error(
        "a miner of an earlier start (process group {group}) cannot be ended; end it by hand, or restart the machine"
    )]
    Stuck {
        /// Its process group.
        group: i32,
    },
}

/// Where running miners are written down; nothing where no folder is known.
#[must_use]
pub fn notes_folder() -> Option<PathBuf> {
    kept_folder().map(|folder| folder.join("miners"))
}

/// What is written down of a running miner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Note {
    boot: String,
    group: i32,
    started_ticks: u64,
    mark: String,
    agent: i32,
    agent_started_ticks: u64,
}

/// A note on disk; removed with this value.
pub(super) struct Noted {
    path: PathBuf,
}

impl Drop for Noted {
    fn drop(&mut self) {
        // One that cannot be removed names a group that is gone, and is passed over.
        drop(std::fs::remove_file(&self.path));
    }
}

/// Writes a miner down. Nothing where no folder is known or it cannot be written: then the guard alone must do.
pub(super) fn note(folder: Option<&Path>, group: Pid, mark: &str) -> Option<Noted> {
    let (folder, group) = (folder?, group.as_raw_nonzero().get());
    let agent = i32::try_from(std::process::id()).ok()?;
    let note = Note {
        boot: boot()?,
        group,
        started_ticks: stat(group)?.started_ticks,
        mark: mark.to_owned(),
        agent,
        agent_started_ticks: stat(agent)?.started_ticks,
    };
    let written = write(folder, &note);
    if let Err(error) = &written {
        tracing::warn!(folder = %folder.display(), %error, "the miner's process is not written down; should agent and guard both be killed, nobody finds it");
    }
    written.ok()
}

fn write(folder: &Path, note: &Note) -> std::io::Result<Noted> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!("{}.json", note.group));
    std::fs::write(&path, serde_json::to_vec(note)?)?;
    Ok(Noted { path })
}

/// Ends the miners of agents that are dead; blocks until they are gone. How many there were.
///
/// # Errors
/// One is still there.
pub fn end_leftovers(folder: &Path) -> Result<usize, LeftoverError> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(0) };
    let mut ended = 0;
    for path in entries.flatten().map(|entry| entry.path()).take(NOTES_MAX) {
        let Some(note) = read(&path) else { continue };
        let same_boot = boot().as_ref() == Some(&note.boot);
        let agent = stat(note.agent).filter(|_| same_boot);
        if agent.is_some_and(|agent| agent.started_ticks == note.agent_started_ticks) {
            // Its agent lives and looks after it.
            continue;
        }
        if same_boot && end(&note)? {
            tracing::warn!(
                group = note.group,
                "a miner of an agent that died was still there and is ended"
            );
            ended += 1;
        }
        drop(Noted { path });
    }
    Ok(ended)
}

fn read(path: &Path) -> Option<Note> {
    let length = std::fs::metadata(path).ok()?.len();
    if path.extension().is_none_or(|ending| ending != "json") || length > NOTE_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Whether there was anybody to end.
fn end(note: &Note) -> Result<bool, LeftoverError> {
    let began = Instant::now();
    let mut found = false;
    loop {
        let ours = members(note);
        if ours.is_empty() {
            return Ok(found);
        }
        found = true;
        for process in ours {
            // One that has ended meanwhile is what is wanted.
            let _ = kill_process(process, Signal::KILL);
        }
        if began.elapsed() > GONE_WAIT_MAX {
            return Err(LeftoverError::Stuck { group: note.group });
        }
        std::thread::sleep(GONE_POLL);
    }
}

/// The living processes of the group that are ours.
fn members(note: &Note) -> Vec<Pid> {
    let Some(group) = Pid::from_raw(note.group) else { return vec![] };
    if test_kill_process_group(group).is_err() {
        return vec![];
    }
    let Ok(processes) = std::fs::read_dir("/proc") else { return vec![] };
    let numbers =
        processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter(|number| {
            let Some(stat) = stat(*number) else { return false };
            let first = *number == note.group && stat.started_ticks == note.started_ticks;
            stat.lives && stat.group == note.group && (first || has_mark(*number, &note.mark))
        })
        .filter_map(Pid::from_raw)
        .collect()
}

fn has_mark(process: i32, mark: &str) -> bool {
    let wanted = format!("{MARK}={mark}");
    let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
}

struct Stat {
    group: i32,
    started_ticks: u64,
    lives: bool,
}

/// `/proc/PID/stat`: state, group and start are the fields 3, 5 and 22 (proc(5)); a name may hold anything.
fn stat(process: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, after_name) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = after_name.split(' ').collect();
    Some(Stat {
        lives: !matches!(*fields.first()?, "Z" | "X"),
        group: fields.get(2)?.parse().ok()?,
        started_ticks: fields.get(19)?.parse().ok()?,
    })
}

fn boot() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that leads a group of its own and has started another.
    fn sleeper(mark: &str) -> Child {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 300 & sleep 300"]).env(MARK, mark).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    }

    fn noted(child: &Child, mark: &str) -> Note {
        let group = i32::try_from(child.id()).unwrap();
        let started_ticks = stat(group).unwrap().started_ticks;
        // An agent that is no more: this number is in use, but began at another tick.
        Note {
            boot: boot().unwrap(),
            group,
            started_ticks,
            mark: mark.into(),
            agent: 1,
            agent_started_ticks: u64::MAX,
        }
    }

    #[test]
    fn a_dead_agents_miner_is_ended_and_a_strangers_process_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (mut ours, mut stranger, mut kept) = (sleeper("m1"), sleeper("m2"), sleeper("m3"));
        let note = noted(&ours, "m1");
        std::mem::forget(write(folder.path(), &note).unwrap());
        // The number was given out again: neither start nor mark are what was written down.
        let other = Note { started_ticks: 1, mark: "m9".into(), ..noted(&stranger, "") };
        std::mem::forget(write(folder.path(), &other).unwrap());
        // Its agent lives: this process.
        let own = i32::try_from(std::process::id()).unwrap();
        let lives = Note {
            agent: own,
            agent_started_ticks: stat(own).unwrap().started_ticks,
            ..noted(&kept, "m3")
        };
        std::mem::forget(write(folder.path(), &lives).unwrap());
        std::fs::write(folder.path().join("9.json"), "no note").unwrap();
        // The dead must not be waited for by who ends them: here that is this process.
        let reaper = std::thread::spawn(move || ours.wait());
        assert_eq!(end_leftovers(folder.path()).unwrap(), 1);
        reaper.join().unwrap().unwrap();
        assert!(members(&note).is_empty());
        assert!(stranger.try_wait().unwrap().is_none() && kept.try_wait().unwrap().is_none());
        assert!(!folder.path().join(format!("{}.json", other.group)).exists());
        assert!(folder.path().join(format!("{}.json", lives.group)).exists());
        assert_eq!(end_leftovers(folder.path()).unwrap(), 0);
        for (child, note) in [(&mut stranger, noted_of("m2", &other)), (&mut kept, lives)] {
            end(&note).unwrap();
            child.wait().unwrap();
        }
    }

    fn noted_of(mark: &str, note: &Note) -> Note {
        Note { mark: mark.into(), ..note.clone() }
    }

    #[test]
    fn a_child_of_a_dead_first_process_is_known_by_its_mark() {
        let mut first = sleeper("m4");
        let note = Note { started_ticks: 1, ..noted(&first, "m4") };
        // The shell has started its sleepers when there are three.
        while members(&note).len() < 3 {
            std::thread::yield_now();
        }
        first.kill().unwrap();
        first.wait().unwrap();
        assert_eq!(members(&note).len(), 2);
        assert!(end(&note).unwrap());
        assert!(!end(&note).unwrap(), "nobody is left");
    }
}
