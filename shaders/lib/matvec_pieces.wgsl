// Sums of products of floats over part of a block, for four weight rows.

// One row of x over part of a block: products with the levels, and the sum that offsets multiply.
struct Piece {
    dots: vec4<f32>,
    total: vec4<f32>,
}

// Scales and offsets of a block of four weight rows.
struct Scales {
    scale: vec4<f32>,
    offset: vec4<f32>,
}

fn product(levels: Eight, low: vec4<f32>, high: vec4<f32>) -> f32 {
    return dot(levels.a, low) + dot(levels.b, high);
}

// Adds eight columns, `low` and `high` being x there.
fn more(piece: Piece, w: Four, low: vec4<f32>, high: vec4<f32>) -> Piece {
    let dots = vec4<f32>(
        product(w.a, low, high),
        product(w.b, low, high),
        product(w.c, low, high),
        product(w.d, low, high),
    );
    return Piece(piece.dots + dots, piece.total + (low + high));
}

fn scales_of(rows: vec4<u32>, block: u32) -> Scales {
    let a = scale_of(rows.x, block);
    let b = scale_of(rows.y, block);
    let c = scale_of(rows.z, block);
    let d = scale_of(rows.w, block);
    return Scales(vec4<f32>(a.x, b.x, c.x, d.x), vec4<f32>(a.y, b.y, c.y, d.y));
}

fn scaled(piece: Piece, scales: Scales) -> vec4<f32> {
    let total = piece.total.x + piece.total.y + piece.total.z + piece.total.w;
    return scales.scale * piece.dots + scales.offset * total;
}
