// One nonce an invocation.

alias U = u32;
const LANES: u32 = 1u;

fn from_first(first: u32) -> U { return first; }

fn report(first: u32, left: U) {
    if left == 0u { keep(first); }
}
