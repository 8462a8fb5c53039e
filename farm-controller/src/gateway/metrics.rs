//! The gateway's metrics page: Prometheus text 0.0.4, from memory only.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use super::rig::{Health, Rig};

/// What is known of these rigs.
pub(super) fn page(rigs: &[Arc<Rig>], head: &str) -> Response {
    let mut text = head.to_owned();
    let mut family = |name: &str, kind: &str, help: &str, value: fn(&Rig) -> u64| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for rig in rigs {
            // Ids of rigs are letters, digits and dashes.
            let _ = writeln!(text, "{name}{{rig=\"{}\"}} {}", rig.id, value(rig));
        }
    };
    family("roadbed_gateway_rig_up", "gauge", "1 while the rig answers the gateway", |rig| {
        u64::from(rig.health() == Health::Up)
    });
    family("roadbed_gateway_open_requests", "gauge", "Requests under way at the rig", |rig| {
        rig.open() as u64
    });
    family("roadbed_gateway_requests_total", "counter", "Requests passed to the rig", |rig| {
        rig.counters.requests.load(Ordering::Relaxed)
    });
    let help = "Requests that the rig did not answer";
    family("roadbed_gateway_unanswered_total", "counter", help, |rig| {
        rig.counters.unanswered.load(Ordering::Relaxed)
    });
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
