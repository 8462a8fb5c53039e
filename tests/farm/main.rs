//! Tests of the whole farm and of what it is tested with.

mod asic;
mod mining_pool;
mod network_node;
mod stand_ins;
