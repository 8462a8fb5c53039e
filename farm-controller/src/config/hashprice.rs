//! What hashing earns, as a site file says it: one figure, a feed of it, or a node and a price to compute it from.

use std::path::PathBuf;

use farm_core::plan::IncomeSource;
use roadbed_protocol::{MicrosPerHour, Millis, Money};
use serde::Deserialize;

use super::authorities::Authorities;
use super::decimal::Decimal;
use super::figure::{Figure, FigureFile};
use super::origin::OriginFile;
use super::site_check::Checker;
use super::source::FieldPath;

/// All of a figure, in the millionths of a percent that fees are read in.
const WHOLE: i64 = 100_000_000;
/// Hours in a day, to turn a price per day into one per hour.
const DAY_HOURS: i64 = 24;
/// Longest hold: the difficulty of the network is another one after two weeks.
const HOLD_HOURS_MAX: u64 = 14 * 24;
/// Slowest look.
pub(super) const EVERY_MINUTES_MAX: u64 = 24 * 60;

/// What hashing earns on this site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashprice {
    /// Where it comes from.
    pub from: HashpriceFrom,
    /// The pool's fee, in millionths of a percent.
    fee: i64,
    /// Farm time for which the last figure stands when the source fails; after it there is none.
    pub hold: Millis,
    /// Farm time between two looks.
    pub every: Millis,
}

/// Where the hashprice comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashpriceFrom {
    /// A figure in the site file: per PH/s and day.
    Written(Money, IncomeSource),
    /// Somebody quotes it, per PH/s and day in the site's currency.
    Quoted(Figure),
    /// It is computed.
    Computed {
        /// Difficulty and reward.
        network: Network,
        /// One bitcoin in the site's currency.
        btc_price: Figure,
    },
}

/// Who tells difficulty and reward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// A full node of one's own.
    Node(NodeRpc),
    /// Two figures: the difficulty, and what a mean block pays in bitcoin.
    Figures {
        /// The network's difficulty.
        difficulty: Figure,
        /// What the pool pays of a mean block, in bitcoin.
        reward_btc: Figure,
    },
}

/// A full node's JSON-RPC (`bitcoind`, `bcoin` and others).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRpc {
    /// Its address.
    pub url: String,
    /// How it lets us in.
    pub login: RpcLogin,
    /// Whether the pool pays fees of transactions too.
    pub pays: Pays,
    /// Who vouches for an `https` address; without them whom this machine trusts.
    pub authorities: Option<Authorities>,
}

/// How a node lets us in. The secret is read when it is needed: a cookie is new after every start of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RpcLogin {
    /// `name:password` in one line, as `bitcoind` writes its `.cookie`.
    Cookie(PathBuf),
    /// A name, and a file with its password.
    User(String, PathBuf),
}

/// What a pool pays of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pays {
    /// New coins and fees (FPPS, PPLNS).
    Fpps,
    /// New coins alone (PPS).
    Pps,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HashpriceFile {
    #[serde(default)]
    per_ph_day: Option<Decimal>,
    #[serde(default)]
    pool_fee_percent: Decimal,
    #[serde(flatten)]
    origin: OriginFile,
    #[serde(default)]
    quote: Option<FigureFile>,
    #[serde(default)]
    network: Option<NetworkFile>,
    #[serde(default)]
    btc_price: Option<FigureFile>,
    #[serde(default = "a_day")]
    hold_hours: u64,
    #[serde(default = "ten")]
    every_minutes: u64,
}

pub(super) fn a_day() -> u64 {
    24
}

pub(super) fn ten() -> u64 {
    10
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkFile {
    #[serde(default)]
    node: Option<NodeFile>,
    #[serde(default)]
    difficulty: Option<FigureFile>,
    #[serde(default)]
    reward_btc: Option<FigureFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFile {
    url: String,
    #[serde(default)]
    cookie_file: Option<PathBuf>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    password_file: Option<PathBuf>,
    #[serde(default = "with_fees")]
    pays: Pays,
    #[serde(default)]
    ca_file: Option<PathBuf>,
}

fn with_fees() -> Pays {
    Pays::Fpps
}

impl Hashprice {
    /// What is left of a day's price after the pool's fee, by the hour.
    #[must_use]
    pub fn per_ph_hour(&self, per_ph_day: Money) -> MicrosPerHour {
        let kept = i128::from(per_ph_day.0) * i128::from(WHOLE - self.fee) / i128::from(WHOLE);
        MicrosPerHour(i64::try_from(kept).unwrap_or(i64::MAX) / DAY_HOURS)
    }

    /// The figure of the site file itself, if that is where it comes from.
    #[must_use]
    pub fn written(&self) -> Option<(MicrosPerHour, IncomeSource)> {
        match &self.from {
            HashpriceFrom::Written(per_ph_day, origin) => {
                Some((self.per_ph_hour(*per_ph_day), *origin))
            }
            HashpriceFrom::Quoted(_) | HashpriceFrom::Computed { .. } => None,
        }
    }

    /// The pool's fee in percent, for people.
    #[must_use]
    pub const fn fee_percent(&self) -> Decimal {
        Decimal(self.fee)
    }
}

impl Checker<'_> {
    /// The hashprice, and the line that tells where it comes from.
    pub(super) fn hashprice(&mut self, file: HashpriceFile) -> Option<(Hashprice, String)> {
        let path = FieldPath::of("income").key("hashprice");
        let fee = file.pool_fee_percent.0;
        if !(0..=WHOLE).contains(&fee) {
            let text = format!("is {}; expected 0 to 100", file.pool_fee_percent);
            self.say(&path.key("pool_fee_percent"), text);
        }
        self.span(&path, "hold_hours", file.hold_hours, HOLD_HOURS_MAX);
        self.span(&path, "every_minutes", file.every_minutes, EVERY_MINUTES_MAX);
        let (from, told) = match (file.per_ph_day, file.quote, file.network) {
            (Some(per_ph_day), None, None) => {
                let origin = self.origin(&path, &file.origin);
                let text = format!("{per_ph_day} per PH/s and day");
                let told = file.origin.line("hashprice", &text);
                (HashpriceFrom::Written(Money(per_ph_day.0), origin), told)
            }
            (None, Some(quote), None) => {
                let quote = self.figure(&path.key("quote"), quote)?;
                (HashpriceFrom::Quoted(quote), "hashprice: quoted (see roadbed hashprice)".into())
            }
            (None, None, Some(network)) => {
                let network = self.network(&path.key("network"), network);
                let Some(price) = file.btc_price else {
                    self.say(&path, "has network but no btc_price; a hashprice needs both");
                    return None;
                };
                let btc_price = self.figure(&path.key("btc_price"), price)?;
                let told =
                    "hashprice: computed from difficulty, reward and price (see roadbed hashprice)";
                (HashpriceFrom::Computed { network: network?, btc_price }, told.to_owned())
            }
            (None, None, None) => {
                self.say(&path, "has none of per_ph_day, quote and network; expected one of them");
                return None;
            }
            (Some(_), _, _) | (None, Some(_), Some(_)) => {
                self.say(&path, "has more than one of per_ph_day, quote and network; expected one");
                return None;
            }
        };
        let hold = Millis::from_hours(file.hold_hours.min(HOLD_HOURS_MAX));
        let every = Millis::from_mins(file.every_minutes.min(EVERY_MINUTES_MAX));
        Some((Hashprice { from, fee: fee.clamp(0, WHOLE), hold, every }, told))
    }

    fn network(&mut self, path: &FieldPath, file: NetworkFile) -> Option<Network> {
        match (file.node, file.difficulty, file.reward_btc) {
            (Some(node), None, None) => self.node(&path.key("node"), node).map(Network::Node),
            (None, Some(difficulty), Some(reward)) => {
                let difficulty = self.figure(&path.key("difficulty"), difficulty);
                let reward_btc = self.figure(&path.key("reward_btc"), reward)?;
                Some(Network::Figures { difficulty: difficulty?, reward_btc })
            }
            (_, _, _) => {
                self.say(path, "expected either node, or difficulty and reward_btc");
                None
            }
        }
    }

    fn node(&mut self, path: &FieldPath, file: NodeFile) -> Option<NodeRpc> {
        let is_good = self.url(&path.key("url"), &file.url);
        let login = match (file.cookie_file, file.user, file.password_file) {
            (Some(cookie), None, None) => RpcLogin::Cookie(self.beside(&cookie)),
            (None, Some(user), Some(password)) => RpcLogin::User(user, self.beside(&password)),
            (_, _, _) => {
                self.say(path, "expected either cookie_file, or user and password_file");
                return None;
            }
        };
        let authorities = self.authorities(path, file.ca_file.as_deref());
        let url = file.url.trim_end_matches('/').to_owned();
        is_good.then_some(NodeRpc { url, login, pays: file.pays, authorities })
    }

    /// Complains of a number out of its range.
    pub(super) fn span(&mut self, path: &FieldPath, key: &'static str, value: u64, most: u64) {
        if value == 0 || value > most {
            self.say(&path.key(key), format!("is {value}; expected 1 to {most}"));
        }
    }
}
