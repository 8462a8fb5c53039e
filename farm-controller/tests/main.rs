//! The controller against the outside: one test binary, one module a subject.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod broker;
mod coins;
mod controller;
mod gateway;
mod gonka;
mod hashprice;
mod profiles;
