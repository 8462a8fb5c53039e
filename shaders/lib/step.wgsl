// What changes from one pass to the next; written once per submission, read by every kernel.
//
// A pass runs `rows` tokens, of one sequence or of many. What differs from row to row is in
// lib/rows.wgsl.
struct Step {
    rows: u32,
    // Rows the final norm and the head read, listed after the rows (lib/rows.wgsl).
    selected: u32,
    // Row length of the attention scores: one more than the largest position of the pass.
    kv_length: u32,
    // 1 where the experts of every row are given, not chosen.
    forced: u32,
}

@group(0) @binding(0) var<uniform> step_now: Step;
