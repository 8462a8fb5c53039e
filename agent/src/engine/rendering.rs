//! Chat templates in a process of their own, whose memory and time the system bounds.
//!
//! A template is a program that comes with the model file. Its steps and its output are counted where it is
//! rendered, but one step may double a text it keeps, and forty of those are a terabyte. So the agent starts itself
//! once more for every chat, as `roadbed-agent render-template`; the child limits itself before it reads a word, and
//! whatever a template does to it costs one request.

use std::borrow::Cow;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use roadbed_compute::Conversation;
use roadbed_compute::template::{ChatTemplate, TemplateText};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::fault::EngineFault;

/// Name of the command that is the child.
pub const COMMAND: &str = "render-template";

/// Address space of the child. A prompt has 16 MiB at most; the rest is room for the program itself and for copies.
const MEMORY_BYTES_MAX: u64 = 512 << 20;
/// CPU time of the child. The templates of real models take milliseconds.
const CPU_SECONDS_MAX: u64 = 5;
/// Longest answer of the child: the longest prompt, its first byte, and some room.
const ANSWER_BYTES_MAX: u64 = 17 << 20;

const PROMPT: u8 = b'+';
const REFUSAL: u8 = b'-';

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Says that this program knows [`COMMAND`]: from now on, templates are rendered by it. Without this call, as in
/// tests of the library, they are rendered in the process itself.
pub fn use_own_program() {
    match std::env::current_exe() {
        Ok(program) => drop(PROGRAM.set(program)),
        Err(error) => {
            tracing::warn!(%error, "own program not found: chat templates run without a bound on memory");
        }
    }
}

/// What the child is asked.
#[derive(Debug, Serialize, Deserialize)]
struct Order<'a> {
    template: Cow<'a, TemplateText>,
    conversation: Cow<'a, Conversation>,
    now_unix_seconds: u64,
}

/// The prompt for a conversation.
///
/// # Errors
/// What the template refuses, or that it takes too much.
pub fn render(
    template: &ChatTemplate,
    conversation: &Conversation,
    now: SystemTime,
) -> Result<String, EngineFault> {
    match PROGRAM.get() {
        Some(program) => render_by(program, template.text(), conversation, now),
        None => template.render(conversation, now).map_err(|error| refused(error.to_string())),
    }
}

/// As [`render`], by the given `roadbed-agent`.
///
/// # Errors
/// As [`render`]; [`EngineFault::Failed`] if the program cannot be started.
pub fn render_by(
    program: &Path,
    template: &TemplateText,
    conversation: &Conversation,
    now: SystemTime,
) -> Result<String, EngineFault> {
    let order = Order {
        template: Cow::Borrowed(template),
        conversation: Cow::Borrowed(conversation),
        now_unix_seconds: now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
    };
    let failed = |reason: String| EngineFault::Failed {
        reason: format!("rendering a chat by {}: {reason}", program.display()),
    };
    let words = serde_json::to_vec(&order).map_err(|error| failed(error.to_string()))?;
    let mut child = Command::new(program)
        .arg(COMMAND)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let answer = ask(&mut child, &words);
    // Nobody listens to it any more, and its time is limited: it ends.
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    let answer = answer.map_err(|error| failed(error.to_string()))?;
    match answer.split_first() {
        Some((&PROMPT, prompt)) => Ok(String::from_utf8_lossy(prompt).into_owned()),
        Some((&REFUSAL, reason)) => Err(refused(String::from_utf8_lossy(reason).into_owned())),
        Some(_) => Err(failed("it gave something else than an answer".into())),
        None => Err(refused(ended(status))),
    }
}

/// The child's whole answer; empty if it died before.
fn ask(child: &mut Child, order: &[u8]) -> io::Result<Vec<u8>> {
    if let Some(mut stdin) = child.stdin.take() {
        // Dropped at the end, so that it sees the end. A child that died does not read; its silence tells.
        let _ = stdin.write_all(order);
    }
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    }
    Ok(answer)
}

fn refused(reason: String) -> EngineFault {
    EngineFault::bad_request("messages", format!("the model's chat template refused: {reason}"))
}

/// Why a child that said nothing has ended: it keeps to its limits by being ended.
fn ended(status: ExitStatus) -> String {
    format!(
        "it needs more than {} MiB of memory or {CPU_SECONDS_MAX} s, or does not end ({status})",
        MEMORY_BYTES_MAX >> 20
    )
}

/// The child: limits itself, reads one order, writes one answer.
///
/// # Errors
/// Limits that cannot be set, or a parent that does not speak as it should.
pub fn answer_one() -> io::Result<()> {
    let limit = |bound: u64| Rlimit { current: Some(bound), maximum: Some(bound) };
    setrlimit(Resource::As, limit(MEMORY_BYTES_MAX))?;
    setrlimit(Resource::Cpu, limit(CPU_SECONDS_MAX))?;
    setrlimit(Resource::Core, limit(0))?;
    let order: Order<'_> = serde_json::from_reader(io::stdin().lock())?;
    let now = UNIX_EPOCH + Duration::from_secs(order.now_unix_seconds);
    let rendered = ChatTemplate::compile(order.template.into_owned())
        .and_then(|template| template.render(&order.conversation, now));
    let (kind, text) = match rendered {
        Ok(prompt) => (PROMPT, prompt),
        Err(error) => (REFUSAL, error.to_string()),
    };
    // One write at the end: a child that is ended before has said nothing.
    let mut answer = Vec::with_capacity(text.len() + 1);
    answer.push(kind);
    answer.extend_from_slice(text.as_bytes());
    io::stdout().lock().write_all(&answer)
}
