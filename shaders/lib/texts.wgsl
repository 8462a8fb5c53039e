// Several texts of one pass, packed one after the other without padding: for every row, and after the
// rows for every text, where the text begins and how many rows it has.
struct Text {
    first: u32,
    count: u32,
}

@group(0) @binding(2) var<storage, read> texts: array<Text>;

// The text that a row belongs to.
fn text_of(row: u32) -> Text {
    return texts[row];
}

// Text number i of the pass.
fn text_at(i: u32) -> Text {
    return texts[step_now.rows + i];
}
