//! The event log, newest below, scrolled back by the desk.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph};

use super::{Desk, FarmView, severity_style};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, view: &FarmView, desk: &Desk) {
    let shown = usize::from(area.height.saturating_sub(2));
    let end = view.log.len().saturating_sub(desk.log_back());
    let start = end.saturating_sub(shown);
    let lines: Vec<Line<'_>> = view.log[start..end]
        .iter()
        .map(|line| {
            let rig = line.rig.as_ref().map_or("-", |rig| rig.as_str());
            Line::styled(
                format!("{}  {rig:<10} {}", line.at, line.text),
                severity_style(line.severity),
            )
        })
        .collect();
    let title = format!("log: {} of {} lines", lines.len(), view.log.len());
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), area);
}
