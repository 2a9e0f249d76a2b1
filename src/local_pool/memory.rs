//! What leases need of memory: the one place that counts it.

use super::book::{Book, summary_len};
use super::destination::Destination;
use super::rest::{Rest, resting_max};
use crate::chain::Chains;

/// An empty vector that never grows beyond `len`; `None` if there is no memory for it. Its pages are touched with use.
pub(super) fn room_for<T>(len: usize) -> Option<Vec<T>> {
    let mut room = Vec::new();
    room.try_reserve_exact(len).ok()?;
    Some(room)
}

/// Bits of all workers' books of one (LIP, protocol, RIP, rport) together: one per L4 port.
const BOOK_BITS: usize = 1 << 16;

/// Bytes of one worker's leases, for an even share of the ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseMemory {
    /// of a book in use
    pub book: u64,
    /// of a destination in use
    pub destination: u64,
    /// whatever is in use
    pub fixed: u64,
}

impl LeaseMemory {
    /// One of `workers` workers.
    pub const fn of_workers(workers: usize) -> LeaseMemory {
        let words = BOOK_BITS.div_ceil(workers).div_ceil(64);
        LeaseMemory {
            book: ((words + summary_len(words)) * size_of::<u64>() + size_of::<Book>()) as u64,
            destination: size_of::<Destination>() as u64,
            fixed: (resting_max(workers) * size_of::<Rest>()) as u64,
        }
    }

    /// So many books and destinations, with their indexes.
    pub const fn bytes(&self, books: u64, destinations: u64) -> u64 {
        let indexes = Chains::bytes_for(books) + Chains::bytes_for(destinations);
        self.fixed + books * self.book + destinations * self.destination + indexes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workers_books_together_have_one_bit_per_port() {
        let alone = LeaseMemory::of_workers(1);
        assert_eq!(alone.book, 8192 + 16 * 8 + 128);
        let eight = LeaseMemory::of_workers(8);
        assert_eq!(eight.book, 1024 + 2 * 8 + 128);
        assert_eq!(alone.bytes(4, 3), alone.fixed + 4 * alone.book + 3 * 64 + 16 + 16);
    }
}
