//! Tests of the machines from outside.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a fixture that fails should fail its test")]

mod farm_properties;
mod plan_fixture;
mod plan_properties;
mod rig_behaviour;
mod rig_fixture;
mod rig_properties;
mod rig_transitions;
