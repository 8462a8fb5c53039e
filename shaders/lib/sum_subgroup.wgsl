// LANES neighbouring invocations of one subgroup share four weight rows and add up by exchanging
// registers: no shared memory, no barrier. LANES is a power of two, at most the subgroup's size.
// Subgroups are taken to be neighbours in order, which the tuner's check would show to be wrong.
override WORKGROUP: u32 = 64u;
override LANES: u32 = 8u;

// The sum over the lanes, in every lane.
fn whole_sum(value: vec4<f32>, local: u32) -> vec4<f32> {
    var sum = value;
    for (var distance = LANES / 2u; distance > 0u; distance >>= 1u) {
        sum += subgroupShuffleXor(sum, distance);
    }
    return sum;
}
