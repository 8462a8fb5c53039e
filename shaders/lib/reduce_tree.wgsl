// A row per workgroup: its invocations share the row and add up in a tree. For GPUs.
override WORKGROUP: u32 = 64u;
override LANES: u32 = 64u;

var<workgroup> tree: array<f32, WORKGROUP>;

fn row_of(group: vec3<u32>, groups: vec3<u32>, local: u32) -> u32 {
    return group.x + group.y * groups.x;
}

fn lane_of(local: u32) -> u32 {
    return local;
}

fn sum_over_row(value: f32, local: u32) -> f32 {
    workgroupBarrier();
    tree[local] = value;
    for (var width = WORKGROUP / 2u; width > 0u; width >>= 1u) {
        workgroupBarrier();
        if (local < width) {
            tree[local] += tree[local + width];
        }
    }
    workgroupBarrier();
    return tree[0];
}
