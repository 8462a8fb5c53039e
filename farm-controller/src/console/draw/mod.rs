//! A view and a desk as text. Pure: the tests draw on a buffer and compare it with a golden screen.

mod fleet;
mod log;
mod plan;
mod rig;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Tabs};
use roadbed_protocol::{Cause, RigState, UnixMillis};

use super::desk::{Desk, Screen};
use crate::gonka::view::GonkaView;
use crate::view::{FarmView, Severity};

const KEYS: &str = "\
↑ ↓ k j       choose a rig, or scroll the log
tab 1 2 3 4   fleet, rig, plan, log
enter         the chosen rig
← →           earlier, later slots of the plan
space, a      mark a rig, mark all or none
h             hold the marked rigs at the power floor
r             release them to the plan
t             open the safety latch, if the readings allow
?             this list
q             leave; the farm goes on";

/// Draws one frame.
pub fn frame(frame: &mut Frame<'_>, view: &FarmView, desk: &Desk) {
    let [top, tabs, body, bottom] = Layout::vertical([
        Constraint::Length(2 + u16::from(view.gonka.is_some())),
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(header(view), top);
    let titles = Screen::ALL.map(Screen::title);
    frame.render_widget(Tabs::new(titles).select(desk.screen().index()), tabs);
    match desk.screen() {
        Screen::Fleet => fleet::draw(frame, body, view, desk),
        Screen::Rig => rig::draw(frame, body, view, desk),
        Screen::Plan => plan::draw(frame, body, view, desk),
        Screen::Log => log::draw(frame, body, view, desk),
    }
    let prompt = desk.prompt();
    let prompt = if prompt.is_empty() { "? keys   q leave".to_owned() } else { prompt };
    frame.render_widget(Paragraph::new(prompt).dim(), bottom);
    if desk.shows_help() {
        help(frame, body);
    }
}

/// Farm, time, price, load and money in two lines.
fn header(view: &FarmView) -> Paragraph<'static> {
    let price = view.price.map_or("no price".to_owned(), |price| price.to_string());
    let age = view.price_age.map_or(String::new(), |age| format!(" ({} min old)", age.0 / 60_000));
    let load = view
        .feeders
        .first()
        .map_or(String::new(), |site| format!("   {} of {}", site.power, site.limit));
    let first = Line::from(vec![
        Span::from(format!(" {} ", view.farm)).reversed(),
        Span::from(format!("  {} UTC   {price}{age}{load}", view.at)),
    ]);
    let totals = view.totals;
    let mark = if totals.assumed_revenue.0 == 0 { "" } else { " *" };
    let second = Line::from(format!(
        "  {}   cost {}   revenue {}{mark}   margin {}{mark} {}{}",
        totals.energy,
        totals.cost,
        totals.revenue,
        totals.margin(),
        view.currency,
        if mark.is_empty() { "" } else { "   * rests on assumptions" },
    ));
    let third = view.gonka.as_deref().map(|gonka| Line::from(gonka_line(gonka)));
    Paragraph::new([first, second].into_iter().chain(third).collect::<Vec<_>>())
}

/// Where the chain stands, how many of our MLNodes can earn, and what comes next.
fn gonka_line(gonka: &GonkaView) -> String {
    let (Some(epoch), Some(phase), Some((height, at))) = (gonka.epoch, &gonka.phase, gonka.height)
    else {
        return "  gonka: where the chain stands is not known".to_owned();
    };
    let eligible = gonka.rigs.iter().filter(|rig| rig.eligible).count();
    let next = gonka.windows.iter().find(|window| window.from > gonka.at);
    let next = next
        .map_or(String::new(), |window| format!("   next: {} at {} UTC", window.name, window.from));
    let alerts = match gonka.alerts.len() {
        0 => String::new(),
        1 => "   1 alert".to_owned(),
        count => format!("   {count} alerts"),
    };
    // What somebody must act on stands before what a narrow terminal cuts off.
    format!(
        "  gonka epoch {epoch} {phase}, block {height} {} ago{alerts}   {eligible} of {} MLNodes eligible{next}",
        ago(gonka.at, Some(at)),
        gonka.rigs.len(),
    )
}

fn help(frame: &mut Frame<'_>, body: Rect) {
    let [line] = Layout::vertical([Constraint::Length(13)]).areas(body);
    let [window] = Layout::horizontal([Constraint::Length(64)]).areas(line);
    frame.render_widget(Clear, window);
    frame.render_widget(Paragraph::new(KEYS).block(Block::bordered().title("keys")), window);
}

/// Colour of a state: green works, yellow moves, red needs somebody.
fn state_style(state: Option<RigState>) -> Style {
    let colour = match state {
        Some(RigState::Running) => Color::Green,
        Some(RigState::Starting | RigState::Draining | RigState::Stopping | RigState::Booting) => {
            Color::Yellow
        }
        Some(RigState::Idle) => Color::Gray,
        Some(RigState::Curtailed) => Color::Blue,
        Some(RigState::Faulted | RigState::Tripped) | None => Color::Red,
    };
    Style::new().fg(colour)
}

fn severity_style(severity: Severity) -> Style {
    match severity {
        Severity::Info => Style::new(),
        Severity::Warning => Style::new().fg(Color::Yellow),
        Severity::Alert => Style::new().fg(Color::Red),
    }
}

fn cause_word(cause: Option<Cause>) -> &'static str {
    cause.map_or("-", Cause::word)
}

/// How long ago, in the largest unit that says something.
fn ago(now: UnixMillis, then: Option<UnixMillis>) -> String {
    let Some(then) = then else {
        return "never".to_owned();
    };
    let seconds = now.since(then).0 / 1_000;
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5_999 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}
