//! `roadbed gonka status` as text: times on the site's clock, every figure with its age or the word assumption.

use std::fmt::Write as _;

use roadbed_protocol::{RigId, UnixMillis};

use super::table::Table;
use crate::config::{Site, local_hour_minute, span_words};
use crate::gonka::view::{AgeView, GonkaRigView, GonkaView, PromiseView, WindowView};

/// The whole status.
pub(super) fn status(view: &GonkaView, site: &Site) -> String {
    let mut text = head(view);
    let _ = writeln!(text, "\nnext windows, on the site's clock");
    if view.windows.is_empty() {
        let _ = writeln!(text, "  not known: no height, or no pace of blocks measured yet");
    }
    let mut table = Table::new(&["from", "until", "give or take", "from block", "what"]);
    for window in &view.windows {
        table.row(row(window, view.at, site));
    }
    if !view.windows.is_empty() {
        let _ = write!(text, "{table}");
    }
    for rig in &view.rigs {
        text.push_str(&mlnode(rig, view.at, site));
    }
    if !view.alerts.is_empty() {
        let _ = writeln!(text, "\nalerts");
        for alert in &view.alerts {
            let _ = writeln!(text, "  {alert}");
        }
    }
    let _ = writeln!(text, "\nages");
    let mut table = Table::new(&["what", "age", "problem"]);
    for age in &view.ages {
        table.row(vec![
            age.what.clone(),
            word(age, view.at),
            age.problem.clone().unwrap_or_default(),
        ]);
    }
    let _ = write!(text, "{table}");
    for origin in site.gonka.iter().flat_map(|gonka| &gonka.origins) {
        let _ = writeln!(text, "{origin}");
    }
    text
}

fn head(view: &GonkaView) -> String {
    let mut text = String::new();
    let answering = view.answering.as_deref().unwrap_or("nobody");
    let _ = writeln!(text, "host {}, Network Node {answering} {}", view.address, view.versions);
    if let Some(disagreement) = &view.disagreement {
        let _ = writeln!(text, "DISAGREEMENT: {disagreement}");
    }
    match (&view.phase, view.epoch, view.height) {
        (Some(phase), Some(epoch), Some((height, at))) => {
            let pace = view.block_time.map_or("pace not measured yet".to_owned(), |time| {
                format!("{}.{:02} s a block", time.0 / 1_000, time.0 % 1_000 / 10)
            });
            let age = view.at.since(at).0 / 1_000;
            let _ =
                writeln!(text, "epoch {epoch}, {phase}, height {height} seen {age} s ago, {pace}");
        }
        (None, _, _) | (_, None, _) | (_, _, None) => {
            let _ = writeln!(text, "where the chain stands is not known");
        }
    }
    if let Some(weight) = view.weight {
        let confirmed = weight
            .confirmed_permille
            .map_or("not known".to_owned(), |share| format!("{}.{} %", share / 10, share % 10));
        let _ = writeln!(text, "weight {} of {}, confirmed {confirmed}", weight.own, weight.total);
    }
    for (name, amount) in &view.funds {
        let _ = writeln!(text, "{name}: {amount}");
    }
    text
}

fn row(window: &WindowView, now: UnixMillis, site: &Site) -> Vec<String> {
    vec![
        moment(window.from, now, site),
        moment(window.until, now, site),
        span_words(window.error),
        window.block.to_string(),
        window.name.clone(),
    ]
}

/// The time of day, and how far off when that is more than half a day.
pub(super) fn moment(at: UnixMillis, now: UnixMillis, site: &Site) -> String {
    const HALF_A_DAY: u64 = 12 * 3_600_000;
    let clock = local_hour_minute(at, site.utc_offset_minutes);
    let (away, word) = if at >= now { (at.since(now), "in") } else { (now.since(at), "ago") };
    match (away.0 > HALF_A_DAY, word) {
        (false, _) => clock,
        (true, "in") => format!("{clock} (in {} h)", away.0 / 3_600_000),
        (true, _) => format!("{clock} ({} h ago)", away.0 / 3_600_000),
    }
}

fn mlnode(rig: &GonkaRigView, now: UnixMillis, site: &Site) -> String {
    let mut text = String::new();
    let verdict = if rig.eligible { "eligible" } else { "NOT ELIGIBLE" };
    let _ = writeln!(
        text,
        "\n{} (node {}, {}): {verdict}; registered: {}",
        rig.rig, rig.node_id, rig.model, rig.registered
    );
    for reason in &rig.reasons {
        let _ = writeln!(text, "  - {reason}");
    }
    if !rig.shares_node_with.is_empty() {
        let others: Vec<&str> = rig.shares_node_with.iter().map(RigId::as_str).collect();
        let _ = writeln!(
            text,
            "  one node with {}: the chain tells of the node alone, each rig's part goes by its measured rate",
            others.join(", ")
        );
    }
    for promise in &rig.promises {
        let _ = writeln!(text, "  promised: {}", promised(promise, now, site));
    }
    let income = &rig.income;
    match (income.by_epoch, income.by_hour) {
        (Some(epoch), Some(hour)) => {
            let ground = match income.oldest {
                Some(at) if !income.assumed => format!("oldest part {} old", age_words(now, at)),
                Some(_) | None => "assumption".to_owned(),
            };
            let _ = writeln!(
                text,
                "  expected: {epoch} {} an epoch, {hour} ({ground}); vests over epochs, today's price",
                site.currency
            );
        }
        (None, _) | (_, None) => {
            let _ = writeln!(text, "  expected: nothing is counted");
        }
    }
    if !income.missing.is_empty() {
        let _ = writeln!(text, "  missing for a sum: {}", income.missing.join(", "));
    }
    for (step, value) in &income.steps {
        let _ = writeln!(text, "    {step:<28} {value}");
    }
    for (part, source) in &income.parts {
        let _ = writeln!(text, "    from {part}: {source}");
    }
    text
}

fn promised(promise: &PromiseView, now: UnixMillis, site: &Site) -> String {
    let mark = if promise.assumed { " (assumption)" } else { "" };
    format!(
        "{} from {} to {}, loaded by {}; pays {}, breaking it costs {} {}{mark}",
        promise.id,
        moment(promise.from, now, site),
        moment(promise.until, now, site),
        moment(promise.ready_by, now, site),
        promise.income,
        promise.stake(),
        site.currency,
    )
}

fn word(age: &AgeView, now: UnixMillis) -> String {
    age.at.map_or("never".to_owned(), |at| age_words(now, at))
}

fn age_words(now: UnixMillis, at: UnixMillis) -> String {
    let age = now.since(at);
    if age.0 < 60_000 { format!("{} s", age.0 / 1_000) } else { span_words(age) }
}
