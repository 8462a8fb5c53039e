// How many experts there are, how many of them each row gets, the width of the residual stream, and which layer of a
// card's this is.
struct Route {
    experts: u32,
    used: u32,
    columns: u32,
    layer: u32,
    layers: u32,
    padding_a: u32,
    padding_b: u32,
    padding_c: u32,
}
