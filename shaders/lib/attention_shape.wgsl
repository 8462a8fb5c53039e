// Shapes of one attention layer. Query head h shares the keys and values of KV head h / (heads /
// kv_heads). Caches are [slots, kv_heads] records, a record being a head of a position in the cache's
// format; lib/cache_read_*.wgsl reads four floats of one, `key4` and `value4`, and
// lib/cache_write_*.wgsl files a piece of one, `file_piece`. Queries are [rows, heads * head].
struct Attention {
    heads: u32,
    kv_heads: u32,
    // Floats per head, a multiple of 4, and how many of them turn with the position.
    head: u32,
    rope: u32,
    // 0: pairs (2i, 2i + 1); 1: pairs (i, i + rope / 2).
    half_split: u32,
    // Usually 1 / sqrt(head).
    score_scale: f32,
    // Positions a row sees, its own included; 0: all before it too.
    window: u32,
    // A score s becomes softcap * tanh(s / softcap); 0: stays.
    softcap: f32,
}

@group(0) @binding(1) var<uniform> attention: Attention;

// The first position that a row at `position` sees.
fn first_seen(position: u32) -> u32 {
    let all = attention.window == 0u || position < attention.window;
    return select(position + 1u - attention.window, 0u, all);
}

fn score_of(product: f32) -> f32 {
    let score = product * attention.score_scale;
    if (attention.softcap == 0.0) {
        return score;
    }
    return attention.softcap * tanh(score / attention.softcap);
}
