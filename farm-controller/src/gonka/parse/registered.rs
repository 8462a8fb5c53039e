//! MLNodes as the admin API lists them.

use farm_core::gonka::{NodeStatus, RegisteredNode};
use roadbed_protocol::UnixMillis;
use serde_json::Value;

use super::super::fields::{Place, ShapeError};
use crate::config::Moment;

/// `GET /admin/v1/nodes`: a list of `{"node", "state"}`.
///
/// # Errors
/// [`ShapeError`] when it is no list.
pub fn registered(answer: &Value) -> Result<Vec<RegisteredNode>, ShapeError> {
    let top = Place::top(answer);
    let list = if answer.is_array() { top } else { top.field("nodes") };
    if !list.is_there() {
        return Err(list.error("a list of nodes"));
    }
    Ok(list.list().filter_map(|place| registered_node(&place)).collect())
}

fn registered_node(place: &Place<'_>) -> Option<RegisteredNode> {
    let (node, state) = (place.unwrapped("node"), place.field("state"));
    let status = |name: &str| node_status(state.field(name).text().unwrap_or_default());
    let text = |place: Place<'_>| place.text().map(str::to_owned);
    let admin = state.field("admin_state");
    // An enabled node is written as a word, as true, or as an object with a field, depending on the release.
    let enabled = admin.truth().or_else(|| admin.field("enabled").truth());
    let disabled = enabled == Some(false)
        || admin.text().is_some_and(|word| word.eq_ignore_ascii_case("disabled"));
    Some(RegisteredNode {
        id: node.field("id").text()?.to_owned(),
        node_num: node.either(&["node_num", "nodeNum"]).count(),
        models: node.field("models").keys(),
        intended: status("intended_status"),
        current: status("current_status"),
        poc_intended: text(state.field("poc_intended_status")),
        poc_current: text(state.field("poc_current_status")),
        failure: text(state.field("failure_reason")),
        status_at: state.field("status_timestamp").text().and_then(moment),
        enabled: !disabled,
        epoch_models: state.field("epoch_models").keys(),
    })
}

/// Go's RFC 3339 with up to nine digits of a second, which say nothing here.
fn moment(text: &str) -> Option<UnixMillis> {
    let whole = match text.split_once('.') {
        Some((whole, rest)) => {
            let offset = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
            format!("{whole}{offset}")
        }
        None => text.to_owned(),
    };
    // Go writes a time that was never set as the year 1.
    whole.parse::<Moment>().ok().map(|moment| moment.0)
}

fn node_status(word: &str) -> NodeStatus {
    match word {
        "" | "UNKNOWN" => NodeStatus::Unknown,
        "INFERENCE" => NodeStatus::Inference,
        "POC" => NodeStatus::Poc,
        "TRAINING" => NodeStatus::Training,
        "STOPPED" => NodeStatus::Stopped,
        "FAILED" => NodeStatus::Failed,
        _ => NodeStatus::Other,
    }
}
