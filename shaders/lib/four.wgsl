// The same eight columns of four rows.
struct Four {
    a: Eight,
    b: Eight,
    c: Eight,
    d: Eight,
}

// Eight weights of a row.
fn decode(row: u32, block: u32, part: u32) -> Eight {
    let levels = levels8(row, block, part);
    let scale = scale_of(row, block);
    return Eight(levels.a * scale.x + scale.y, levels.b * scale.x + scale.y);
}
