//! Which tokens the next step feeds: who runs, who waits, and who has to give his pages back.
//!
//! Sequences are served in the order they came. All that run get a token each step; beside them prompts
//! are read in chunks, oldest first. A sequence is let in when there are pages for all it knows so far.
//! When a running one needs a page and there is none, the youngest gives up all of its own and waits at
//! the front; so the oldest always gets on, and with it, in the end, everybody.
//!
//! Nothing here touches a GPU or a clock, and nothing here can change an answer: results do not depend
//! on what is fed together (see [`Phase`]).

use std::collections::VecDeque;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::kv::Pages;
use super::op::Phase;
use super::params::PAGE;
use super::request::GenerateRequest;
use super::sequence::{Sequence, SequenceId, Slice};

/// Most tokens of each kind that a step may feed.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepRows {
    pub decode: usize,
    /// Of prompts, while nobody decodes.
    pub prefill_alone: usize,
    /// Of prompts, beside running answers.
    pub prefill_beside: usize,
}

/// What one step does.
#[derive(Default)]
pub(super) struct Work {
    pub decode: Vec<Slice>,
    pub prefill: Vec<Slice>,
    /// Sequences that ask for no tokens.
    pub nothing_to_do: Vec<Sequence>,
}

/// How full an engine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchLoad {
    pub running: usize,
    pub waiting: usize,
    /// Pages of the KV cache that nobody holds.
    pub pages_free: usize,
    pub pages: usize,
}

/// Pages and a page table for something that is no answer of the line.
pub(super) struct Loan {
    pub table: usize,
    pub pages: Vec<u32>,
}

pub(super) struct Batch {
    waiting: VecDeque<Sequence>,
    /// Oldest first.
    running: Vec<Sequence>,
    pages: Pages,
    /// Page tables that nobody has; as many as sequences may run.
    tables: Vec<usize>,
    waiting_max: usize,
    next_id: u64,
}

impl Batch {
    pub fn new(pages: usize, sequences_max: usize, waiting_max: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            running: Vec::new(),
            pages: Pages::new(pages),
            tables: (0..sequences_max).rev().collect(),
            waiting_max,
            next_id: 0,
        }
    }

    pub fn load(&self) -> BatchLoad {
        BatchLoad {
            running: self.running.len(),
            waiting: self.waiting.len(),
            pages_free: self.pages.available(),
            pages: self.pages.total(),
        }
    }

    /// Puts a request in line; `None` if the line is full.
    pub fn admit(&mut self, request: GenerateRequest, room: usize) -> Option<SequenceId> {
        if self.waiting.len() >= self.waiting_max {
            return None;
        }
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.waiting.push_back(Sequence::new(id, request, room));
        Some(id)
    }

    pub fn running_mut(&mut self, id: SequenceId) -> Option<&mut Sequence> {
        self.running.iter_mut().find(|s| s.id == id)
    }

    /// Takes a sequence out, wherever it is; its pages are free at once.
    pub fn remove(&mut self, id: SequenceId) -> Option<Sequence> {
        if let Some(at) = self.running.iter().position(|s| s.id == id) {
            return Some(self.stop(at));
        }
        let at = self.waiting.iter().position(|s| s.id == id)?;
        self.waiting.remove(at)
    }

    fn stop(&mut self, at: usize) -> Sequence {
        let mut sequence = self.running.remove(at);
        self.pages.release(&sequence.give_up());
        self.tables.push(sequence.table);
        sequence
    }

    /// Pages for `tokens` tokens, taken from nobody who runs; `None` if there are not enough.
    pub fn lend(&mut self, tokens: usize) -> Option<Loan> {
        let pages = tokens.div_ceil(PAGE);
        if pages > self.pages.available() {
            return None;
        }
        let table = self.tables.pop()?;
        Some(Loan { table, pages: (0..pages).map_while(|_| self.pages.take()).collect() })
    }

    pub fn take_back(&mut self, loan: Loan) {
        self.pages.release(&loan.pages);
        self.tables.push(loan.table);
    }

    /// Notes that a slice was fed.
    pub fn fed(&mut self, slice: &Slice) {
        let Some(sequence) = self.running.iter_mut().find(|s| s.id == slice.id) else {
            return;
        };
        for (page, name) in sequence.feed(slice.positions.end) {
            self.pages.name(page, name);
        }
    }

    /// Decides what the next step feeds, and gives every sequence the pages it needs for it.
    pub fn plan(&mut self, rows: StepRows, now: Instant) -> Work {
        let mut work = Work::default();
        let running = self.running.len();
        work.decode = self.plan_decode(rows.decode);
        // Pages just taken from somebody are for those who run, not for him to come back.
        if self.running.len() == running {
            work.nothing_to_do = self.let_in(now);
        }
        let budget = match work.decode.is_empty() {
            true => rows.prefill_alone,
            false => rows.prefill_beside,
        };
        work.prefill = self.plan_prefill(budget);
        work
    }

    fn plan_decode(&mut self, rows_max: usize) -> Vec<Slice> {
        let decoding = |s: &Sequence| s.phase() == Phase::Decode;
        // One row each; what is left is for those who catch up after they had to give up.
        let mut spare =
            rows_max.saturating_sub(self.running.iter().filter(|s| decoding(s)).count());
        let mut slices: Vec<Slice> = Vec::new();
        let mut at = 0;
        while let Some(sequence) = self.running.get(at) {
            if !decoding(sequence) || slices.len() == rows_max {
                at += 1;
                continue;
            }
            let slice = sequence.next(1 + spare);
            if self.provide(at, slice.positions.end) {
                spare -= slice.positions.len() - 1;
                slices.push(slice);
                at += 1;
            }
        }
        slices
    }

    /// Gives the running sequence `at` pages for positions up to `end`, taking those of the youngest
    /// if there is no other way; false if it was the youngest itself.
    fn provide(&mut self, at: usize, end: usize) -> bool {
        while self.running[at].pages.len() * PAGE < end {
            if let Some(page) = self.pages.take() {
                self.running[at].pages.push(page);
                continue;
            }
            let youngest = self.running.len() - 1;
            let sequence = self.stop(youngest);
            self.waiting.push_front(sequence);
            if youngest == at {
                return false;
            }
        }
        true
    }

    /// Lets sequences in, in order, while there are page tables and pages.
    fn let_in(&mut self, now: Instant) -> Vec<Sequence> {
        let mut nothing_to_do = Vec::new();
        while let Some(sequence) = self.waiting.front() {
            if sequence.is_done() {
                nothing_to_do.extend(self.waiting.pop_front());
                continue;
            }
            let (shared, kept) = self.pages.find(sequence.names());
            let needed = sequence.pages_needed() - shared;
            // Running answers will want a page each before long.
            let spoken_for = kept + self.running.len();
            if self.tables.is_empty() || needed + spoken_for > self.pages.available() {
                break;
            }
            let (Some(mut sequence), Some(table)) = (self.waiting.pop_front(), self.tables.pop())
            else {
                break;
            };
            let pages: Vec<u32> =
                sequence.names()[..shared].iter().filter_map(|n| self.pages.share(n)).collect();
            sequence.begin(pages, table, now);
            sequence.pages.extend((0..needed).map_while(|_| self.pages.take()));
            let place = self.running.partition_point(|s| s.id < sequence.id);
            self.running.insert(place, sequence);
        }
        nothing_to_do
    }

    fn plan_prefill(&self, mut budget: usize) -> Vec<Slice> {
        let mut slices = Vec::new();
        for sequence in self.running.iter().filter(|s| s.phase() == Phase::Prefill) {
            if budget == 0 {
                break;
            }
            let slice = sequence.next(budget);
            budget -= slice.positions.len();
            slices.push(slice);
        }
        slices
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::likeliest::Scores;
    use super::*;
    use crate::llm::request::FinishReason;

    const ROWS: StepRows = StepRows { decode: 4, prefill_alone: 24, prefill_beside: 9 };
    const CONTEXT: usize = 64;

    /// Positions that the pages of a sequence hold, as whoever reads them would find them.
    type Contents = BTreeMap<(u32, usize), (SequenceId, usize)>;

    /// Does what the engine does with a step, on paper. Returns who ended.
    fn run(batch: &mut Batch, written: &mut Contents) -> Vec<SequenceId> {
        let now = Instant::now();
        let work = batch.plan(ROWS, now);
        let rows = |slices: &[Slice]| slices.iter().map(|s| s.positions.len()).sum::<usize>();
        assert!(rows(&work.decode) <= ROWS.decode);
        let prefill_max =
            if work.decode.is_empty() { ROWS.prefill_alone } else { ROWS.prefill_beside };
        assert!(rows(&work.prefill) <= prefill_max);
        let mut ended: Vec<SequenceId> = work.nothing_to_do.iter().map(|s| s.id).collect();
        for slice in work.decode.iter().chain(&work.prefill) {
            let sequence = batch.running_mut(slice.id).unwrap();
            assert!(!slice.positions.is_empty());
            for position in slice.positions.clone() {
                let page = sequence.pages[position / PAGE];
                written.insert((page, position % PAGE), (slice.id, position));
            }
            batch.fed(slice);
            if !slice.selects {
                continue;
            }
            let sequence = batch.running_mut(slice.id).unwrap();
            if sequence.take(Scores::All(&[0.0, 1.0]), None, now).unwrap().unwrap().1.is_some() {
                ended.push(slice.id);
                batch.remove(slice.id).unwrap();
            }
        }
        ended
    }

    /// Every position below what is fed is where the sequence, or one that shares its prompt, put it.
    fn check(batch: &Batch, written: &Contents) {
        for sequence in &batch.running {
            for position in 0..sequence.next(1).positions.start {
                let page = sequence.pages[position / PAGE];
                let (of, at) = written[&(page, position % PAGE)];
                let shared = position / PAGE < sequence.names().len();
                assert!(at == position && (of == sequence.id || shared), "{of:?} {at} {position}");
            }
        }
        let mut tables: Vec<usize> = batch.running.iter().map(|s| s.table).collect();
        tables.extend(&batch.tables);
        tables.sort_unstable();
        assert!(tables.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(batch.running.is_sorted_by_key(|s| s.id));
        assert!(batch.waiting.iter().map(|s| s.id).is_sorted());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]
        #[test]
        fn everybody_is_served_and_every_page_comes_back(
            spare_pages in 0_usize..6,
            orders in prop::collection::vec((0_u8..8, 1_usize..50, 0_usize..20), 1..30),
        ) {
            let mut batch = Batch::new(CONTEXT / PAGE + spare_pages, 4, 100);
            let mut written = Contents::new();
            let (mut open, mut ended) = (Vec::new(), Vec::new());
            for (what, length, most) in orders {
                if what == 0 && !open.is_empty() {
                    let id = open[length % open.len()];
                    prop_assert_eq!(batch.remove(id).is_some(), !ended.contains(&id));
                    open.retain(|o| *o != id);
                    ended.retain(|e| *e != id);
                } else if what < 5 {
                    let request = GenerateRequest {
                        // Two kinds of prompts, so that many begin alike.
                        prompt_ids: (0..length as u32).map(|i| i * (most as u32 % 2)).collect(),
                        max_tokens: most,
                        ..GenerateRequest::default()
                    };
                    open.push(batch.admit(request, CONTEXT - length).unwrap());
                } else {
                    ended.extend(run(&mut batch, &mut written));
                    check(&batch, &written);
                }
            }
            // The longest answer has twenty tokens and a prompt of three chunks.
            for _ in 0..open.len() * 60 {
                ended.extend(run(&mut batch, &mut written));
                check(&batch, &written);
            }
            ended.sort_unstable();
            prop_assert_eq!(ended, open);
            let pages = CONTEXT / PAGE + spare_pages;
            let idle = BatchLoad { pages_free: pages, pages, ..BatchLoad::default() };
            prop_assert_eq!(batch.load(), idle);
            prop_assert_eq!(batch.tables.len(), 4);
        }
    }

    #[test]
    fn a_long_prompt_does_not_stop_the_others() {
        let mut batch = Batch::new(32, 4, 8);
        let request = |length: usize, most| GenerateRequest {
            prompt_ids: vec![1; length],
            max_tokens: most,
            ..GenerateRequest::default()
        };
        let mut written = Contents::new();
        let short = batch.admit(request(3, 30), 61).unwrap();
        run(&mut batch, &mut written);
        batch.admit(request(60, 1), 4).unwrap();
        for _ in 0..6 {
            let work = batch.plan(ROWS, Instant::now());
            assert_eq!(work.decode.iter().map(|s| s.id).collect::<Vec<_>>(), [short]);
            assert!(work.prefill[0].positions.len() <= ROWS.prefill_beside);
            work.prefill.iter().for_each(|slice| batch.fed(slice));
        }
        let gone = batch.remove(short).unwrap().finish(FinishReason::Cancelled, Instant::now());
        assert_eq!(gone.1.ids.len(), 1);
    }
}
