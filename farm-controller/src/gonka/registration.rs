//! Our MLNodes as the Network Node's admin API takes them, and what differs from what it has.
//!
//! The document is the API's own node config. A token is read from its file when it is sent and is never shown.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::client::{Answer, ClientError, NodeClient, said};
use crate::config::{GonkaRig, Reach, read_token};

/// What a shown document has in a token's place.
const HIDDEN: &str = "(from its file)";

/// Why a node could not be registered, enabled or disabled.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// The token's file cannot be read.
    #[error("node {node_id}: token file {}: {reason}", path.display())]
    Token {
        /// The node.
        node_id: String,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The admin API gives no answer.
    #[error(
        "{0}; is the admin API reachable from here? It listens on localhost of the Network Node"
    )]
    Client(#[from] ClientError),
    /// It refuses.
    #[error("node {node_id}: refused with {status}: {said}{}", hint(*status))]
    Refused {
        /// The node.
        node_id: String,
        /// The status.
        status: u16,
        /// What it said.
        said: String,
    },
}

fn hint(status: u16) -> &'static str {
    match status {
        206 | 400 => {
            " (is the model's id exactly governance's, and is one of the two modes complete?)"
        }
        404 => " (the Network Node does not know it: register it first)",
        500..=599 => " (see the Network Node's own log)",
        _ => "",
    }
}

/// The document for `rig`. Without a token; [`with_token`] adds it.
#[must_use]
pub fn document(rig: &GonkaRig) -> Value {
    let mut fields = Map::new();
    let mut add = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    add("id", json!(rig.node_id));
    match &rig.reach {
        // Either mode, never both: the API refuses a node with a host and a base address.
        Reach::BaseUrl(url) => {
            add("base_url", json!(url));
        }
        Reach::Ports { host, inference_port, inference_segment, poc_port, poc_segment } => {
            add("host", json!(host));
            add("inference_segment", json!(inference_segment));
            add("inference_port", json!(inference_port));
            add("poc_segment", json!(poc_segment));
            add("poc_port", json!(poc_port));
        }
    }
    add("models", json!({ rig.model.clone(): { "args": rig.args } }));
    add("max_concurrent", json!(rig.max_concurrent));
    let cards = rig.hardware.iter().map(|(kind, count)| json!({ "type": kind, "count": count }));
    add("hardware", Value::from(cards.collect::<Vec<_>>()));
    Value::Object(fields)
}

/// The document with the token of the rig's file, if it names one.
///
/// # Errors
/// [`RegistrationError::Token`].
pub fn with_token(rig: &GonkaRig) -> Result<Value, RegistrationError> {
    let mut document = document(rig);
    if let Some(path) = &rig.auth_token_file {
        let token = read_token(path).map_err(|reason| RegistrationError::Token {
            node_id: rig.node_id.clone(),
            path: path.clone(),
            reason,
        })?;
        document["auth_token"] = json!(token);
    }
    Ok(document)
}

/// The document as it may be shown.
#[must_use]
pub fn shown(rig: &GonkaRig) -> Value {
    let mut document = document(rig);
    if rig.auth_token_file.is_some() {
        document["auth_token"] = json!(HIDDEN);
    }
    document
}

/// What a registration would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The Network Node does not have the node.
    New,
    /// It has it just so.
    Same,
    /// These fields differ.
    Changed(Vec<Change>),
}

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The field.
    pub field: String,
    /// What the Network Node has.
    pub has: String,
    /// What it would get.
    pub gets: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.field, self.has, self.gets)
    }
}

/// Compares `wanted` with the list that the admin API gives.
#[must_use]
pub fn difference(wanted: &Value, listed: &Value) -> Difference {
    let id = &wanted["id"];
    let nodes = listed.as_array().into_iter().flatten();
    let has = nodes.map(|entry| entry.get("node").unwrap_or(entry)).find(|node| node["id"] == *id);
    let Some(has) = has else { return Difference::New };
    let mut changes = Vec::new();
    for (field, gets) in wanted.as_object().into_iter().flatten() {
        let had = has.get(field).unwrap_or(&Value::Null);
        if field == "auth_token" {
            // It is not compared, because it is not shown: only whether there is one.
            if is_nothing(had) {
                changes.push(change(field, "none", "one"));
            }
        } else if had != gets && !(is_nothing(had) && is_nothing(gets)) {
            changes.push(change(field, &had.to_string(), &gets.to_string()));
        }
    }
    // A field of the other mode that is still set would make the node refuse.
    for field in ["base_url", "host", "auth_token"] {
        let had = has.get(field).unwrap_or(&Value::Null);
        if wanted.get(field).is_none() && !is_nothing(had) {
            let had = if field == "auth_token" { "one".to_owned() } else { had.to_string() };
            changes.push(change(field, &had, "none"));
        }
    }
    if changes.is_empty() { Difference::Same } else { Difference::Changed(changes) }
}

fn change(field: &str, has: &str, gets: &str) -> Change {
    Change { field: field.to_owned(), has: has.to_owned(), gets: gets.to_owned() }
}

/// What Go leaves out or writes as its zero.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// What the admin API lists.
///
/// # Errors
/// [`RegistrationError::Client`].
pub async fn list(admin: &NodeClient) -> Result<Value, RegistrationError> {
    Ok(admin.get("/admin/v1/nodes").await?)
}

/// Registers a node, or replaces its config.
///
/// # Errors
/// [`RegistrationError`].
pub async fn register(admin: &NodeClient, rig: &GonkaRig) -> Result<(), RegistrationError> {
    let document = with_token(rig)?;
    let answer = admin.post("/admin/v1/nodes", Some(&document)).await?;
    judge(&rig.node_id, &answer)
}

/// Registers several nodes with one call of the batch route; what came of each, in their order. A Network Node without that
/// route gets them one by one.
///
/// # Errors
/// [`RegistrationError`] when nothing could be sent, or nobody answered.
pub async fn register_all(
    admin: &NodeClient,
    rigs: &[&GonkaRig],
) -> Result<Vec<Result<(), RegistrationError>>, RegistrationError> {
    if let [rig] = rigs {
        return Ok(vec![register(admin, rig).await]);
    }
    let documents = rigs.iter().map(|rig| with_token(rig)).collect::<Result<Vec<_>, _>>()?;
    let answer = admin.post("/admin/v1/nodes/batch", Some(&Value::from(documents))).await?;
    if matches!(answer.status, 404 | 405 | 501) {
        let mut done = Vec::with_capacity(rigs.len());
        for rig in rigs {
            done.push(register(admin, rig).await);
        }
        return Ok(done);
    }
    Ok(rigs.iter().map(|rig| judge_one_of(&rig.node_id, &answer)).collect())
}

/// Enables or disables a node.
///
/// # Errors
/// [`RegistrationError`].
pub async fn switch(
    admin: &NodeClient,
    rig: &GonkaRig,
    enable: bool,
) -> Result<(), RegistrationError> {
    let verb = if enable { "enable" } else { "disable" };
    let path = format!("/admin/v1/nodes/{}/{verb}", rig.node_id);
    let answer = admin.post(&path, None).await?;
    judge(&rig.node_id, &answer)
}

fn judge(node_id: &str, answer: &Answer) -> Result<(), RegistrationError> {
    match answer.status {
        200..=299 => Ok(()),
        status => Err(refused(node_id, status, said(&answer.body))),
    }
}

/// 206 is half a success: who is among its `nodes` was taken. Errors are lines of text, and name their node if any does.
fn judge_one_of(node_id: &str, answer: &Answer) -> Result<(), RegistrationError> {
    let nodes = answer.body.get("nodes").and_then(Value::as_array).into_iter().flatten();
    let is_taken = |entry: &Value| entry.get("node").unwrap_or(entry)["id"] == node_id;
    match answer.status {
        206 if nodes.into_iter().any(is_taken) => Ok(()),
        200..=205 | 207..=299 => Ok(()),
        status => {
            let all = answer.body.get("errors").and_then(Value::as_array).into_iter().flatten();
            let lines: Vec<&str> = all.filter_map(Value::as_str).collect();
            let own: Vec<&str> =
                lines.iter().copied().filter(|line| line.contains(node_id)).collect();
            let text = match (own.is_empty(), lines.is_empty()) {
                (false, _) => own.join("; "),
                (true, false) => lines.join("; "),
                (true, true) => said(&answer.body),
            };
            Err(refused(node_id, status, text))
        }
    }
}

fn refused(node_id: &str, status: u16, said: String) -> RegistrationError {
    RegistrationError::Refused { node_id: node_id.to_owned(), status, said }
}
