// What differs from row to row of a pass: the position of its token in its sequence, and where the
// sequence's page table starts (lib/pages.wgsl). After the rows come the selected ones, by number.
struct Row {
    position: u32,
    pages_at: u32,
}

@group(0) @binding(2) var<storage, read> rows: array<Row>;

fn position_of(row: u32) -> u32 {
    return rows[row].position;
}

// The row that entry i of the selection names.
fn selected_row(i: u32) -> u32 {
    return rows[step_now.rows + i].position;
}
