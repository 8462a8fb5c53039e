//! Tests of the machines from outside.

mod rig_behaviour;
mod rig_fixture;
mod rig_properties;
mod rig_transitions;
