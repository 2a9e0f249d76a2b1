//! fullnatctl
fn main() {}
