// Four nonces an invocation, for devices with wide registers per lane.

alias U = vec4<u32>;
const LANES: u32 = 4u;

fn from_first(first: u32) -> U { return vec4<u32>(first, first + 1u, first + 2u, first + 3u); }

fn report(first: u32, left: U) {
    if left.x == 0u { keep(first); }
    if left.y == 0u { keep(first + 1u); }
    if left.z == 0u { keep(first + 2u); }
    if left.w == 0u { keep(first + 3u); }
}
