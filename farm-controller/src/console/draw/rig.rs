//! One rig: target, state, link and lease apart, its work, its books and its switches with the reason of each.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Stylize;
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Wrap};
use roadbed_protocol::PoolReport;

use super::fleet::power;
use super::{Desk, FarmView, ago, cause_word, or_dash};
use crate::view::RigView;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, view: &FarmView, desk: &Desk) {
    let Some(rig) = view.rigs.get(desk.selected()) else {
        frame.render_widget(Paragraph::new("no rig"), area);
        return;
    };
    let heights = match u16::try_from(2 * rig.pools.len()) {
        Ok(0) | Err(_) => [Constraint::Length(13), Constraint::Length(0), Constraint::Min(3)],
        // Two lines a pool; on a small screen they are worth more than the history.
        Ok(lines) => [Constraint::Length(12), Constraint::Max(lines + 2), Constraint::Min(0)],
    };
    let [facts, pools, switches] = Layout::vertical(heights).areas(area);
    let title = format!("{}   {}   {}", rig.id, rig.model, rig.engine);
    let text: Vec<Line<'_>> = lines(view, rig)
        .into_iter()
        .map(|(name, value)| Line::from(vec![format!("{name:<10}").dim(), value.into()]))
        .collect();
    frame.render_widget(
        Paragraph::new(text).wrap(Wrap { trim: false }).block(Block::bordered().title(title)),
        facts,
    );
    let list = Paragraph::new(pool_lines(&rig.pools));
    frame.render_widget(list.block(Block::bordered().title("pools")), pools);
    let shown = usize::from(switches.height.saturating_sub(2));
    let history: Vec<Line<'_>> = rig
        .switches
        .iter()
        .rev()
        .take(shown)
        .map(|switch| {
            Line::from(format!(
                "{}  {:>12} → {:<13} {}",
                switch.at,
                or_dash(switch.from.as_ref()),
                or_dash(switch.to.as_ref()),
                switch.reason,
            ))
        })
        .collect();
    let title = format!("{} switches, newest first", rig.totals.switches);
    frame.render_widget(Paragraph::new(history).block(Block::bordered().title(title)), switches);
}

fn pool_lines(pools: &[PoolReport]) -> Vec<Line<'_>> {
    let all: u64 = pools.iter().map(|pool| pool.hashes).sum();
    let two = |pool: &PoolReport| {
        let answers =
            pool.answer_after.map_or(String::new(), |after| format!(", answers in {} ms", after.0));
        let (standing, percent) = (pool.standing, pool.hash_percent(all));
        [
            Line::from(format!(
                "{standing:<11} {percent:>3} % of hashes  {}  {}",
                pool.url, pool.trouble
            )),
            Line::from(format!("  difficulty {}: {}{answers}", pool.difficulty(), pool.shares)),
        ]
    };
    pools.iter().flat_map(two).collect()
}

fn lines(view: &FarmView, rig: &RigView) -> Vec<(&'static str, String)> {
    let jobs = rig.jobs;
    let lease = rig.lease_until.map_or("none".to_owned(), |until| format!("until {until}"));
    let link = if rig.online { "up" } else { "down" };
    let assumed = if rig.assumed { " (assumption)" } else { "" };
    let margin = rig.margin.map_or("-".to_owned(), |margin| format!("{margin}{assumed}"));
    vec![
        (
            "target",
            format!(
                "{} by {}, generation {}: {}",
                or_dash(rig.target.as_ref()),
                cause_word(rig.cause),
                rig.generation,
                rig.reason
            ),
        ),
        (
            "state",
            format!("{} for {}: {}", or_dash(rig.state), ago(view.at, rig.since), rig.state_reason),
        ),
        ("runs", or_dash(rig.workload.as_ref())),
        (
            "link",
            format!("{link}, agent {}, report {} ago", rig.agent, ago(view.at, rig.reported_at)),
        ),
        ("lease", lease),
        (
            "power",
            format!(
                "{}   {}   {}   feeder {}",
                power(rig),
                or_dash(rig.hashrate),
                or_dash(rig.temperature),
                rig.feeder
            ),
        ),
        (
            "shares",
            format!(
                "{} submitted, {} accepted, {} rejected ({} stale)",
                jobs.shares_submitted,
                jobs.shares_accepted,
                jobs.shares_rejected,
                jobs.shares_stale
            ),
        ),
        (
            "ai",
            format!(
                "{} completions, {} tokens, {} artifacts computed, {} delivered",
                jobs.completions, jobs.tokens, jobs.artifacts_computed, jobs.artifacts_delivered
            ),
        ),
        ("margin", margin),
        (
            "books",
            format!(
                "{}, cost {}, revenue {}, margin {}",
                rig.totals.energy,
                rig.totals.cost,
                rig.totals.revenue,
                rig.totals.margin()
            ),
        ),
    ]
}
