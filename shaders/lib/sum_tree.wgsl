// LANES neighbouring invocations share four weight rows and add up in a tree, in shared memory. LANES
// is a power of two that divides WORKGROUP.
override WORKGROUP: u32 = 64u;
override LANES: u32 = 32u;

var<workgroup> partial: array<vec4<f32>, WORKGROUP>;

// The sum over the lanes, in lane 0. All invocations of the workgroup call it together.
fn whole_sum(value: vec4<f32>, local: u32) -> vec4<f32> {
    workgroupBarrier();
    partial[local] = value;
    for (var width = LANES / 2u; width > 0u; width >>= 1u) {
        workgroupBarrier();
        if (local % LANES < width) {
            partial[local] += partial[local + width];
        }
    }
    return partial[local];
}
