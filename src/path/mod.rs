//! The packet's journey.
pub mod drop_reason;
pub mod packet;
pub mod neighbour {
    //! Neighbours.
    use crate::id::PortId;
    use crate::wire::Address;
    /// What one worker learned about a neighbour and tells the others.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct NeighbourFact {
        /// the port it is reached through
        pub port: PortId,
        /// its address
        pub address: Address,
        /// its MAC address
        pub mac: [u8; 6],
    }
}
