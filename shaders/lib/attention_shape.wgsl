// Shapes of one attention layer. Query head h shares the keys and values of KV head h / (heads /
// kv_heads). Caches are [slots, kv_heads * head], queries [rows, heads * head].
struct Attention {
    heads: u32,
    kv_heads: u32,
    // Floats per head, a multiple of 4, and how many of them turn with the position.
    head: u32,
    rope: u32,
    // 0: pairs (2i, 2i + 1); 1: pairs (i, i + rope / 2).
    half_split: u32,
    // 1 / sqrt(head).
    score_scale: f32,
    padding_a: u32,
    padding_b: u32,
}

@group(0) @binding(1) var<uniform> attention: Attention;
