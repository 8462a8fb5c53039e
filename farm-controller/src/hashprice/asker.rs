//! A hashprice, asked now: the quoted figure, or the formula over its parts.

use farm_core::hashprice::{Difficulty, SATS_PER_BTC, Sats, per_ph_day};
use roadbed_protocol::{Money, UnixMillis};

use super::figure::{Told, ask};
use super::node::{NetworkState, Node};
use super::{AskError, Part, Reading};
use crate::config::{Decimal, Figure, HashpriceFrom, Network};

/// What asks; it remembers the fees of blocks.
#[derive(Debug)]
pub struct Asker(Source);

/// As [`HashpriceFrom`], with what is remembered between two questions.
#[derive(Debug)]
enum Source {
    Quoted(Figure),
    Computed { network: Teller, btc_price: Figure },
}

#[derive(Debug)]
enum Teller {
    Node(Node),
    Figures { difficulty: Figure, reward_btc: Figure },
}

impl Asker {
    /// For a site's hashprice.
    #[must_use]
    pub fn new(from: &HashpriceFrom) -> Self {
        Self(match from.clone() {
            HashpriceFrom::Written(per_ph_day, origin) => Source::Quoted(Figure::Written {
                text: Decimal(per_ph_day.0).to_string(),
                origin,
                source: "the site file".to_owned(),
            }),
            HashpriceFrom::Quoted(figure) => Source::Quoted(figure),
            HashpriceFrom::Computed { network, btc_price } => {
                let network = match network {
                    Network::Node(rpc) => Teller::Node(Node::new(rpc)),
                    Network::Figures { difficulty, reward_btc } => {
                        Teller::Figures { difficulty, reward_btc }
                    }
                };
                Source::Computed { network, btc_price }
            }
        })
    }

    /// Asks everything once.
    ///
    /// # Errors
    /// [`AskError`] with the first part that could not be had.
    pub async fn ask(&mut self, now: UnixMillis) -> Result<Reading, AskError> {
        match &mut self.0 {
            Source::Quoted(figure) => quoted(figure, now).await,
            Source::Computed { network, btc_price } => {
                let price = ask(btc_price, now).await?;
                let state = match network {
                    Teller::Node(node) => node.ask(now).await?,
                    Teller::Figures { difficulty, reward_btc } => {
                        figures(difficulty, reward_btc, now).await?
                    }
                };
                computed(&state, &price, now)
            }
        }
    }
}

async fn quoted(figure: &Figure, now: UnixMillis) -> Result<Reading, AskError> {
    let told = ask(figure, now).await?;
    let Decimal(micros) = told.parse("hashprice")?;
    if micros < 0 {
        return Err(told.wrong("hashprice", "is negative"));
    }
    Ok(Reading::new(Money(micros), now, vec![part("hashprice", &told)]))
}

async fn figures(
    difficulty: &Figure,
    reward: &Figure,
    now: UnixMillis,
) -> Result<NetworkState, AskError> {
    let difficulty_told = ask(difficulty, now).await?;
    let difficulty: Difficulty = difficulty_told.parse("difficulty")?;
    let told = ask(reward, now).await?;
    let Decimal(micros) = told.parse("reward of a block")?;
    // A figure in bitcoin has six digits after the point here: a hundred satoshis are the smallest step.
    let reward =
        u64::try_from(micros).map(|micros| micros.saturating_mul(SATS_PER_BTC / 1_000_000));
    let reward = reward.map_err(|_| told.wrong("reward of a block", "is negative"))?;
    let parts = vec![part("difficulty", &difficulty_told), part("reward of a block, BTC", &told)];
    Ok(NetworkState { difficulty, reward: Sats(reward), parts })
}

fn computed(state: &NetworkState, price: &Told, now: UnixMillis) -> Result<Reading, AskError> {
    let Decimal(micros) = price.parse("price of a bitcoin")?;
    if micros < 0 {
        return Err(price.wrong("price of a bitcoin", "is negative"));
    }
    let per_day = per_ph_day(state.reward, state.difficulty, Money(micros)).map_err(|error| {
        let (what, from) = ("hashprice".to_owned(), "its parts".to_owned());
        AskError::Figure { what, from, problem: error.to_string() }
    })?;
    let mut parts = state.parts.clone();
    parts.push(part("price of a bitcoin", price));
    Ok(Reading::new(per_day, now, parts))
}

fn part(what: &str, told: &Told) -> Part {
    let (figure, from, true_at) = (told.text.clone(), told.from.clone(), told.true_at);
    Part { what: what.to_owned(), figure, from, true_at }
}
