//! The operator's terminal: fleet, one rig, the plan with its reasons, the event log.
//!
//! Three parts that do not know each other's work: [`desk`] turns keys into a screen and into [`Action`]s (pure),
//! [`draw`] turns a [`FarmView`] and a desk into text (pure), and this file owns the terminal. What the console shows
//! is the controller's snapshot; when that stops coming, the header says how old it is.

pub mod desk;
pub mod draw;

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::view::{Action, FarmView};
use desk::{Desk, Key, Outcome};

/// How often the keyboard thread looks whether it shall end: a person does not notice a tenth of a second.
const KEY_POLL: Duration = Duration::from_millis(100);
/// Keys waiting while a frame is drawn: more than anybody types in that time.
const KEYS_WAITING_MAX: usize = 64;

/// Runs the console until the operator quits, the views end or `cancel` fires. Restores the terminal in every case.
///
/// # Errors
/// What the terminal says when it cannot be drawn on.
pub async fn run(
    mut views: watch::Receiver<FarmView>,
    actions: mpsc::Sender<Action>,
    operator: String,
    cancel: CancellationToken,
) -> io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let result = attend(&mut terminal, &mut views, &actions, operator, &cancel).await;
    ratatui::restore();
    result
}

async fn attend(
    terminal: &mut DefaultTerminal,
    views: &mut watch::Receiver<FarmView>,
    actions: &mpsc::Sender<Action>,
    operator: String,
    cancel: &CancellationToken,
) -> io::Result<()> {
    let (keys_in, mut keys) = mpsc::channel(KEYS_WAITING_MAX);
    let stop_keys = cancel.child_token();
    let _end_keys = stop_keys.clone().drop_guard();
    tokio::task::spawn_blocking(move || read_keys(&keys_in, &stop_keys));
    let mut desk = Desk::new(operator);
    loop {
        let view = views.borrow_and_update().clone();
        terminal.draw(|frame| draw::frame(frame, &view, &desk))?;
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            changed = views.changed() => if changed.is_err() {
                return Ok(());
            },
            key = keys.recv() => match key {
                None | Some(None) => return Ok(()),
                Some(Some(key)) => match desk.press(key, &view) {
                    Outcome::Stay => {}
                    Outcome::Quit => return Ok(()),
                    Outcome::Act(wanted) => {
                        for action in wanted {
                            if actions.try_send(action).is_err() {
                                desk.say("the controller does not take orders now; try again");
                            }
                        }
                    }
                },
            },
        }
    }
}

/// Reads the keyboard until told to stop. Sends `None` when the terminal is gone.
fn read_keys(keys: &mpsc::Sender<Option<Key>>, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        let key = match event::poll(KEY_POLL) {
            Ok(false) => continue,
            Ok(true) => match event::read() {
                Ok(Event::Key(pressed)) if pressed.kind == KeyEventKind::Press => key(pressed),
                Ok(Event::Resize(..)) => Some(Key::Redraw),
                Ok(_) => None,
                Err(_) => {
                    let _ = keys.blocking_send(None);
                    return;
                }
            },
            Err(_) => {
                let _ = keys.blocking_send(None);
                return;
            }
        };
        if let Some(key) = key
            && keys.blocking_send(Some(key)).is_err()
        {
            return;
        }
    }
}

/// The console's own name of a key; crossterm's enum is not ours, so strangers fall away.
fn key(pressed: KeyEvent) -> Option<Key> {
    if pressed.modifiers.contains(KeyModifiers::CONTROL) {
        return (pressed.code == KeyCode::Char('c')).then_some(Key::Quit);
    }
    match pressed.code {
        KeyCode::Up => Some(Key::Up),
        KeyCode::Down => Some(Key::Down),
        KeyCode::Left => Some(Key::Left),
        KeyCode::Right => Some(Key::Right),
        KeyCode::PageUp => Some(Key::PageUp),
        KeyCode::PageDown => Some(Key::PageDown),
        KeyCode::Tab => Some(Key::NextScreen),
        KeyCode::BackTab => Some(Key::PreviousScreen),
        KeyCode::Enter => Some(Key::Enter),
        KeyCode::Esc => Some(Key::Back),
        KeyCode::Char(letter) => Some(Key::Letter(letter)),
        _ => None,
    }
}
