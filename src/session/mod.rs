//! Sessions: their memory, how they are found, how they age, the TCP states.
//!
//! One table and one timer wheel belong to one worker and to nobody else. Capacity is fixed at start; nothing
//! here allocates later.
//!
//! | file | what |
//! |---|---|
//! | `entry` | a session's cache lines: hot, cold; what a front has named |
//! | `key` | its two keys and their keyed hash |
//! | `index` | buckets of tags, from hash to session |
//! | `trunk` | what sessions with an IPv6 side share |
//! | [`table`] | the table: staged look-up of bursts, insert, remove, listing |
//! | [`wheel`] | timers |
//! | [`tcp_state`] | the state machine of IPVS |
//! | `timeouts` | how long a session lives without packets |
//! | [`sequence`] | initial sequence numbers and timestamps toward the real server |

mod entry;
mod index;
mod key;
pub mod sequence;
pub mod table;
pub mod tcp_state;
mod timeouts;
mod trunk;
pub mod wheel;

pub use entry::{Cold, Direction, Flags, HeaderOnItsWay, Hot, Named, ProxyFacts, SessionIndex};
pub use key::{KeyHash, Keys};
pub use table::{Candidate, SessionTable, TableConfig, TableError, TableFull, TableMemory};
pub use tcp_state::State;
pub use timeouts::Timeouts;
