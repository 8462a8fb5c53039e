//! What the operator is looking at and about to do: keys in, screen state and actions out. Pure.
//!
//! Nothing that changes the farm happens on one key: `h`, `r` and `t` ask first, naming the rigs they mean.

use std::collections::BTreeSet;

use roadbed_protocol::{RigId, Workload};

use crate::gonka::view::risk;
use crate::view::{Action, FarmView};

/// Lines a page key moves.
const PAGE: usize = 10;

/// A key, by meaning where it has one everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Previous line.
    Up,
    /// Next line.
    Down,
    /// Earlier slots.
    Left,
    /// Later slots.
    Right,
    /// Ten lines up.
    PageUp,
    /// Ten lines down.
    PageDown,
    /// Next screen.
    NextScreen,
    /// Previous screen.
    PreviousScreen,
    /// Open, or confirm.
    Enter,
    /// Close, or cancel.
    Back,
    /// Leave at once.
    Quit,
    /// The terminal changed size.
    Redraw,
    /// Any letter.
    Letter(char),
}

/// The four screens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    /// Every rig, a line each.
    Fleet,
    /// One rig.
    Rig,
    /// The plan with its reasons.
    Plan,
    /// The event log.
    Log,
}

impl Screen {
    /// In the order of the tabs.
    pub const ALL: [Self; 4] = [Self::Fleet, Self::Rig, Self::Plan, Self::Log];

    /// Title of its tab.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Fleet => "1 fleet",
            Self::Rig => "2 rig",
            Self::Plan => "3 plan",
            Self::Log => "4 log",
        }
    }

    fn at(index: usize) -> Self {
        Self::ALL[index % Self::ALL.len()]
    }

    /// Its place among the tabs.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Fleet => 0,
            Self::Rig => 1,
            Self::Plan => 2,
            Self::Log => 3,
        }
    }
}

/// What a key led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Only the screen may have changed.
    Stay,
    /// The console ends.
    Quit,
    /// The operator confirmed these.
    Act(Vec<Action>),
}

/// What a confirmation would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Hold,
    Release,
    ResetTrip,
}

/// A question the operator must answer before anything happens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    verb: Verb,
    rigs: Vec<RigId>,
    /// What it would break.
    risks: Vec<String>,
}

/// Screen, selection, marks and an open question.
#[derive(Debug, Clone)]
pub struct Desk {
    operator: String,
    screen: Screen,
    selected: usize,
    marked: BTreeSet<RigId>,
    first_slot: usize,
    log_back: usize,
    question: Option<Question>,
    message: String,
    help: bool,
}

impl Desk {
    /// A desk with the fleet on it.
    #[must_use]
    pub fn new(operator: String) -> Self {
        Self {
            operator,
            screen: Screen::Fleet,
            selected: 0,
            marked: BTreeSet::new(),
            first_slot: 0,
            log_back: 0,
            question: None,
            message: String::new(),
            help: false,
        }
    }

    /// The open screen.
    #[must_use]
    pub fn screen(&self) -> Screen {
        self.screen
    }

    /// Index of the selected rig.
    #[must_use]
    pub fn selected(&self) -> usize {
        self.selected
    }

    /// First slot shown in the plan.
    #[must_use]
    pub fn first_slot(&self) -> usize {
        self.first_slot
    }

    /// Lines the log is scrolled back.
    #[must_use]
    pub fn log_back(&self) -> usize {
        self.log_back
    }

    /// True for a marked rig.
    #[must_use]
    pub fn is_marked(&self, rig: &RigId) -> bool {
        self.marked.contains(rig)
    }

    /// True while the list of keys is shown.
    #[must_use]
    pub fn shows_help(&self) -> bool {
        self.help
    }

    /// The question, or else the last message, for the bottom line.
    #[must_use]
    pub fn prompt(&self) -> String {
        let Some(question) = &self.question else {
            return self.message.clone();
        };
        let names: Vec<&str> = question.rigs.iter().map(RigId::as_str).collect();
        let verb = match question.verb {
            Verb::Hold => "hold at the power floor",
            Verb::Release => "release to the plan",
            Verb::ResetTrip => "open the safety latch of",
        };
        let risks: String = question.risks.iter().map(|risk| format!("  {risk}!")).collect();
        format!("{verb}: {}?{risks}  enter = yes, esc = no", names.join(", "))
    }

    /// Shows a message in the bottom line.
    pub fn say(&mut self, message: &str) {
        message.clone_into(&mut self.message);
    }

    /// Takes a key.
    pub fn press(&mut self, key: Key, view: &FarmView) -> Outcome {
        if key == Key::Quit {
            return Outcome::Quit;
        }
        if key != Key::Redraw {
            self.message.clear();
        }
        if let Some(question) = self.question.take() {
            return self.answer(question, key);
        }
        match key {
            Key::Up => self.scroll(view, false, 1),
            Key::Down => self.scroll(view, true, 1),
            Key::PageUp => self.scroll(view, false, PAGE),
            Key::PageDown => self.scroll(view, true, PAGE),
            Key::Left => self.first_slot = self.first_slot.saturating_sub(1),
            Key::Right => {
                let last = view.plan.slots.len().saturating_sub(1);
                self.first_slot = (self.first_slot + 1).min(last);
            }
            Key::NextScreen => self.screen = Screen::at(self.screen.index() + 1),
            Key::PreviousScreen => {
                self.screen = Screen::at(self.screen.index() + Screen::ALL.len() - 1);
            }
            Key::Enter => self.screen = Screen::Rig,
            Key::Back => {
                self.help = false;
                self.screen = Screen::Fleet;
            }
            Key::Letter(letter) => return self.letter(letter, view),
            Key::Quit | Key::Redraw => {}
        }
        Outcome::Stay
    }

    fn letter(&mut self, letter: char, view: &FarmView) -> Outcome {
        match letter {
            'q' => return Outcome::Quit,
            '?' => self.help = !self.help,
            '1' => self.screen = Screen::Fleet,
            '2' => self.screen = Screen::Rig,
            '3' | 'p' => self.screen = Screen::Plan,
            '4' | 'l' => self.screen = Screen::Log,
            'k' => self.scroll(view, false, 1),
            'j' => self.scroll(view, true, 1),
            ' ' => self.mark(view),
            'a' => self.mark_all(view),
            'h' => self.ask(Verb::Hold, view),
            'r' => self.ask(Verb::Release, view),
            't' => self.ask(Verb::ResetTrip, view),
            other => self.message = format!("no such key: {other:?}; ? lists them"),
        }
        Outcome::Stay
    }

    fn scroll(&mut self, view: &FarmView, down: bool, by: usize) {
        let (place, last) = match self.screen {
            Screen::Log => (&mut self.log_back, view.log.len().saturating_sub(1)),
            Screen::Fleet | Screen::Rig | Screen::Plan => {
                (&mut self.selected, view.rigs.len().saturating_sub(1))
            }
        };
        // The log is anchored at its newest line, below, so there the directions are exchanged.
        let forward = down != (self.screen == Screen::Log);
        *place = if forward { (*place + by).min(last) } else { place.saturating_sub(by) };
    }

    fn mark(&mut self, view: &FarmView) {
        if let Some(rig) = view.rigs.get(self.selected)
            && !self.marked.remove(&rig.id)
        {
            self.marked.insert(rig.id.clone());
        }
        self.scroll(view, true, 1);
    }

    fn mark_all(&mut self, view: &FarmView) {
        let all: BTreeSet<RigId> = view.rigs.iter().map(|rig| rig.id.clone()).collect();
        self.marked = if self.marked == all { BTreeSet::new() } else { all };
    }

    /// The marked rigs, or the selected one when none is marked.
    fn meant(&self, view: &FarmView) -> Vec<RigId> {
        let marked: Vec<RigId> = view
            .rigs
            .iter()
            .map(|rig| rig.id.clone())
            .filter(|rig| self.marked.contains(rig))
            .collect();
        if marked.is_empty() {
            view.rigs.get(self.selected).map(|rig| rig.id.clone()).into_iter().collect()
        } else {
            marked
        }
    }

    fn ask(&mut self, verb: Verb, view: &FarmView) {
        let rigs = self.meant(view);
        if rigs.is_empty() {
            self.say("no rig to act on");
        } else {
            let risks = if verb == Verb::Hold { risks(&rigs, view) } else { Vec::new() };
            self.question = Some(Question { verb, rigs, risks });
        }
    }

    fn answer(&mut self, question: Question, key: Key) -> Outcome {
        match key {
            Key::Enter | Key::Letter('y') => {}
            Key::Redraw => {
                self.question = Some(question);
                return Outcome::Stay;
            }
            Key::Up
            | Key::Down
            | Key::Left
            | Key::Right
            | Key::PageUp
            | Key::PageDown
            | Key::NextScreen
            | Key::PreviousScreen
            | Key::Back
            | Key::Quit
            | Key::Letter(_) => {
                self.say("nothing was done");
                return Outcome::Stay;
            }
        }
        self.marked.clear();
        self.message = format!("asked for {} rig(s)", question.rigs.len());
        let action = |rig: RigId| match question.verb {
            Verb::Hold => {
                // The question said what it breaks.
                let operator = self.operator.clone();
                Action::Hold { rig, workload: Workload::Curtailed, operator, accept_loss: true }
            }
            Verb::Release => Action::Release { rig },
            Verb::ResetTrip => Action::ResetTrip { rig, operator: self.operator.clone() },
        };
        Outcome::Act(question.rigs.into_iter().map(action).collect())
    }
}

/// What holding these rigs would break.
fn risks(rigs: &[RigId], view: &FarmView) -> Vec<String> {
    let meant = view.rigs.iter().filter(|rig| rigs.contains(&rig.id));
    meant.filter_map(|rig| Some(format!("{} {}", rig.id, risk(&rig.promises, view.at)?))).collect()
}
