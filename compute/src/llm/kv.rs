//! Who holds which page of the KV cache, which pages several sequences share, and which may go.
//!
//! A page is *free*, *held* by one or more sequences, or *kept*: nobody holds it, but it has a name, so
//! that the next prompt that begins alike finds it; kept pages go in the order in which they were left.
//! A page's name stands for every token from the start of its sequence to its own end: names are
//! chained SHA-256, so that no customer can make his prompt collide with another's.
//!
//! Only full pages of prompts get names. Their contents come from prefill kernels alone, so a shared
//! page holds exactly what the sequence would have computed for itself.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest, Sha256};

use super::params::PAGE;

/// Name of a page: what it and all pages before it hold.
pub(super) type PageName = [u8; 32];

/// Names of the full pages of `ids`, in order.
pub(super) fn page_names(ids: &[u32]) -> Vec<PageName> {
    ids.chunks_exact(PAGE)
        .scan([0; 32], |before: &mut PageName, page| {
            let mut hash = Sha256::new();
            hash.update(*before);
            hash.update(bytemuck::cast_slice::<u32, u8>(page));
            *before = hash.finalize().into();
            Some(*before)
        })
        .collect()
}

#[derive(Clone, Debug, Default)]
struct Page {
    holders: usize,
    name: Option<PageName>,
    /// Key in `kept`, while nobody holds the page.
    left_at: u64,
}

/// The pages of one cache.
pub(super) struct Pages {
    pages: Vec<Page>,
    free: Vec<u32>,
    named: HashMap<PageName, u32>,
    /// Pages that nobody holds but that have a name, in the order in which they were left.
    kept: BTreeMap<u64, u32>,
    clock: u64,
}

impl Pages {
    pub fn new(count: usize) -> Self {
        Self {
            pages: vec![Page::default(); count],
            free: (0..count as u32).rev().collect(),
            named: HashMap::new(),
            kept: BTreeMap::new(),
            clock: 0,
        }
    }

    pub fn total(&self) -> usize {
        self.pages.len()
    }

    /// Pages that [`Self::take`] can give.
    pub fn available(&self) -> usize {
        self.free.len() + self.kept.len()
    }

    /// A page for one holder, if need be one that was kept.
    pub fn take(&mut self) -> Option<u32> {
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                let (_, number) = self.kept.pop_first()?;
                if let Some(name) = self.pages[number as usize].name.take() {
                    self.named.remove(&name);
                }
                number
            }
        };
        self.pages[number as usize].holders = 1;
        Some(number)
    }

    /// Pages at the front of `names` that exist, and how many of them nobody holds.
    pub fn find(&self, names: &[PageName]) -> (usize, usize) {
        let found = names.iter().map_while(|name| self.named.get(name));
        let holders = found.map(|number| self.pages[*number as usize].holders);
        holders.fold((0, 0), |(all, kept), holders| (all + 1, kept + usize::from(holders == 0)))
    }

    /// One more holder for the page of this name.
    pub fn share(&mut self, name: &PageName) -> Option<u32> {
        let number = *self.named.get(name)?;
        let page = &mut self.pages[number as usize];
        if page.holders == 0 {
            self.kept.remove(&page.left_at);
        }
        page.holders += 1;
        Some(number)
    }

    /// Names a page that is full now. If another page has the name already, nothing happens: that one
    /// stays the one to share.
    pub fn name(&mut self, number: u32, name: PageName) {
        let page = &mut self.pages[number as usize];
        if page.name.is_none() && !self.named.contains_key(&name) {
            page.name = Some(name);
            self.named.insert(name, number);
        }
    }

    /// One holder less for each of a sequence's pages. The last of them are the first to go, for they
    /// are of no use without those before them.
    pub fn release(&mut self, numbers: &[u32]) {
        for number in numbers.iter().rev() {
            let page = &mut self.pages[*number as usize];
            page.holders = page.holders.saturating_sub(1);
            if page.holders > 0 {
                continue;
            }
            if page.name.is_some() {
                self.clock += 1;
                page.left_at = self.clock;
                self.kept.insert(self.clock, *number);
            } else {
                self.free.push(*number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_stand_for_everything_before() {
        let ids: Vec<u32> = (0..40).collect();
        let names = page_names(&ids);
        assert_eq!(names.len(), 2);
        assert_eq!(page_names(&ids[..35]), names);
        let mut other = ids.clone();
        other[0] = 7;
        assert!(page_names(&other).iter().zip(&names).all(|(a, b)| a != b));
        other[0] = 0;
        other[39] = 7;
        assert_eq!(page_names(&other), names);
    }

    /// The same rules, kept as plain lists that are searched.
    struct Model {
        holders: Vec<usize>,
        names: Vec<Option<PageName>>,
        kept: Vec<u32>,
    }

    impl Model {
        fn take(&mut self) -> Option<(u32, bool)> {
            let idle = |n: &u32| self.holders[*n as usize] == 0 && !self.kept.contains(n);
            if (0..self.holders.len() as u32).any(|n| idle(&n)) {
                return Some((u32::MAX, true));
            }
            if self.kept.is_empty() {
                return None;
            }
            let number = self.kept.remove(0);
            self.names[number as usize] = None;
            Some((number, false))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn pages_agree_with_plain_lists(
            count in 1_usize..9,
            steps in prop::collection::vec((0_u8..4, 0_u8..8), 0..60),
        ) {
            let mut pages = Pages::new(count);
            let mut model =
                Model { holders: vec![0; count], names: vec![None; count], kept: vec![] };
            // What is held, once per holder.
            let mut held: Vec<u32> = vec![];
            for (what, which) in steps {
                let name = [which; 32];
                match what {
                    0 => match (pages.take(), model.take()) {
                        (None, None) => {}
                        (Some(number), Some((wanted, any_free))) => {
                            prop_assert!(any_free || number == wanted);
                            prop_assert_eq!(model.holders[number as usize], 0);
                            prop_assert!(model.names[number as usize].is_none());
                            model.holders[number as usize] = 1;
                            held.push(number);
                        }
                        (found, wanted) => prop_assert!(false, "{found:?} {wanted:?}"),
                    },
                    1 => {
                        let wanted = model.names.iter().position(|n| *n == Some(name));
                        let found = pages.share(&name);
                        prop_assert_eq!(found, wanted.map(|n| n as u32));
                        if let Some(number) = found {
                            model.kept.retain(|n| *n != number);
                            model.holders[number as usize] += 1;
                            held.push(number);
                        }
                    }
                    2 if !held.is_empty() => {
                        let number = held[usize::from(which) % held.len()];
                        pages.name(number, name);
                        let place = number as usize;
                        if model.names[place].is_none() && !model.names.contains(&Some(name)) {
                            model.names[place] = Some(name);
                        }
                    }
                    3 if !held.is_empty() => {
                        let number = held.swap_remove(usize::from(which) % held.len());
                        pages.release(&[number]);
                        model.holders[number as usize] -= 1;
                        let named = model.names[number as usize].is_some();
                        if model.holders[number as usize] == 0 && named {
                            model.kept.push(number);
                        }
                    }
                    _ => {}
                }
                let idle = model.holders.iter().filter(|h| **h == 0).count();
                prop_assert_eq!(pages.available(), idle);
            }
            held.iter().for_each(|number| pages.release(&[*number]));
            prop_assert_eq!(pages.available(), count);
        }
    }

    #[test]
    fn the_end_of_a_prompt_goes_before_its_beginning() {
        let mut pages = Pages::new(3);
        let names = page_names(&(0..48).collect::<Vec<u32>>());
        let taken: Vec<u32> = names.iter().map(|_| pages.take().unwrap()).collect();
        for (number, name) in taken.iter().zip(&names) {
            pages.name(*number, *name);
        }
        pages.release(&taken);
        assert_eq!(pages.find(&names), (3, 3));
        assert_eq!(pages.take(), Some(taken[2]));
        assert_eq!(pages.find(&names), (2, 2));
        assert_eq!(pages.share(&names[0]), Some(taken[0]));
        assert_eq!(pages.find(&names), (2, 1));
    }
}
