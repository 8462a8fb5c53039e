// What the kernels of experts share: whose matrix a weight row is in, and where results go.
struct Experts {
    expert_rows: u32,
    used: u32,
    // 1: every slot of a row has an x of its own; 0: all slots have the row's.
    gathering: u32,
    padding: u32,
}

@group(0) @binding(4) var<uniform> experts: Experts;

fn in_shard(whole_row: u32) -> bool {
    return whole_row >= matrix.row_first && whole_row < matrix.row_first + matrix.rows;
}

// Where in x the row of a pair begins.
fn x_of(pair: u32) -> u32 {
    return select(pair / experts.used, pair, experts.gathering == 1u) * (matrix.columns >> 2u);
}

// Where the result of a pair and row n of its expert goes.
fn out_of(pair: u32, n: u32) -> u32 {
    let row = matrix.out_first + (pair % experts.used) * experts.expert_rows;
    return (pair / experts.used) * matrix.out_stride + row + n;
}
