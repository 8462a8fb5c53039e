//! Every rig, a line each: what it does, what it was told, why, and what it draws.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Stylize;
use ratatui::widgets::{Cell, Row, Table, TableState};
use roadbed_protocol::PowerSource;

use super::{Desk, FarmView, ago, cause_word, or_dash, state_style};
use crate::view::RigView;

const WIDTHS: [Constraint; 9] = [
    Constraint::Length(1),
    Constraint::Min(8),
    Constraint::Length(9),
    Constraint::Length(13),
    Constraint::Length(13),
    Constraint::Length(10),
    Constraint::Length(11),
    Constraint::Length(12),
    Constraint::Fill(4),
];

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, view: &FarmView, desk: &Desk) {
    let titles = ["", "rig", "state", "runs", "told", "power", "hashrate", "cause", "why"];
    let rows = view.rigs.iter().map(|rig| row(view, rig, desk));
    let table = Table::new(rows, WIDTHS)
        .header(Row::new(titles).bold())
        .row_highlight_style(ratatui::style::Style::new().reversed());
    let mut state = TableState::new().with_selected(Some(desk.selected()));
    frame.render_stateful_widget(table, area, &mut state);
}

fn row(view: &FarmView, rig: &RigView, desk: &Desk) -> Row<'static> {
    let state = rig.state.map_or("unknown", roadbed_protocol::RigState::word);
    let why = if rig.online {
        rig.reason.clone()
    } else {
        format!("agent {} offline, last report {} ago", rig.agent, ago(view.at, rig.reported_at))
    };
    Row::new([
        Cell::from(if desk.is_marked(&rig.id) { "●" } else { "" }),
        Cell::from(rig.id.to_string()),
        Cell::from(state).style(state_style(rig.state)),
        Cell::from(or_dash(rig.workload.as_ref())),
        Cell::from(or_dash(rig.target.as_ref())),
        Cell::from(power(rig)),
        Cell::from(or_dash(rig.hashrate)),
        Cell::from(cause_word(rig.cause)),
        Cell::from(why),
    ])
}

/// Power with a letter for its source: m(eter), p(du), f(irmware), and ~ for the profile's planning value.
pub(super) fn power(rig: &RigView) -> String {
    let Some(reading) = rig.power else {
        return "-".to_owned();
    };
    let source = match reading.source {
        PowerSource::Meter => 'm',
        PowerSource::Pdu => 'p',
        PowerSource::Firmware => 'f',
        PowerSource::Profile => '~',
    };
    format!("{} {source}", reading.watts)
}
