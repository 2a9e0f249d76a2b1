//! fullnatd
fn main() {}
