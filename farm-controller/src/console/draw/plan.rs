//! The committed plan: slots across, rigs down, and below it the reason of the chosen rig's choice in every shown slot.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table, TableState};
use roadbed_protocol::{MicrosPerMwh, Workload, WorkloadKind};

use super::{Desk, FarmView, cause_word};
use crate::view::{ChoiceView, PlanView};

/// Columns a slot takes: `mine` and a space.
const SLOT_COLUMNS: u16 = 7;
/// Columns of a rig's name.
const NAME_COLUMNS: u16 = 10;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, view: &FarmView, desk: &Desk) {
    let plan = &view.plan;
    let rows_needed = u16::try_from(plan.rows.len()).unwrap_or(u16::MAX).saturating_add(5);
    let [grid, why] = Layout::vertical([
        Constraint::Length(rows_needed.min(area.height / 2 + 3)),
        Constraint::Min(4),
    ])
    .areas(area);
    let shown = usize::from(area.width.saturating_sub(NAME_COLUMNS + 2) / SLOT_COLUMNS);
    let slots = window(plan, desk.first_slot(), shown);
    draw_grid(frame, grid, plan, desk, slots.clone());
    draw_reasons(frame, why, view, desk, slots);
}

/// The slots that fit, never past the horizon.
fn window(plan: &PlanView, first: usize, shown: usize) -> std::ops::Range<usize> {
    let first = first.min(plan.slots.len());
    first..(first + shown).min(plan.slots.len())
}

fn draw_grid(
    frame: &mut Frame<'_>,
    area: Rect,
    plan: &PlanView,
    desk: &Desk,
    slots: std::ops::Range<usize>,
) {
    let shown = &plan.slots[slots.clone()];
    let times = shown.iter().map(|slot| Cell::from(slot.start.to_string()));
    let prices = shown.iter().map(|slot| Cell::from(price(slot.price)).dim());
    let powers = shown.iter().map(|slot| Cell::from(format!("{}kW", slot.power.0 / 1_000)).dim());
    let head = Row::new(std::iter::once(Cell::from("")).chain(times)).bold();
    let mut rows = vec![
        Row::new(std::iter::once(Cell::from("/MWh").dim()).chain(prices)),
        Row::new(std::iter::once(Cell::from("power").dim()).chain(powers)),
    ];
    for row in &plan.rows {
        let choices = row.choices.get(slots.clone()).unwrap_or(&[]);
        let cells = choices.iter().map(choice_cell);
        rows.push(Row::new(std::iter::once(Cell::from(row.rig.to_string())).chain(cells)));
    }
    let widths = std::iter::once(Constraint::Length(NAME_COLUMNS))
        .chain(std::iter::repeat_n(Constraint::Length(SLOT_COLUMNS - 1), shown.len()));
    let title = format!("plan {} of {}", plan.id, plan.made_at);
    let table = Table::new(rows, widths)
        .header(head)
        .row_highlight_style(Style::new().reversed())
        .block(Block::bordered().title(title));
    // The first two rows are price and power.
    let mut state = TableState::new().with_selected(Some(desk.selected() + 2));
    frame.render_stateful_widget(table, area, &mut state);
}

fn price(price: Option<MicrosPerMwh>) -> String {
    price.map_or("?".to_owned(), |price| {
        let cents = price.0 / 10_000;
        format!(
            "{}{}.{}",
            if cents < 0 { "-" } else { "" },
            cents.abs() / 100,
            cents.abs() % 100 / 10
        )
    })
}

fn choice_cell(choice: &ChoiceView) -> Cell<'static> {
    let word = match &choice.workload {
        Workload::Mine { power_target: Some(_) } => "mine-",
        Workload::Curtailed => "sleep",
        Workload::Idle
        | Workload::Mine { power_target: None }
        | Workload::Serve { .. }
        | Workload::Prove { .. } => choice.workload.kind().word(),
    };
    let colour = match choice.workload.kind() {
        WorkloadKind::Idle => Color::DarkGray,
        WorkloadKind::Curtailed => Color::Blue,
        WorkloadKind::Mine => Color::Green,
        WorkloadKind::Serve => Color::Cyan,
        WorkloadKind::Prove => Color::Magenta,
    };
    Cell::from(word).style(Style::new().fg(colour))
}

fn draw_reasons(
    frame: &mut Frame<'_>,
    area: Rect,
    view: &FarmView,
    desk: &Desk,
    slots: std::ops::Range<usize>,
) {
    let plan = &view.plan;
    let mut lines: Vec<Line<'_>> = Vec::new();
    let row = view
        .rigs
        .get(desk.selected())
        .and_then(|rig| plan.rows.iter().find(|row| row.rig == rig.id));
    if let Some(row) = row {
        for index in slots {
            let (Some(slot), Some(choice)) = (plan.slots.get(index), row.choices.get(index)) else {
                continue;
            };
            let mark = if choice.assumed { "*" } else { " " };
            lines.push(Line::from(format!(
                "{} {:<12} {:>9} {:>11}{mark} {:<12} {}",
                slot.start,
                choice.workload.to_string(),
                choice.power.to_string(),
                choice.margin.to_string(),
                cause_word(Some(choice.cause)),
                choice.reason,
            )));
        }
    }
    lines.extend(plan.sheds.iter().map(|shed| Line::from(format!("guard: {shed}")).red()));
    lines.extend(plan.notes.iter().map(|note| Line::from(format!("note: {note}")).yellow()));
    let title = row.map_or("why".to_owned(), |row| format!("why: {}", row.rig));
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), area);
}
