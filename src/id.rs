//! The small numbers that name things, each of its own type so that none is taken for another.

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident($int:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, zerocopy::FromZeros)]
        pub struct $name(pub $int);

        impl $name {
            /// The number as an index.
            #[inline(always)]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}

ids! {
    /// A NIC port, as the configuration numbers them from 0.
    PortId(u16);
    /// A worker, 0 to `workers - 1`.
    WorkerId(u16);
    /// A virtual service's slot in the snapshot; kept while the service exists under its name.
    ServiceId(u32);
    /// A real server's slot in the snapshot; kept while it exists in its service under its address.
    RealServerId(u32);
    /// A local pool's slot in the snapshot; kept while the pool exists under its name.
    PoolId(u16);
}
