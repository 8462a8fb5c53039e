//! What an external miner is to us: data, so that a new miner needs no code.
//!
//! A value of [`MinerProfile`] has been checked: every blank of its templates is known, every place it reads begins with
//! a question that it asks. What is read from it is only as true as its `sources`.

mod pointer;
mod template;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

pub use pointer::{MATCHES_MAX, Pointer, PointerError};
pub use template::{Blank, Blanks, Template, TemplateError};

/// A miner's program, its API, and how both are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinerProfile {
    /// What a config calls it.
    pub name: String,
    /// What it calls itself.
    pub title: String,
    /// Its program, looked for in `PATH`.
    pub program: String,
    /// What it was held against.
    pub tested: Tested,
    /// Where its facts are from.
    pub sources: Vec<String>,
    /// Our word for an algorithm, and the miner's.
    pub algorithms: BTreeMap<String, String>,
    /// How it writes the address of a pool on a bare socket; nothing if it cannot.
    pub pool_tcp: Option<Template>,
    /// The same in TLS.
    pub pool_tls: Option<Template>,
    /// More arguments for a pool in TLS.
    pub tls_args: Vec<Template>,
    /// Its arguments.
    pub command: Vec<Argument>,
    /// How it is asked.
    pub api: MinerApi,
    /// Where the figures stand in its answers.
    pub read: Readings,
    /// Path or request that ends it; nothing if only signals do.
    pub stop: Option<String>,
    /// Until its API must answer for the first time.
    pub start_wait: Duration,
    /// Arguments that print its version and do nothing else.
    pub version_args: Option<Vec<String>>,
}

/// What a profile was held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tested {
    /// Nothing.
    NotAtAll,
    /// A stand-in of ours that answers as the documents say.
    AgainstAFake,
    /// The program itself.
    AgainstTheRealProgram,
}

impl fmt::Display for Tested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAtAll => "not tested at all",
            Self::AgainstAFake => "only tested against a fake",
            Self::AgainstTheRealProgram => "tested against the real program",
        })
    }
}

/// An element of a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// Always given.
    Always(Template),
    /// Left out when one of the blanks has no value.
    IfKnown(Vec<Template>),
}

/// How a miner is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinerApi {
    /// What it speaks.
    pub dialect: ApiDialect,
    /// Headers of each request, over HTTP.
    pub headers: Vec<(String, Template)>,
    /// Name of each question, and its path or request.
    pub ask: Vec<(String, String)>,
    /// Where its version stands.
    pub version: Option<Pointer>,
}

/// What a miner's API speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiDialect {
    /// GET, answered by a JSON document.
    HttpJson,
    /// One line of JSON over TCP, answered by a JSON document and the end of the connection, as cgminer does.
    CgminerTcp,
}

impl fmt::Display for ApiDialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HttpJson => "JSON over HTTP",
            Self::CgminerTcp => "cgminer over TCP",
        })
    }
}

/// Where each figure stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readings {
    /// Hashes (or solutions) a second.
    pub hashrate: Rule,
    /// Shares the pool took.
    pub accepted: Rule,
    /// Shares it refused.
    pub rejected: Option<Rule>,
    /// Shares that came too late.
    pub stale: Option<Rule>,
    /// Seconds since its start.
    pub uptime_seconds: Option<Rule>,
    /// Each GPU's rate.
    pub gpu_hashrates: Option<Rule>,
    /// Each GPU's watts.
    pub gpu_watts: Option<Rule>,
    /// Each GPU's temperature.
    pub gpu_celsius: Option<Rule>,
}

impl Readings {
    /// Every rule, with its key.
    pub fn rules(&self) -> impl Iterator<Item = (&'static str, &Rule)> {
        [
            ("hashrate", Some(&self.hashrate)),
            ("accepted", Some(&self.accepted)),
            ("rejected", self.rejected.as_ref()),
            ("stale", self.stale.as_ref()),
            ("uptime_seconds", self.uptime_seconds.as_ref()),
            ("gpu_hashrates", self.gpu_hashrates.as_ref()),
            ("gpu_watts", self.gpu_watts.as_ref()),
            ("gpu_celsius", self.gpu_celsius.as_ref()),
        ]
        .into_iter()
        .filter_map(|(key, rule)| rule.map(|rule| (key, rule)))
    }
}

/// How one figure is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Places whose numbers are added.
    pub at: Vec<Pointer>,
    /// What the numbers are multiplied by.
    pub times: u64,
    /// Place of a further factor.
    pub times_at: Option<Pointer>,
}

impl MinerProfile {
    /// The miner's word for an algorithm.
    ///
    /// # Errors
    /// The words it has.
    pub fn algorithm(&self, word: &str) -> Result<&str, String> {
        let known = || self.algorithms.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        self.algorithms.get(word).map(String::as_str).ok_or_else(|| {
            format!(
                "{word:?} is no algorithm that the profile of {} knows; it has {}",
                self.title,
                known()
            )
        })
    }

    /// Whether its command line has a place for this.
    #[must_use]
    pub fn has_blank(&self, blank: Blank) -> bool {
        let in_argument = |argument: &Argument| match argument {
            Argument::Always(template) => template.has(blank),
            Argument::IfKnown(templates) => templates.iter().any(|template| template.has(blank)),
        };
        self.command.iter().any(in_argument)
    }

    /// The arguments of a start.
    ///
    /// # Errors
    /// The blank that has no value.
    pub fn arguments(&self, blanks: &Blanks, tls: bool) -> Result<Vec<String>, Blank> {
        let mut arguments = Vec::new();
        let more = self.tls_args.iter().filter(|_| tls);
        for argument in &self.command {
            match argument {
                Argument::Always(template) => arguments.push(template.fill(blanks)?),
                Argument::IfKnown(group) => {
                    // A blank without a value leaves the whole group out; that is no error.
                    if let Ok(group) = group
                        .iter()
                        .map(|template| template.fill(blanks))
                        .collect::<Result<Vec<_>, _>>()
                    {
                        arguments.extend(group);
                    }
                }
            }
        }
        for template in more {
            arguments.push(template.fill(blanks)?);
        }
        Ok(arguments)
    }
}
