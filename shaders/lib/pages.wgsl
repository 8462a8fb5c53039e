// Page tables: which page of the caches holds PAGE positions of a sequence, one word a page.
const PAGE: u32 = 16u;

@group(0) @binding(3) var<storage, read> pages: array<u32>;

// Where the caches hold a position of the row's sequence.
fn slot_of(row: u32, position: u32) -> u32 {
    return pages[rows[row].pages_at + position / PAGE] * PAGE + position % PAGE;
}
