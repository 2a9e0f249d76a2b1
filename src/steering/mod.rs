//! Which worker is the home of a packet.

/// Toeplitz key and redirection table: the one function that defines a flow's home.
#[derive(Clone, Debug, Default)]
pub struct Steering {}
