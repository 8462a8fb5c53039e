//! What the farm is tested with: stand-ins for every outside system, and a simulator of a whole farm.
//!
//! A *stand-in* speaks another party's wire as that party's documents and recordings show it, and says in its head where it
//! departs from it and how it misbehaves on purpose. Nothing here imports the agent or the controller: they meet over
//! sockets only, so that a stand-in cannot share their mistakes.

pub mod asic;
pub mod clock;
pub mod config;
pub mod contract;
pub mod customer;
pub mod gonka;
pub mod network_node;
pub mod pool;
pub mod sim;
pub mod standins;
pub mod status;
pub mod stratum2;
pub mod tls_front;
