//! What was asked and answered so far: facts, and when each question is due again. Pure; time comes in as a number.

use std::collections::{BTreeMap, VecDeque};

use farm_core::gonka::{BlockMoment, ConfirmationPhase, Fact, GonkaFacts, Height};
use roadbed_protocol::{Millis, UnixMillis};
use serde_json::Value;

use super::client::ClientError;
use super::fields::ShapeError;
use super::parse;
use super::question::Question;

/// Moments kept for the pace of blocks. At one every half minute that is the last half hour, so a change of pace shows
/// soon, and the uncertainty of when in its five seconds a block was met counts little.
const MOMENTS_MAX: usize = 64;
/// Heights of two Network Nodes may differ by this: a node that is behind by more than a few minutes is not in step.
const HEIGHTS_APART_MAX: u64 = 50;

/// A stretch of blocks that took this many times the usual was a halt.
const HALT_FACTOR: u64 = 8;

/// What one question led to.
pub type Answered = Result<Value, ClientError>;

/// Facts with their timetable.
#[derive(Debug, Clone)]
pub struct Reader {
    facts: GonkaFacts,
    models: Vec<String>,
    due: BTreeMap<Question, UnixMillis>,
    moments: VecDeque<(Height, UnixMillis)>,
    /// The epoch's number and whether its weights stand: what makes an epoch's answers old.
    epoch: Option<(u64, bool)>,
}

impl Reader {
    /// A reader that has asked nothing. `has_admin` is false where no admin API may be asked, `compares` where there is
    /// only one Network Node.
    #[must_use]
    pub fn new(address: &str, models: Vec<String>, has_admin: bool, compares: bool) -> Self {
        let is_asked = |question: &Question| {
            (*question != Question::Nodes || has_admin)
                && (*question != Question::Comparison || compares)
        };
        let due = Question::all(models.len()).filter(is_asked).map(|it| (it, UnixMillis(0)));
        Self {
            facts: GonkaFacts { address: address.to_owned(), ..GonkaFacts::default() },
            due: due.collect(),
            models,
            moments: VecDeque::new(),
            epoch: None,
        }
    }

    /// What is known.
    #[must_use]
    pub fn facts(&self) -> &GonkaFacts {
        &self.facts
    }

    /// The models whose groups are asked for.
    #[must_use]
    pub fn models(&self) -> &[String] {
        &self.models
    }

    /// Notes who answers.
    pub fn answers(&mut self, node: &str) {
        if self.facts.answering.as_deref() != Some(node) {
            self.facts.answering = Some(node.to_owned());
        }
    }

    /// The question that is due first, its path, and when. Questions that cannot be asked yet are passed over.
    #[must_use]
    pub fn next(&self) -> Option<(Question, String, UnixMillis)> {
        let askable = self.due.iter().filter_map(|(question, at)| {
            Some((*question, question.path(&self.facts, &self.models)?, *at))
        });
        askable.min_by_key(|(question, _, at)| (*at, *question))
    }

    /// Takes what came of a question. True when it is worth keeping over a restart.
    pub fn take(&mut self, question: Question, answered: &Answered, now: UnixMillis) -> bool {
        let read = match answered {
            Ok(body) => match self.read(question, body, now) {
                Ok(()) => true,
                Err(error) => {
                    self.fail(question, Failure::Answer(error.to_string()), now);
                    false
                }
            },
            Err(ClientError::NotOffered { .. }) => {
                self.fail(question, Failure::NotOffered, now);
                true
            }
            Err(error) => {
                self.fail(question, Failure::Answer(error.to_string()), now);
                false
            }
        };
        let pause = if read { question.pace(&self.facts) } else { question.retry(&self.facts) };
        self.due.insert(question, now + pause);
        if read && question == Question::Epoch {
            self.epoch_read(now);
        }
        read && answered.is_ok()
    }

    /// Puts back what a former run kept; it is asked for again at once.
    pub fn restore(&mut self, question: Question, body: &Value, at: UnixMillis) {
        // What cannot be read any more was written by another version: it will be asked for.
        let _ = self.read(question, body, at);
    }

    /// Puts back the pace of blocks that a former run measured.
    pub fn restore_block(&mut self, moment: BlockMoment) {
        self.facts.block = Some(moment);
        self.facts.highest = Some((moment.height, moment.at));
    }

    /// What the other Network Nodes say of the epoch, by their address.
    pub fn compare(&mut self, others: &[(String, Answered)], now: UnixMillis) {
        let said = others.iter().find_map(|(node, answered)| {
            let body = answered.as_ref().ok()?;
            let other = parse::chain_epoch(body).ok()?;
            let (own, _) = self.facts.epoch.last()?;
            let apart = own.height.0.abs_diff(other.height.0);
            let differs =
                other.stages.epoch_index != own.stages.epoch_index && apart <= HEIGHTS_APART_MAX;
            if differs {
                let (here, there) = (own.stages.epoch_index, other.stages.epoch_index);
                return Some(format!("{node} is in epoch {there}, the one that answers in {here}"));
            }
            (apart > HEIGHTS_APART_MAX).then(|| {
                format!(
                    "{node} is at height {}, the one that answers at {}",
                    other.height, own.height
                )
            })
        });
        self.facts.disagreement = said;
        self.due.insert(Question::Comparison, now + Question::Comparison.pace(&self.facts));
    }

    fn read(&mut self, question: Question, body: &Value, at: UnixMillis) -> Result<(), ShapeError> {
        let lengths = self.facts.params.last().and_then(|(params, _)| params.epoch);
        let facts = &mut self.facts;
        match question {
            Question::Epoch => {
                let mut epoch = parse::chain_epoch(body)?;
                if epoch.confirmation.is_none() {
                    let event = facts.confirmation.last().and_then(|(event, _)| event.clone());
                    epoch.confirmation = event.filter(|event| event.validation.end > epoch.height);
                }
                // One that is recorded asks nothing more of anybody.
                epoch.confirmation.take_if(|event| event.phase == ConfirmationPhase::Completed);
                let height = epoch.height;
                facts.epoch.answered(epoch, at);
                self.block_seen(height, at);
            }
            Question::Participants => facts.participants.answered(parse::participants(body)?, at),
            Question::FormerParticipants => {
                facts.former_participants.answered(parse::participants(body)?, at);
            }
            Question::Params => facts.params.answered(parse::chain_params(body)?, at),
            Question::Group => {
                let group = parse::epoch_group(body)?;
                let former = facts.group.last().map(|(group, _)| group.epoch_index);
                if former != Some(group.epoch_index) {
                    // Their paths have just changed.
                    for question in [
                        Question::FormerParticipants,
                        Question::FormerGroup,
                        Question::Result,
                        Question::Coefficients,
                    ] {
                        self.due.entry(question).and_modify(|due| *due = UnixMillis(0));
                    }
                }
                facts.group.answered(group, at);
            }
            Question::FormerGroup => facts.former_group.answered(parse::epoch_group(body)?, at),
            Question::ModelGroup(place) => {
                let group = parse::epoch_group(body)?;
                if let Some(model) = self.models.get(place) {
                    facts.model_groups.entry(model.clone()).or_default().answered(group, at);
                }
            }
            Question::Coefficients => facts.coefficients.answered(parse::coefficients(body)?, at),
            Question::ActiveConfirmation => {
                facts.confirmation.answered(parse::active_confirmation(body, lengths), at);
            }
            Question::Confirmations => {
                facts.confirmations.answered(parse::confirmations(body, lengths), at);
            }
            Question::Result => facts.result.answered(parse::epoch_result(body)?, at),
            Question::Settlement => facts.settlement.answered(parse::settlement(body)?, at),
            Question::Delegations => facts.delegations.answered(parse::delegations(body), at),
            Question::Collateral => facts.collateral.answered(parse::collateral(body)?, at),
            Question::Vesting => facts.vesting.answered(parse::vesting(body)?, at),
            Question::Models => facts.models.answered(parse::models(body)?, at),
            Question::Prices => facts.prices.answered(parse::prices(body)?, at),
            Question::Versions => facts.versions.answered(parse::versions(body), at),
            Question::Hardware => facts.hardware.answered(parse::hardware(body), at),
            Question::Comet => {
                let (height, catching_up) = parse::comet_status(body)?;
                facts.catching_up.answered(catching_up, at);
                self.block_seen(height, at);
            }
            Question::Nodes => facts.nodes.answered(parse::registered(body)?, at),
            Question::Comparison => {}
        }
        Ok(())
    }

    fn fail(&mut self, question: Question, failure: Failure, at: UnixMillis) {
        let facts = &mut self.facts;
        match question {
            Question::Epoch => failure.of(&mut facts.epoch, at),
            Question::Participants => failure.of(&mut facts.participants, at),
            Question::FormerParticipants => failure.of(&mut facts.former_participants, at),
            Question::Params => failure.of(&mut facts.params, at),
            Question::Group => failure.of(&mut facts.group, at),
            Question::FormerGroup => failure.of(&mut facts.former_group, at),
            Question::ModelGroup(place) => {
                if let Some(model) = self.models.get(place) {
                    failure.of(facts.model_groups.entry(model.clone()).or_default(), at);
                }
            }
            Question::Coefficients => failure.of(&mut facts.coefficients, at),
            // No event, no document: the chain's own way of saying that none is under way.
            Question::ActiveConfirmation => match failure {
                Failure::NotOffered => facts.confirmation.answered(None, at),
                Failure::Answer(_) => failure.of(&mut facts.confirmation, at),
            },
            Question::Confirmations => failure.of(&mut facts.confirmations, at),
            Question::Result => failure.of(&mut facts.result, at),
            Question::Settlement => failure.of(&mut facts.settlement, at),
            Question::Delegations => failure.of(&mut facts.delegations, at),
            Question::Collateral => failure.of(&mut facts.collateral, at),
            Question::Vesting => failure.of(&mut facts.vesting, at),
            Question::Models => failure.of(&mut facts.models, at),
            Question::Prices => failure.of(&mut facts.prices, at),
            Question::Versions => failure.of(&mut facts.versions, at),
            Question::Hardware => failure.of(&mut facts.hardware, at),
            Question::Comet => failure.of(&mut facts.catching_up, at),
            Question::Nodes => failure.of(&mut facts.nodes, at),
            Question::Comparison => {}
        }
    }

    /// After an epoch's number rose, or its weights came to stand, its other answers are old.
    fn epoch_read(&mut self, now: UnixMillis) {
        let Some((epoch, _)) = self.facts.epoch.last() else { return };
        let stands = epoch.height >= epoch.stages.set_new_validators;
        let key = Some((epoch.stages.epoch_index, stands));
        if self.epoch == key {
            return;
        }
        self.epoch = key;
        for (question, due) in &mut self.due {
            if question.belongs_to_an_epoch() {
                *due = (*due).min(now);
            }
        }
    }

    /// Measures the pace over the longest stretch that is still recent.
    fn block_seen(&mut self, height: Height, at: UnixMillis) {
        match self.facts.highest {
            Some((highest, _)) if height <= highest => return,
            Some(_) | None => self.facts.highest = Some((height, at)),
        }
        if self.moments.len() >= MOMENTS_MAX {
            self.moments.pop_front();
        }
        // A chain that stood still and goes on has no pace in common with what was before.
        if let (Some((last, seen)), Some(block)) = (self.moments.back(), self.facts.block) {
            let expected = block.block_time.0.saturating_mul(height.0.abs_diff(last.0));
            if at.since(*seen).0 > expected.saturating_mul(HALT_FACTOR) {
                self.moments.clear();
            }
        }
        self.moments.push_back((height, at));
        let measured = self.moments.front().and_then(|(first, since)| {
            let blocks = u64::try_from(height.0.saturating_sub(first.0)).ok()?;
            let pace = at.since(*since).0.checked_div(blocks)?;
            (pace > 0).then_some(Millis(pace))
        });
        // Until there are two blocks, the pace of the run before serves.
        let former = self.facts.block.map(|block| block.block_time);
        if let Some(block_time) = measured.or(former) {
            self.facts.block = Some(BlockMoment { height, at, block_time });
        }
    }
}

/// Why there is no news.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    NotOffered,
    Answer(String),
}

impl Failure {
    fn of<T>(self, fact: &mut Fact<T>, at: UnixMillis) {
        match self {
            Self::NotOffered => fact.not_offered(at),
            Self::Answer(reason) => fact.failed(at, reason),
        }
    }
}
