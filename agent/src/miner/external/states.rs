//! The words of supervision: what a miner is expected to do, what can happen to it, what can be done about it, and where
//! it stands. How they go together is the supervisor's.

use roadbed_protocol::{HashesPerSecond, Millis};

use super::reply::Figures;

/// How patient supervision is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Between two looks at the API.
    pub ask_every: Millis,
    /// An API that answered falls silent for this long: the program hangs.
    pub api_silent: Millis,
    /// Below the floor for this long; building a DAG takes a minute or two.
    pub below_floor: Millis,
    /// Expected times between two shares that may pass without one. At 20 the chance is e^-20 a share, once in centuries.
    pub share_factor: u64,
    /// But never less: a pool that is away for a moment is no stall.
    pub share_wait_min: Millis,
    /// Until a share must have come where nobody knows how often they come.
    pub share_wait_unknown: Millis,
    /// For the API stop to end it.
    pub api_stop: Millis,
    /// For SIGTERM to end it.
    pub term: Millis,
    /// The same when power must be cut.
    pub term_in_a_hurry: Millis,
    /// For SIGKILL to end it; longer is a driver that does not let go.
    pub kill: Millis,
    /// For the GPUs' memory to be free once nobody is left.
    pub memory: Millis,
    /// Waited where nobody tells of memory.
    pub settle: Millis,
    /// Before the first restart; doubled with each in a row.
    pub backoff_first: Millis,
    /// Longest wait between two starts.
    pub backoff_max: Millis,
    /// Failures in a row after which a person must look.
    pub failures_max: u32,
    /// Hashing for this long ends a row.
    pub good_run: Millis,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ask_every: Millis::from_secs(3),
            api_silent: Millis::from_secs(60),
            below_floor: Millis::from_mins(4),
            share_factor: 20,
            share_wait_min: Millis::from_mins(5),
            share_wait_unknown: Millis::from_mins(60),
            api_stop: Millis::from_secs(5),
            term: Millis::from_secs(10),
            term_in_a_hurry: Millis::from_secs(1),
            kill: Millis::from_secs(10),
            memory: Millis::from_secs(20),
            settle: Millis::from_secs(3),
            backoff_first: Millis::from_secs(5),
            backoff_max: Millis::from_mins(5),
            failures_max: 5,
            good_run: Millis::from_mins(10),
        }
    }
}

/// What is expected of this miner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Until its API must answer for the first time.
    pub first_answer: Millis,
    /// Slower than this is a stall; nothing at all always is.
    pub floor: HashesPerSecond,
    /// Time between two shares, if somebody knows.
    pub share_every: Option<Millis>,
    /// It can be told by its API to end.
    pub stops_by_api: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time passes; some times a second.
    Tick,
    /// It shall run.
    Run,
    /// It shall end.
    Stop,
    /// Power must be cut.
    Cut,
    /// It could not be started.
    SpawnFailed(String),
    /// Its API answered.
    Answered(Figures),
    /// Its API did not.
    Unanswered(String),
    /// Its first process ended.
    Exited(String),
    /// Whether anybody of its group is left.
    Group {
        /// Somebody is.
        left: bool,
    },
    /// What its GPUs' memory shows.
    Memory(MemoryLook),
}

/// What the GPUs' memory shows beside what was there before the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLook {
    /// As much as before.
    Free,
    /// More is taken.
    Taken {
        /// By so much.
        bytes: u64,
    },
    /// Nobody tells.
    Unknown,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Start the program.
    Spawn,
    /// Ask its API.
    Ask,
    /// Tell its API to end it.
    AskToStop,
    /// SIGTERM to the group.
    Terminate,
    /// SIGKILL to the group.
    Kill,
    /// See whether anybody of the group is left.
    LookAtGroup,
    /// See whether memory is free.
    LookAtMemory,
    /// Tell a person.
    Alarm(String),
}

/// Where a miner stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing runs.
    Off(Ended),
    /// Started, its API has not answered yet.
    Starting {
        /// Since then.
        since: Millis,
    },
    /// Its API answers.
    Hashing(Health),
    /// On its way out.
    Stopping {
        /// By this means.
        step: Step,
        /// Since then.
        since: Millis,
        /// And then.
        then: Then,
    },
    /// Nobody is left; its memory is looked at.
    Confirming {
        /// Since then.
        since: Millis,
        /// And then.
        then: Then,
    },
    /// Will be started again.
    Waiting {
        /// Not before this.
        until: Millis,
        /// Why it ended.
        reason: String,
    },
    /// A person must look.
    Alarm {
        /// Why.
        reason: String,
        /// A process or GPU memory of it is still there.
        left_over: bool,
    },
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It never ran.
    NeverRan,
    /// Nobody is left and memory is free.
    Confirmed,
    /// Nobody is left; of memory nobody tells.
    NotConfirmed,
}

/// How it is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Its API was told.
    Api,
    /// SIGTERM was sent.
    Term {
        /// How long it has.
        wait: Millis,
    },
    /// SIGKILL was sent.
    Kill,
}

/// What comes after the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Off,
    /// Another start.
    Restart(String),
    /// Nothing until a person has looked.
    Alarm(String),
}

/// How a running miner does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Its API answered first.
    pub(super) since: Millis,
    /// And last.
    pub(super) answered: Millis,
    /// Its rate is below the floor since then.
    pub(super) below_since: Option<Millis>,
    /// Its own count of shares, as last seen.
    pub(super) counter: u64,
    /// Shares seen to come in.
    pub(super) shares: u64,
    /// The last of them; the first answer while there is none.
    pub(super) share_at: Millis,
    /// What the API said instead of an answer.
    pub(super) silence: String,
}
