// What changes from one pass to the next; written once per submission, read by every kernel.
//
// A pass runs `rows` tokens: one or more sequences of `rows_per_sequence` tokens each, all starting
// at `position`. Row r is token `position + r % rows_per_sequence` of sequence r / rows_per_sequence.
struct Step {
    rows: u32,
    rows_per_sequence: u32,
    position: u32,
    // KV slots each sequence owns; slot = sequence * sequence_slots + position of the token.
    sequence_slots: u32,
    // The final norm reads rows select_first + i * select_stride, i < selected.
    select_first: u32,
    select_stride: u32,
    selected: u32,
    // Row length of the attention scores: position + rows_per_sequence.
    kv_length: u32,
}

@group(0) @binding(0) var<uniform> step_now: Step;

fn position_of(row: u32) -> u32 {
    return step_now.position + row % step_now.rows_per_sequence;
}

fn first_slot_of(row: u32) -> u32 {
    return row / step_now.rows_per_sequence * step_now.sequence_slots;
}
