// Two nonces an invocation, for devices whose registers or schedulers like pairs.

alias U = vec2<u32>;
const LANES: u32 = 2u;

fn from_first(first: u32) -> U { return vec2<u32>(first, first + 1u); }

fn report(first: u32, left: U) {
    if left.x == 0u { keep(first); }
    if left.y == 0u { keep(first + 1u); }
}
