//! The network's judgement of an answer: what a validator finds beside the similarity of the lists.
//!
//! The rules in their order: a replay that was refused as a bad request passes, because a validator's own
//! limits prove nothing; lists on one side only fail; tokens must be numbers and the same at every
//! position, and the replay not shorter than the answer; no more tokens may be claimed than were counted,
//! but for a few; then the similarity decides. Source: the Network Node's `validation` package.

use super::similarity::{Listed, likeness};

/// Tokens that may be claimed beyond those of the replay, of the prompt and of the answer each.
const CLAIMED_BEYOND_MAX: u64 = 3;
/// The logprob of a token that the filters left out, where logprobs are given after them.
pub const FILTERED_OUT: f64 = -9999.0;
/// Ids below this take the places of filtered tokens; the likeliest tokens of a model hardly ever do.
const LOWEST_IDS: u32 = 4;
/// Share of such ids above which lists are taken for processed ones.
const LOWEST_IDS_SHARE: f64 = 0.1;
/// Difference of a token that the other side does not list, in the second check.
const UNLISTED_DIFFERENCE: f64 = 10.0;
/// Mean difference of logprobs above which the second check speaks of fraud. A placeholder of the contract:
/// honest answers measure about 0.01, 8-bit copies 0.1 to 0.2, other models 0.4 to 0.8.
const SECOND_CHECK_MAX: f64 = 0.25;

/// One position of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Position {
    /// The token as it was named; a number, or the answer cannot be judged.
    pub token: String,
    /// The likeliest tokens in its place.
    pub top: Vec<Listed>,
}

/// Tokens that one side counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

/// What an answer is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a> {
    pub executor: &'a [Position],
    pub validator: &'a [Position],
    /// What the executor wants to be paid for, if it is known.
    pub claimed: Option<Claimed>,
    /// What the replay counted.
    pub counted: Option<Claimed>,
}

/// Why an answer passes or fails.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// The replay was refused with this status.
    Refused { status: u16 },
    /// Neither side has lists.
    NothingListed,
    /// Only one side has lists.
    ListedByOneSide,
    /// A token of the executor is no number.
    NotNumeric { position: usize },
    /// The replay ended before the answer.
    TooShort { executor: usize, validator: usize },
    /// The replay has another token.
    OtherToken { position: usize, executor: String, validator: String },
    /// More tokens are claimed than there are.
    TooManyClaimed { claimed: Claimed, counted: Claimed },
    /// Lists cannot be compared: a position has none.
    NotComparable,
    /// The lists decide.
    Similarity,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    pub passes: bool,
    pub reason: Reason,
    /// From 0 to 1, if the lists could be compared.
    pub similarity: Option<f64>,
    /// Mean relative difference of a listed token; tells short answers apart.
    pub per_token: Option<f64>,
    /// Mean difference of logprobs over the executor's lists: the contract's second check.
    pub difference: Option<f64>,
}

impl Judgement {
    fn without_lists(passes: bool, reason: Reason) -> Self {
        Self { passes, reason, similarity: None, per_token: None, difference: None }
    }

    /// A replay that the engine refused with this status; `None` if that is a failure of the validator.
    #[must_use]
    pub fn of_refusal(status: u16) -> Option<Self> {
        [400, 422].contains(&status).then(|| Self::without_lists(true, Reason::Refused { status }))
    }

    /// An answer that fails whatever its replay says: without lists, which a validator would have, or with
    /// tokens that are no ids. To be asked first, because a replay of the latter is refused, which passes.
    #[must_use]
    pub fn of_executor(executor: &[Position]) -> Option<Self> {
        let reason = match not_numeric(executor) {
            Some(position) => Reason::NotNumeric { position },
            None if executor.iter().all(|position| position.top.is_empty()) => {
                Reason::ListedByOneSide
            }
            None => return None,
        };
        Some(Self::without_lists(false, reason))
    }

    /// What the second check would say. It is a placeholder that decides nothing: the contract's authors
    /// have not settled where it cuts.
    #[must_use]
    pub fn second_check_says_fraud(&self) -> Option<bool> {
        self.difference.map(|difference| difference > SECOND_CHECK_MAX)
    }

    /// True if the answer passes only because short answers are judged mildly.
    #[must_use]
    pub fn is_mild(&self, threshold: f64) -> bool {
        self.passes && self.per_token.is_some_and(|per_token| 1.0 - per_token <= threshold)
    }
}

/// Judges an answer by its replay; it passes if the similarity is above `threshold`.
#[must_use]
pub fn judge(sides: &Sides<'_>, threshold: f64) -> Judgement {
    let fails = |reason| Judgement::without_lists(false, reason);
    let is_listed = |side: &[Position]| side.iter().any(|position| !position.top.is_empty());
    match (is_listed(sides.executor), is_listed(sides.validator)) {
        (true, true) => {}
        (false, false) => return Judgement::without_lists(true, Reason::NothingListed),
        (true, false) | (false, true) => return fails(Reason::ListedByOneSide),
    }
    if let Some(reason) = other_tokens(sides.executor, sides.validator) {
        return fails(reason);
    }
    let lists = |side: &[Position]| -> Vec<Vec<Listed>> {
        side.iter().map(|position| position.top.clone()).collect()
    };
    let (executor, validator) = (lists(sides.executor), lists(sides.validator));
    let Some(likeness) = likeness(&executor, &validator) else {
        return fails(Reason::NotComparable);
    };
    let beyond = |claimed: u64, counted: u64| claimed.saturating_sub(counted) > CLAIMED_BEYOND_MAX;
    let too_many = sides.claimed.zip(sides.counted).filter(|(claimed, counted)| {
        beyond(claimed.prompt_tokens, counted.prompt_tokens)
            || beyond(claimed.completion_tokens, counted.completion_tokens)
    });
    let (passes, reason) = match too_many {
        Some((claimed, counted)) => (false, Reason::TooManyClaimed { claimed, counted }),
        None => (likeness.similarity > threshold, Reason::Similarity),
    };
    Judgement {
        passes,
        reason,
        similarity: Some(likeness.similarity),
        per_token: Some(likeness.per_token),
        difference: Some(difference(&executor, &validator)),
    }
}

/// The first token that is no number.
fn not_numeric(positions: &[Position]) -> Option<usize> {
    positions.iter().position(|position| position.token.parse::<u32>().is_err())
}

/// Where the tokens are not the same.
fn other_tokens(executor: &[Position], validator: &[Position]) -> Option<Reason> {
    if let Some(position) = not_numeric(executor) {
        return Some(Reason::NotNumeric { position });
    }
    let pairs = executor.iter().zip(validator).enumerate();
    let other = |(position, (ours, theirs)): (usize, (&Position, &Position))| {
        (ours.token != theirs.token).then(|| Reason::OtherToken {
            position,
            executor: ours.token.clone(),
            validator: theirs.token.clone(),
        })
    };
    if let Some(reason) = pairs.filter_map(other).next() {
        return Some(reason);
    }
    (validator.len() < executor.len())
        .then_some(Reason::TooShort { executor: executor.len(), validator: validator.len() })
}

/// Mean over the positions of the mean difference of the tokens that the executor lists.
fn difference(executor: &[Vec<Listed>], validator: &[Vec<Listed>]) -> f64 {
    let of_position = |(ours, theirs): (&Vec<Listed>, &Vec<Listed>)| {
        let of_token = |token: &Listed| {
            let other = theirs.iter().rfind(|other| other.id == token.id);
            other.map_or(UNLISTED_DIFFERENCE, |other| (token.logprob - other.logprob).abs())
        };
        ours.iter().map(of_token).sum::<f64>() / ours.len().max(1) as f64
    };
    let differences = executor.iter().zip(validator).filter(|(ours, _)| !ours.is_empty());
    let (sum, count) =
        differences.fold((0.0, 0), |(sum, count), pair| (sum + of_position(pair), count + 1));
    sum / f64::from(count.max(1))
}

/// True if these lists were made after temperature and filters, as the places of filtered tokens show.
#[must_use]
pub fn is_processed(positions: &[Position]) -> bool {
    let ids = || positions.iter().flat_map(|position| position.top.iter().map(|listed| listed.id));
    let lowest = ids().filter(|id| *id < LOWEST_IDS).count();
    lowest as f64 > LOWEST_IDS_SHARE * ids().count() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(tokens: &[u32]) -> Vec<Position> {
        let listed = |id: u32, rank: u32| Listed { id, logprob: -0.5 - f64::from(rank) };
        let top = |id: u32| (0..5).map(|rank| listed(id + rank, rank)).collect();
        tokens.iter().map(|id| Position { token: id.to_string(), top: top(*id) }).collect()
    }

    fn judged(executor: &[Position], validator: &[Position]) -> Judgement {
        let sides = Sides { executor, validator, claimed: None, counted: None };
        judge(&sides, 0.99)
    }

    #[test]
    fn the_same_lists_pass_and_a_longer_replay_too() {
        let (short, long) = (answer(&[10, 20]), answer(&[10, 20, 30]));
        let found = judged(&short, &long);
        assert!(found.passes && found.reason == Reason::Similarity);
        let zero = (Some(1.0), Some(0.0), Some(0.0));
        assert_eq!((found.similarity, found.per_token, found.difference), zero);
        assert_eq!(found.second_check_says_fraud(), Some(false));
        let reason = judged(&long, &short).reason;
        assert_eq!(reason, Reason::TooShort { executor: 3, validator: 2 });
    }

    #[test]
    fn other_tokens_fail() {
        let found = judged(&answer(&[10, 20]), &answer(&[10, 21, 5]));
        let (executor, validator) = ("20".to_owned(), "21".to_owned());
        assert_eq!(found.reason, Reason::OtherToken { position: 1, executor, validator });
        let mut words = answer(&[10, 20]);
        words[1].token = " Paris".into();
        assert_eq!(judged(&words, &words).reason, Reason::NotNumeric { position: 1 });
    }

    #[test]
    fn an_answer_without_lists_or_ids_fails_whatever_its_replay() {
        assert_eq!(Judgement::of_executor(&answer(&[10])), None);
        let mut words = answer(&[10, 20]);
        words[1].token = "-1".into();
        let reason = |executor: &[Position]| Judgement::of_executor(executor).unwrap().reason;
        assert_eq!(reason(&words), Reason::NotNumeric { position: 1 });
        assert_eq!(reason(&[]), Reason::ListedByOneSide);
    }

    #[test]
    fn lists_on_one_side_fail_and_on_none_pass() {
        let mut bare = answer(&[10]);
        bare[0].top.clear();
        assert_eq!(judged(&answer(&[10]), &bare).reason, Reason::ListedByOneSide);
        assert_eq!(judged(&bare, &answer(&[10])).reason, Reason::ListedByOneSide);
        assert_eq!(judged(&[], &answer(&[10])).reason, Reason::ListedByOneSide);
        assert!(judged(&bare, &bare).passes && judged(&[], &[]).passes);
        let partly = [answer(&[10]), bare].concat();
        let found = judged(&partly, &partly);
        assert!(!found.passes && found.reason == Reason::NotComparable);
    }

    #[test]
    fn three_tokens_too_many_may_be_claimed() {
        let positions = answer(&[10]);
        let passes = |prompt_tokens, completion_tokens| {
            let counted = Some(Claimed { prompt_tokens: 8, completion_tokens: 5 });
            let claimed = Some(Claimed { prompt_tokens, completion_tokens });
            let (executor, validator) = (&positions[..], &positions[..]);
            judge(&Sides { executor, validator, claimed, counted }, 0.99).passes
        };
        assert!(passes(8, 5) && passes(11, 8) && passes(0, 0));
        assert!(!passes(12, 5) && !passes(8, 9) && !passes(u64::MAX, 5));
    }

    #[test]
    fn short_answers_of_other_models_pass_the_network_and_are_marked() {
        let mut other = answer(&[10, 20]);
        for listed in other.iter_mut().flat_map(|position| &mut position.top) {
            listed.logprob *= 1.5;
        }
        let found = judged(&answer(&[10, 20]), &other);
        assert!(found.passes && found.is_mild(0.99), "{found:?}");
        assert_eq!(found.second_check_says_fraud(), Some(true));
        assert!(!judged(&answer(&[10]), &answer(&[10])).is_mild(0.99));
    }

    #[test]
    fn refused_replays_pass_and_failures_of_the_engine_are_no_judgement() {
        for status in [400, 422] {
            let found = Judgement::of_refusal(status).unwrap();
            assert!(found.passes && found.reason == Reason::Refused { status });
        }
        assert!([401, 404, 429, 500, 503].map(Judgement::of_refusal).iter().all(Option::is_none));
    }

    #[test]
    fn processed_lists_show_by_the_lowest_ids() {
        let mut positions = answer(&[10, 20]);
        assert!(!is_processed(&positions) && !is_processed(&[]));
        positions[0].top[3] = Listed { id: 0, logprob: FILTERED_OUT };
        assert!(!is_processed(&positions), "one in ten is not more than a tenth");
        positions[0].top[4] = Listed { id: 1, logprob: FILTERED_OUT };
        assert!(is_processed(&positions));
    }
}
