//! After each look at a rig: one that was away gets the orders it missed.
//!
//! A rig that died in a round proves again with its own group, where it left off. One that was away when a round was
//! stopped is told so; else it would go on with an old block and the Network Node, told GENERATING, would never start the
//! new one.

use std::sync::Arc;

use axum::body::Bytes;

use super::super::health::Finding;
use super::super::rig::Rig;
use super::ask::{Question, reason};
use super::node::LOOK_WAIT_MAX;
use super::proof::{INIT, ORDER_WAIT_MAX, STATUS, STOP, look_of};
use super::round::Due;
use super::{FanOut, Order};

impl FanOut {
    /// What is to be done for a rig after a look at it.
    pub(in super::super) async fn after_look(&self, rig: &Arc<Rig>, finding: Finding) {
        match finding {
            Finding::Ill => return,
            Finding::CameBack => self.catch_up(rig).await,
            Finding::Well => {}
        }
        if !self.backends.iter().any(|backend| Arc::ptr_eq(&backend.rig, rig)) {
            return;
        }
        self.keep_in_step(rig).await;
    }

    /// Loads or unloads as the others were told while it was away.
    async fn catch_up(&self, rig: &Arc<Rig>) {
        let last = self.last().clone();
        let (order, path, wrong) = match &last {
            None => return,
            Some(Order::Up(body)) => (Some(body.clone()), "/api/v1/inference/up/async", "STOPPED"),
            Some(Order::Stop) => (None, "/api/v1/stop", "INFERENCE"),
        };
        let state = Question::get("/api/v1/state", LOOK_WAIT_MAX).to(&self.wire, rig).await;
        // Meanwhile all rigs may have been told something else, this one among them.
        let is_last = *self.last() == last;
        if !is_last || !state.is_ok_and(|reply| reply.json()["state"] == wrong) {
            return;
        }
        match Question::post(path, order, ORDER_WAIT_MAX).to(&self.wire, rig).await {
            Ok(reply) if reply.status.is_success() => {
                tracing::info!(rig = %rig.id, path, "the rig came back and was told what it missed");
            }
            Ok(reply) => {
                let reason = reason(&reply);
                tracing::info!(rig = %rig.id, path, reason, "the rig came back and refuses what it missed");
            }
            Err(fault) => tracing::debug!(%fault, "the rig is away again"),
        }
    }

    async fn keep_in_step(&self, rig: &Arc<Rig>) {
        if !self.book().is_open() {
            return;
        }
        // An order of the Network Node's is being carried out: it knows better.
        let Ok(_order) = self.orders.try_lock() else { return };
        let Ok(reply) = Question::get(STATUS, LOOK_WAIT_MAX).to(&self.wire, rig).await else {
            return;
        };
        let (due, order) = self.book().due(&rig.id, &look_of(&reply));
        let (stops, begins) = match due {
            Due::Nothing => return,
            Due::Stop => (true, false),
            Due::Start => (false, true),
            Due::Change => (true, true),
        };
        if stops {
            let stop = Question::post(STOP, Some(Bytes::from_static(b"{}")), ORDER_WAIT_MAX);
            match stop.to(&self.wire, rig).await {
                Ok(_) => tracing::info!(rig = %rig.id, "the rig ended a round that nobody wants"),
                Err(fault) => return tracing::debug!(%fault, "the rig is away again"),
            }
        }
        if !begins {
            return;
        }
        let question = Question::post(INIT, order.map(Bytes::from), ORDER_WAIT_MAX);
        match question.to(&self.wire, rig).await {
            Ok(reply) if reply.status.is_success() => {
                tracing::info!(rig = %rig.id, "the rig proves its own group again");
            }
            Ok(reply) => {
                let reason = reason(&reply);
                tracing::warn!(rig = %rig.id, reason, "the rig does not take its part in the round");
            }
            Err(fault) => tracing::debug!(%fault, "the rig is away again"),
        }
    }
}
