// How many experts there are, how many of them each row gets, and the width of the residual stream.
struct Route {
    experts: u32,
    used: u32,
    columns: u32,
    padding: u32,
}
