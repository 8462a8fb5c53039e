//! The body of a scripted miner and the script it follows, whatever its firmware.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;

/// The right password of every scripted miner; no message may hold it.
pub const PASSWORD: &str = "correct-horse";

/// How a miner misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    Obeys,
    /// Says done, does nothing.
    Lies,
    /// Says done to the first order and forgets it.
    LosesFirstOrder,
    /// Understands and says no.
    Refuses,
    /// Answers after a while.
    Slow,
    /// Ends so many replies in the middle.
    CutsReplies(u32),
    /// Answers so many requests with noise.
    SaysGarbage(u32),
    /// Answers so many requests with a megabyte.
    SaysTooMuch(u32),
    /// Does not answer for a while after the first order, which is lost.
    RebootsOnce,
    /// Refuses the first session or token of every order.
    ForgetsLogin,
    /// Another tool holds the session for so many tries.
    SessionHeld(u32),
    WrongPassword,
}

/// Requests that a rebooting miner leaves unanswered.
const REBOOT_REQUESTS: u32 = 6;

/// What to do with a reply before it is sent.
pub enum Delivery {
    Whole(Vec<u8>),
    /// End the connection after these.
    Cut(Vec<u8>),
    Nothing,
}

#[derive(Debug)]
struct State {
    script: Script,
    awake: bool,
    step: u64,
    watts_most: u64,
    orders: u32,
    dark: u32,
    tricks: u32,
    writes: Vec<String>,
}

/// A miner's body; clones are the same miner.
#[derive(Debug, Clone)]
pub struct Body(Arc<Mutex<State>>);

impl Body {
    pub fn new(script: Script, awake: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            script,
            awake,
            step: 2_794,
            watts_most: 0,
            orders: 0,
            dark: 0,
            tricks: 0,
            writes: Vec::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn script(&self) -> Script {
        self.state().script
    }

    pub fn is_awake(&self) -> bool {
        self.state().awake
    }

    pub fn set_awake(&self, awake: bool) {
        self.state().awake = awake;
    }

    pub fn watts(&self) -> u64 {
        let mut state = self.state();
        let watts = if state.awake { state.step } else { 18 };
        state.watts_most = state.watts_most.max(watts);
        watts
    }

    pub fn watts_most(&self) -> u64 {
        self.state().watts_most
    }

    pub fn gigahash(&self) -> f64 {
        match (self.is_awake(), self.step()) {
            (false, _) => 0.0,
            (true, step) if step > 2_000 => 121_800.0,
            (true, _) => 65_000.0,
        }
    }

    pub fn step(&self) -> u64 {
        self.state().step
    }

    pub fn writes(&self) -> Vec<String> {
        self.state().writes.clone()
    }

    /// Counts up to `most` tricks; true while there are some left.
    pub fn trick(&self, most: u32) -> bool {
        let mut state = self.state();
        state.tricks += 1;
        state.tricks <= most
    }

    /// An order arrives: true when the firmware says yes.
    pub fn order(&self, name: &str, change: impl FnOnce(&mut bool, &mut u64)) -> bool {
        let mut state = self.state();
        state.writes.push(name.to_owned());
        state.orders += 1;
        let first = state.orders == 1;
        match state.script {
            Script::Refuses => return false,
            Script::Lies => return true,
            Script::LosesFirstOrder if first => return true,
            Script::RebootsOnce if first => {
                state.dark = REBOOT_REQUESTS;
                return true;
            }
            _ => {}
        }
        let State { awake, step, .. } = &mut *state;
        change(awake, step);
        true
    }

    /// Delays, cuts or replaces a reply as the script wants.
    pub async fn deliver(&self, reply: &Value) -> Delivery {
        let bytes = reply.to_string().into_bytes();
        {
            let mut state = self.state();
            if state.dark > 0 {
                state.dark -= 1;
                return Delivery::Nothing;
            }
        }
        match self.script() {
            Script::Slow => {
                tokio::time::sleep(Duration::from_millis(120)).await;
                Delivery::Whole(bytes)
            }
            Script::CutsReplies(most) if self.trick(most) => {
                Delivery::Cut(bytes[..bytes.len() / 2].to_vec())
            }
            Script::SaysGarbage(most) if self.trick(most) => {
                Delivery::Whole(b"\xff\xfe<html>\0{]".to_vec())
            }
            Script::SaysTooMuch(most) if self.trick(most) => Delivery::Whole(vec![b'{'; 1 << 20]),
            _ => Delivery::Whole(bytes),
        }
    }

    /// Waits until the body is as wanted; fails the test when it never is.
    pub async fn until(&self, wanted: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + super::DEADLINE;
        while !wanted(self) {
            assert!(tokio::time::Instant::now() < deadline, "the body never came to it: {self:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A recorded answer.
pub fn recorded(path: &str) -> Value {
    let path = format!("{}/../tests/data/asic/{path}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read(path).unwrap();
    serde_json::from_slice(&text).unwrap()
}
