//! How much of everything a configuration may have. Past these a document is refused; tables that are sized at start
//! are sized for them or for what the configuration says.

/// Workers; as many as the longest redirection table has entries.
pub const WORKERS: i64 = 512;
/// NIC ports.
pub const PORTS: usize = 64;
/// Addresses of one port.
pub const PORT_ADDRESSES: usize = 64;
/// Static routes.
pub const ROUTES: usize = 65_536;
/// Local pools.
pub const POOLS: usize = 4096;
/// Addresses of one entry of a pool, and of one pool.
pub const POOL_ADDRESSES: usize = 4096;
/// Virtual services, removed ones whose sessions still live included.
pub const SERVICES: usize = 65_536;
const _: () =
    assert!(SERVICES - 1 <= u16::MAX as usize, "sessions remember a service's slot in sixteen bits");
/// Listeners of one service.
pub const LISTENERS: usize = 1024;
/// Prefixes of fronts that one service trusts; each is compared with the source of a new session.
pub const FRONTS: usize = 64;
/// Real servers of one service.
pub const REAL_SERVERS_OF_SERVICE: usize = 4096;
/// Real servers of all services, removed ones whose sessions still live included.
pub const REAL_SERVERS: usize = 1 << 20;
/// Fewest sessions.
pub const SESSIONS_MIN: i64 = 1024;
/// Most sessions.
pub const SESSIONS_MAX: i64 = 1 << 30;
