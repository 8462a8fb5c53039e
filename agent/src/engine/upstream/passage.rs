//! One request on its way to the server and its answer on the way back.
//!
//! ```text
//! accepting? -> the line (64) -> a place (`concurrent`) -> server -> first event -> pump -> customer
//! ```
//! A whole answer is read before its status goes out, and of a stream the first event, so that a server that fails
//! early costs the customer a proper status instead of a broken answer. Afterwards a task of its own moves event by
//! event, no faster than the customer reads; it lets go of the server as soon as nobody wants the rest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::super::fault::EngineFault;
use super::super::queue::{JOBS_QUEUED_MAX, OpenJob};
use super::super::replica::Counters;
use super::events::{Event, EventReader, Head, Usage};
use super::fault::{PassFault, UpstreamFault, words_of};
use super::service::Shared;
use super::splice::{rename, set_member};
use super::wire::Answer;

/// Events of one answer between server and customer; both are this far apart at most.
const EVENTS_BUFFERED_MAX: usize = 16;

/// A customer's request, as far as it is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Where it goes, as the server calls it.
    pub path: &'static str,
    /// A JSON object, as it was written.
    pub body: Bytes,
    /// Wants a stream of events.
    pub stream: bool,
    /// Says itself what its stream shall count.
    pub has_stream_options: bool,
}

/// The answer.
#[derive(Debug)]
pub enum Passed {
    /// All of it.
    Whole {
        /// The server's status: success, or a refusal that is the customer's to mend.
        status: StatusCode,
        /// A JSON object.
        body: Vec<u8>,
        /// Tokens generated, if the server counted them.
        tokens: u64,
    },
    /// As it comes. Dropping it ends the work.
    Stream(mpsc::Receiver<Piece>),
}

/// A part of a streamed answer.
#[derive(Debug)]
pub enum Piece {
    /// Lines of an event, as they go out.
    Event(Bytes),
    /// Nothing follows: the tokens generated, or what ended it early.
    End(Result<u64, PassFault>),
}

/// Passes a request on; see the module head.
pub(super) async fn pass(shared: &Arc<Shared>, asked: Asked) -> Result<Passed, PassFault> {
    let mut ticket = Ticket::draw(shared)?;
    let outcome = ticket.pass(asked).await;
    match outcome {
        Ok(Answered::Whole { status, body, usage }) => {
            ticket.settle(Ok(usage));
            let tokens = usage.map_or(0, |usage| usage.completion_tokens);
            Ok(Passed::Whole { status, body, tokens })
        }
        Ok(Answered::Stream(stream)) => {
            let (pieces, received) = mpsc::channel(EVENTS_BUFFERED_MAX);
            tokio::spawn(pump(ticket, *stream, pieces));
            Ok(Passed::Stream(received))
        }
        Err(fault) => {
            ticket.settle(Err(&fault));
            Err(fault)
        }
    }
}

enum Answered {
    /// `usage` of a refusal is nothing.
    Whole {
        status: StatusCode,
        body: Vec<u8>,
        usage: Option<Usage>,
    },
    Stream(Box<Stream>),
}

/// A stream whose first event has come.
struct Stream {
    answer: Answer,
    reader: EventReader,
    first: Event,
    /// The customer did not ask for the counting event that we did.
    hide_usage: bool,
}

/// A request's place among the open ones. Dropped before it is settled, it counts as cancelled.
struct Ticket {
    shared: Arc<Shared>,
    _open: OpenJob,
    work: CancellationToken,
    place: Option<OwnedSemaphorePermit>,
    began: Instant,
    settled: bool,
}

impl Ticket {
    fn draw(shared: &Arc<Shared>) -> Result<Self, EngineFault> {
        let work = shared.work();
        if !shared.is_accepting() {
            return Err(EngineFault::Draining);
        }
        if shared.state.borrow().model().is_none() {
            return Err(EngineFault::NoModel);
        }
        Ok(Self {
            _open: OpenJob::count_in(&shared.open),
            shared: Arc::clone(shared),
            work,
            place: None,
            began: Instant::now(),
            settled: false,
        })
    }

    async fn pass(&mut self, asked: Asked) -> Result<Answered, PassFault> {
        let work = self.work.clone();
        tokio::select! {
            biased;
            () = work.cancelled() => Err(EngineFault::Cancelled.into()),
            answered = self.pass_on(asked) => answered,
        }
    }

    async fn pass_on(&mut self, asked: Asked) -> Result<Answered, PassFault> {
        self.place = Some(self.wait_for_place().await?);
        self.began = Instant::now();
        let answered = self.ask(asked).await;
        match &answered {
            Ok(Answered::Whole { .. }) => self.shared.judge(Ok(())),
            // Its end will tell.
            Ok(Answered::Stream(_)) => {}
            Err(fault) => self.shared.judge(Err(fault)),
        }
        Ok(answered?)
    }

    async fn wait_for_place(&self) -> Result<OwnedSemaphorePermit, EngineFault> {
        let shared = &self.shared;
        if let Ok(place) = Arc::clone(&shared.places).try_acquire_owned() {
            return Ok(place);
        }
        let Ok(_in_line) = Arc::clone(&shared.line).try_acquire_owned() else {
            let retry_seconds = shared.retry_seconds();
            return Err(EngineFault::QueueFull { queued: JOBS_QUEUED_MAX, retry_seconds });
        };
        let place = Arc::clone(&shared.places).acquire_owned().await;
        place.map_err(|_closed| EngineFault::ShutDown)
    }

    async fn ask(&self, asked: Asked) -> Result<Answered, UpstreamFault> {
        let shared = &self.shared;
        let Some(served) = shared.served() else {
            return Err(UpstreamFault::Unreachable { reason: "it was lost a moment ago".into() });
        };
        let own = serde_json::Value::from(served.model.as_str()).to_string();
        let mut body = set_member(&asked.body, "model", &own);
        let hide_usage = asked.stream && !asked.has_stream_options;
        if hide_usage {
            body = set_member(&body, "stream_options", r#"{"include_usage":true}"#);
        }
        let wait = shared.bounds.answer;
        let body = Some(Bytes::from(body));
        let mut answer = shared.wire.ask(Method::POST, asked.path, body, wait).await?;
        if !answer.status.is_success() {
            let retry_seconds = answer.retry_seconds();
            let body = answer.whole(shared.bounds.silence).await?;
            return refusal(answer.status, body, retry_seconds);
        }
        if answer.is_events() {
            if !asked.stream {
                let reason = "a stream nobody asked for".to_owned();
                return Err(UpstreamFault::BadAnswer { reason });
            }
            let (reader, first) = first_event(&mut answer, shared).await?;
            return Ok(Answered::Stream(Box::new(Stream { answer, reader, first, hide_usage })));
        }
        let body = tokio::time::timeout(wait, answer.whole(wait)).await;
        let body = body.map_err(|_elapsed| UpstreamFault::Silent { waited: wait })??;
        let head = Head::read(&body)?;
        if head.is_failure() {
            return Err(UpstreamFault::Failed { status: 500, words: words_of(&body) });
        }
        let body = rename(&body, "model", &served.model, &shared.served_as);
        Ok(Answered::Whole {
            status: answer.status,
            body,
            usage: Some(head.usage.unwrap_or_default()),
        })
    }

    /// Counts how it ended.
    fn settle(mut self, outcome: Result<Option<Usage>, &PassFault>) {
        self.settled = true;
        let counters = &self.shared.counters;
        let add = |counter, count: u64| Counters::add(counter, usize::try_from(count).unwrap_or(0));
        match outcome {
            Ok(Some(usage)) => {
                add(&counters.prompt_tokens, usage.prompt_tokens);
                add(&counters.tokens, usage.completion_tokens);
                add(&counters.completions, 1);
                let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
                counters.busy_millis.fetch_add(millis, Ordering::Relaxed);
            }
            // The customer's own mistake.
            Ok(None) => {}
            Err(PassFault::Engine(EngineFault::QueueFull { .. })) => add(&counters.refused, 1),
            Err(PassFault::Server(UpstreamFault::Busy { .. })) => add(&counters.refused, 1),
            Err(PassFault::Engine(EngineFault::Cancelled)) => add(&counters.cancelled, 1),
            Err(PassFault::Server(UpstreamFault::NotRead { .. })) => add(&counters.cancelled, 1),
            Err(_) => add(&counters.failed, 1),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.settled {
            Counters::add(&self.shared.counters.cancelled, 1);
        }
    }
}

/// What a status that is no success means for the customer.
fn refusal(
    status: StatusCode,
    body: Vec<u8>,
    retry_seconds: Option<u64>,
) -> Result<Answered, UpstreamFault> {
    let words = words_of(&body);
    let code = status.as_u16();
    match code {
        401 | 403 => Err(UpstreamFault::KeyRefused { status: code }),
        429 => Err(UpstreamFault::Busy { words, retry_seconds }),
        408 | 500..=599 => Err(UpstreamFault::Failed { status: code, words }),
        400..=499 => {
            let is_error = serde_json::from_slice::<serde_json::Value>(&body)
                .is_ok_and(|body| body.get("error").is_some_and(serde_json::Value::is_object));
            let body = if is_error {
                body
            } else {
                let error = serde_json::json!({
                    "message": words, "type": "invalid_request_error", "param": null, "code": code,
                });
                serde_json::json!({ "error": error }).to_string().into_bytes()
            };
            Ok(Answered::Whole { status, body, usage: None })
        }
        _ => Err(UpstreamFault::BadAnswer { reason: format!("status {code}: {words}") }),
    }
}

/// Waits for the first event that is no comment.
async fn first_event(
    answer: &mut Answer,
    shared: &Shared,
) -> Result<(EventReader, Event), UpstreamFault> {
    let wait = shared.bounds.answer;
    let mut reader = EventReader::default();
    let first = async {
        loop {
            match reader.next()? {
                Some(Event::Comment(_)) => {}
                Some(Event::Failed(words)) => {
                    let words = words_of(&words);
                    return Err(UpstreamFault::Failed { status: 500, words });
                }
                Some(event) => return Ok(event),
                None => match answer.piece(wait).await? {
                    Some(bytes) => reader.push(&bytes),
                    None => return Err(cut()),
                },
            }
        }
    };
    let first = tokio::time::timeout(wait, first).await;
    let first = first.map_err(|_elapsed| UpstreamFault::Silent { waited: wait })??;
    Ok((reader, first))
}

fn cut() -> UpstreamFault {
    UpstreamFault::Unreachable { reason: "its stream ended before its `[DONE]`".into() }
}

/// Moves a stream to the customer, event by event.
async fn pump(ticket: Ticket, stream: Stream, pieces: mpsc::Sender<Piece>) {
    let shared = Arc::clone(&ticket.shared);
    let mut count = Count::default();
    let moved = tokio::select! {
        biased;
        () = ticket.work.cancelled() => Err(PassFault::from(EngineFault::Cancelled)),
        // Nobody wants the rest: the ticket counts it as cancelled.
        () = pieces.closed() => return,
        moved = move_events(&shared, stream, &pieces, &mut count) => moved,
    };
    if let Err(PassFault::Server(fault)) = &moved {
        shared.judge(Err(fault));
    }
    match moved {
        Ok(()) => {
            let usage = count.usage();
            ticket.settle(Ok(Some(usage)));
            drop(pieces.send(Piece::End(Ok(usage.completion_tokens))).await);
        }
        Err(fault) => {
            Counters::add(&shared.counters.tokens, usize::try_from(count.chunks).unwrap_or(0));
            ticket.settle(Err(&fault));
            // A customer who does not read must not hold the task.
            let end = pieces.send(Piece::End(Err(fault)));
            drop(tokio::time::timeout(shared.bounds.unread, end).await);
        }
    }
}

/// What a stream has counted.
#[derive(Default)]
struct Count {
    usage: Option<Usage>,
    /// Chunks with a part of an answer: as many tokens at least, should the server count none.
    chunks: u64,
}

impl Count {
    fn usage(&self) -> Usage {
        self.usage.unwrap_or(Usage { prompt_tokens: 0, completion_tokens: self.chunks })
    }
}

async fn move_events(
    shared: &Shared,
    stream: Stream,
    pieces: &mpsc::Sender<Piece>,
    count: &mut Count,
) -> Result<(), PassFault> {
    let Stream { mut answer, mut reader, first, hide_usage } = stream;
    let server_model = shared.served().map_or_else(String::new, |served| served.model);
    let mut next = Some(first);
    loop {
        let event = match next.take() {
            Some(event) => Some(event),
            None => reader.next()?,
        };
        let lines = match event {
            None => match answer.piece(shared.bounds.silence).await? {
                Some(bytes) => {
                    reader.push(&bytes);
                    continue;
                }
                None => return Err(cut().into()),
            },
            Some(Event::Done) => {
                shared.judge(Ok(()));
                return Ok(());
            }
            Some(Event::Failed(words)) => {
                let words = words_of(&words);
                return Err(UpstreamFault::Failed { status: 500, words }.into());
            }
            Some(Event::Comment(words)) => lines(b":", &words),
            Some(Event::Chunk { data, head }) => {
                count.usage = head.usage.or(count.usage);
                if head.is_usage_alone() && hide_usage {
                    continue;
                }
                count.chunks += u64::from(head.choices.is_some_and(|choices| !choices.is_empty()));
                lines(b"data: ", &rename(&data, "model", &server_model, &shared.served_as))
            }
        };
        let sent = tokio::time::timeout(shared.bounds.unread, pieces.send(Piece::Event(lines)));
        match sent.await {
            Ok(Ok(())) => {}
            Ok(Err(_gone)) => return Err(EngineFault::Cancelled.into()),
            Err(_elapsed) => {
                return Err(UpstreamFault::NotRead { waited: shared.bounds.unread }.into());
            }
        }
    }
}

/// An event of one field, a line of it for every line of its value.
fn lines(field: &[u8], value: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(field.len() + value.len() + 2);
    for line in value.split(|&byte| byte == b'\n') {
        text.extend_from_slice(field);
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.push(b'\n');
    text.into()
}
