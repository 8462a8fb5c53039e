//! A site: farm, circuits, agents, rigs, tariff, income and promises, all of it checked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use farm_core::farm::{FarmSettings, RigMember};
use farm_core::plan::{Commitment, Feeder, IncomeSource, RigSpec};
use roadbed_protocol::{
    AgentId, FarmId, FeederId, MicrosPerHour, MicrosPerMwh, Millis, Money, RigId, RigProfile,
};

use super::coins::CoinFeed;
use super::error::ConfigError;
use super::gateway::{AiFace, GatewaySettings};
use super::gonka::GonkaSite;
use super::hashprice::Hashprice;
use super::moment::DayTime;
use super::policy::Policy;
use super::site_check;
use super::source::Source;
use crate::clock::FarmClock;

/// A site that can be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// The farm's id on the wire.
    pub farm: FarmId,
    /// Its name for people.
    pub name: String,
    /// Currency of every money figure.
    pub currency: String,
    /// How far the site's clock is ahead of UTC.
    pub utc_offset_minutes: i16,
    /// Where the broker listens.
    pub broker_listen: SocketAddr,
    /// Database and broker store.
    pub state_dir: PathBuf,
    /// The controller's ed25519 secret as 64 hex digits.
    pub key_file: PathBuf,
    /// The clock everything decides by.
    pub clock: FarmClock,
    /// The operator's intent.
    pub policy: Policy,
    /// Every circuit with its continuous limit.
    pub feeders: Vec<Feeder>,
    /// Who may log in, with its public key.
    pub agents: Vec<AgentEntry>,
    /// Every rig.
    pub rigs: Vec<SiteRig>,
    /// What energy costs.
    pub tariff: Tariff,
    /// What work earns.
    pub income: Income,
    /// What was promised.
    pub commitments: Vec<Commitment>,
    /// The HTTP gateway, if the site has one.
    pub gateway: Option<GatewaySettings>,
    /// Its place on Gonka, if it has one.
    pub gonka: Option<GonkaSite>,
}

/// An agent that may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentEntry {
    /// Its id: user name and client id at the broker.
    pub id: AgentId,
    /// Its ed25519 public key.
    pub public_key: [u8; 32],
}

/// A rig of the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteRig {
    /// Its id.
    pub id: RigId,
    /// What its model draws and does.
    pub profile: RigProfile,
    /// The file that says so.
    pub profile_path: PathBuf,
    /// The circuit it hangs on.
    pub feeder: FeederId,
    /// The agent that hosts it.
    pub agent: AgentId,
    /// The model it serves and proves, as the network names it; GPU rigs only.
    pub model: Option<String>,
    /// Where its MLNode and OpenAI faces are, for the gateway; GPU rigs only.
    pub ai: Option<AiFace>,
    /// Cost of a start.
    pub switch_cost: Money,
    /// Cost of a hand-over.
    pub hand_over_cost: Money,
}

/// What energy costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tariff {
    /// The base price.
    pub energy: EnergyPrice,
    /// Added to every price: fees, losses, transmission.
    pub adder: MicrosPerMwh,
}

/// Where the base price comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnergyPrice {
    /// A CSV file with a time and a price column.
    Feed {
        /// The file.
        csv: PathBuf,
        /// Column of the moment from which a price holds.
        time_column: String,
        /// Column of the price per MWh.
        price_column: String,
        /// How long a price holds.
        step: Millis,
    },
    /// One price always.
    Fixed(MicrosPerMwh),
    /// A price from each time of the site's day on, sorted.
    TimeOfUse(Vec<(DayTime, MicrosPerMwh)>),
}

/// What work earns, each figure with its origin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Income {
    /// Mining, by hashrate.
    pub hashprice: Option<Hashprice>,
    /// Mining on a GPU rig, by what coins pay.
    pub coins: Option<CoinFeed>,
    /// Mining on a GPU rig, whatever it hashes; never beside `coins`.
    pub gpu_mine: Option<(MicrosPerHour, IncomeSource)>,
    /// Serving, from each time of the site's day on, sorted.
    pub serve: Option<(Vec<(DayTime, MicrosPerHour)>, IncomeSource)>,
    /// One line per figure: what it is and where it comes from.
    pub origins: Vec<String>,
}

impl Site {
    /// Reads a site file, its policy and its profiles.
    ///
    /// # Errors
    /// [`ConfigError`] with everything wrong in the first file that has something wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let source = Source::read(path)?;
        let file = source.parse()?;
        site_check::check(&source, file)
    }

    /// The store of this site.
    #[must_use]
    pub fn store_path(&self) -> PathBuf {
        self.state_dir.join("state.db")
    }

    /// The control socket of this site.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.state_dir.join("control.sock")
    }

    /// The farm machine's view of the site. Options come later, as events, because they change with the time of day.
    #[must_use]
    pub fn settings(&self) -> FarmSettings {
        FarmSettings {
            farm: self.farm.clone(),
            rigs: self.rigs.iter().map(|rig| self.member(rig)).collect(),
            feeders: self.feeders.clone(),
            rules: self.policy.rules(self.utc_offset_minutes),
            timing: self.policy.timing,
        }
    }

    fn member(&self, rig: &SiteRig) -> RigMember {
        RigMember {
            spec: RigSpec {
                id: rig.id.clone(),
                kind: rig.profile.kind,
                feeder: rig.feeder.clone(),
                floor: rig.profile.floor_watts,
                nameplate: rig.profile.nameplate_watts,
                options: Vec::new(),
                switch_cost: rig.switch_cost,
                hand_over_cost: rig.hand_over_cost,
                switch_time: Millis::from_secs(rig.profile.start_seconds),
                min_dwell: Millis::ZERO,
            },
            agent: rig.agent.clone(),
            drain: self.policy.drain,
            fallback: self.policy.fallback(rig.profile.kind).clone(),
        }
    }

    /// The rig of that id.
    #[must_use]
    pub fn rig(&self, id: &RigId) -> Option<&SiteRig> {
        self.rigs.iter().find(|rig| rig.id == *id)
    }

    /// The rigs an agent hosts.
    pub fn rigs_of<'a>(&'a self, agent: &'a AgentId) -> impl Iterator<Item = &'a SiteRig> {
        self.rigs.iter().filter(move |rig| rig.agent == *agent)
    }
}
