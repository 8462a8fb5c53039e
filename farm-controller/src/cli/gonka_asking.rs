//! What several commands about Gonka begin with: is the rig listed, what does a controller know, what does the chain say now.

use anyhow::bail;
use farm_core::gonka::GonkaFacts;
use roadbed_protocol::RigId;

use crate::config::{GonkaSite, Site};
use crate::control::{Answer, socket};
use crate::gonka::feed::Feed;
use crate::store::read_kept;
use crate::view::FarmView;

/// An error that names those that are listed.
pub(super) fn check_listed(gonka: &GonkaSite, rig: &RigId) -> anyhow::Result<()> {
    if gonka.rigs.iter().any(|one| one.rig == *rig) {
        return Ok(());
    }
    let known: Vec<&str> = gonka.rigs.iter().map(|rig| rig.rig.as_str()).collect();
    bail!("rig \"{rig}\" is not in the gonka section; it has: {}", known.join(", "));
}

/// The running controller's view; without one an empty one, and a line that says what is not known then.
pub(super) async fn farm_view(site: &Site, unknown: &str) -> FarmView {
    match socket::connect(&site.socket_path()).await {
        Ok((views, _actions)) => views.borrow().clone(),
        Err(_) => {
            eprintln!("no controller runs: {unknown} not known");
            FarmView::default()
        }
    }
}

/// What controllers wrote down.
pub(super) fn written_down(site: &Site) -> Vec<Answer> {
    read_kept(&site.store_path()).map(|kept| kept.gonka).unwrap_or_default()
}

/// What the chain says now.
pub(super) async fn asked(site: &Site, gonka: &GonkaSite, kept: &[Answer]) -> GonkaFacts {
    let mut feed = Feed::new(gonka, site.clock, kept, None);
    feed.ask_all_once().await;
    feed.facts().clone()
}
