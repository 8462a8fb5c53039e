//! The machine of the farm.

mod event;
mod settings;

use roadbed_protocol::{Assignment, FeederId, RigId, StateReport, UnixMillis, Watts};

use crate::plan::Plan;

pub use event::{Alert, FarmEffect, FarmEvent, FarmMemory};
pub use settings::{FarmSettings, FarmTiming, RigMember};

/// The machine of the farm: events in, effects out.
#[derive(Debug, Clone)]
pub struct Farm {
    settings: FarmSettings,
    plan: Option<Plan>,
    views: Vec<RigView>,
}

/// What the farm knows of one rig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RigView {
    /// What it is.
    pub member: RigMember,
    /// Whether its agent is connected.
    pub online: bool,
    /// The latest report and when it came.
    pub report: Option<(UnixMillis, StateReport)>,
    /// The newest assignment issued.
    pub assigned: Option<Assignment>,
    /// When the target last changed.
    pub assigned_at: UnixMillis,
    /// Why the plan's choice has not been issued yet, if so.
    pub waiting: Option<String>,
    /// Power the farm counts it with at this moment.
    pub counted: Watts,
}

/// A feeder and what hangs on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeederLoad {
    /// The feeder.
    pub feeder: FeederId,
    /// Power counted: reports, targets not yet confirmed, nameplates of silent rigs.
    pub counted: Watts,
    /// Power reported by the rigs that report.
    pub reported: Watts,
    /// Continuous limit.
    pub limit: Watts,
    /// Limit at this moment, with orders and windows.
    pub limit_now: Watts,
}

impl Farm {
    /// A farm that has heard nothing yet.
    #[must_use]
    pub fn new(settings: FarmSettings, now: UnixMillis) -> Self {
        let _ = now;
        Self { settings, plan: None, views: Vec::new() }
    }

    /// Takes one event and says what to do. Never fails.
    pub fn handle(&mut self, now: UnixMillis, event: FarmEvent) -> Vec<FarmEffect> {
        let _ = (now, event);
        Vec::new()
    }

    /// When [`FarmEvent::Tick`] is next needed; other events may come at any time.
    #[must_use]
    pub fn wake_at(&self) -> Option<UnixMillis> {
        None
    }

    /// The site and its rules.
    #[must_use]
    pub fn settings(&self) -> &FarmSettings {
        &self.settings
    }

    /// The plan in force.
    #[must_use]
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// What is known of every rig, in the order of the settings.
    pub fn rigs(&self) -> impl Iterator<Item = &RigView> {
        self.views.iter()
    }

    /// What is known of one rig.
    #[must_use]
    pub fn rig(&self, id: &RigId) -> Option<&RigView> {
        self.views.iter().find(|view| view.member.spec.id == *id)
    }

    /// Every feeder with its load at `now`.
    #[must_use]
    pub fn feeder_loads(&self, now: UnixMillis) -> Vec<FeederLoad> {
        let _ = now;
        Vec::new()
    }
}
