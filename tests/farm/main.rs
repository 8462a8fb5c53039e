//! Tests of the whole farm and of what it is tested with.
//!
//! Every module says `cfg(test)` although nothing else is ever built here: by that mark clippy knows test code, helper functions
//! included.

#[cfg(test)]
mod asic;
#[cfg(test)]
mod golden_plans;
#[cfg(test)]
mod gonka;
#[cfg(test)]
mod mining_pool;
#[cfg(test)]
mod network_node;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod stand_ins;
