//! rvmm
fn main() {}
