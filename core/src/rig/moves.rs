//! The legal moves of a rig, as data: the table of states in DESIGN section 4, row for row.

use roadbed_protocol::RigState;

/// Where a rig may go from `from`. Running to Running, the hand-over, is no change of state and not listed.
#[must_use]
pub const fn moves(from: RigState) -> &'static [RigState] {
    use RigState::{
        Booting, Curtailed, Draining, Faulted, Idle, Running, Starting, Stopping, Tripped,
    };
    match from {
        Booting => &[Idle, Faulted, Tripped],
        Idle => &[Starting, Curtailed, Faulted, Tripped],
        Starting => &[Running, Stopping, Faulted, Tripped],
        Running => &[Draining, Faulted, Tripped],
        Draining => &[Stopping, Running, Faulted, Tripped],
        Stopping => &[Idle, Faulted, Tripped],
        Curtailed => &[Idle, Faulted, Tripped],
        Faulted => &[Idle, Curtailed, Tripped],
        Tripped => &[Idle],
    }
}

/// True when `from` may go to `to`.
#[must_use]
pub fn is_legal(from: RigState, to: RigState) -> bool {
    moves(from).contains(&to)
}
