//! Doubly linked rings of books, linked through the books themselves.
//!
//! A book hangs in at most one ring of each [`Kind`]; the rings of a destination hold its books, the idle ring those
//! without leases. Everything here is O(1).

use super::NONE;
use super::book::Book;

/// The rings a book can hang in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(super) enum Kind {
    /// the destination's books with a free port
    Open = 0,
    /// the destination's books with sessions whose lease may be taken over
    Reclaim = 1,
    /// all the destination's books
    Attached = 2,
    /// books of all destinations that no lease is in, longest idle first
    Idle = 3,
}

/// Number of kinds.
pub(super) const KINDS: usize = 4;

/// A book's neighbours in one ring; `next` is [`NONE`] while it hangs in none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    next: u32,
    prev: u32,
}

impl Links {
    /// In no ring.
    pub(super) const LOOSE: Links = Links { next: NONE, prev: NONE };
}

/// A ring, named by its first book.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ring(u32);

impl Ring {
    pub(super) const EMPTY: Ring = Ring(NONE);

    /// The first book.
    #[inline(always)]
    pub(super) fn first(self) -> Option<u32> {
        (self.0 != NONE).then_some(self.0)
    }

    /// The book behind `id`; `id` itself if it is alone.
    #[inline(always)]
    pub(super) fn after(books: &[Book], kind: Kind, id: u32) -> u32 {
        books[id as usize].links[kind as usize].next
    }

    /// Whether `id` hangs in a ring of this kind.
    #[inline(always)]
    pub(super) fn holds(books: &[Book], kind: Kind, id: u32) -> bool {
        books[id as usize].links[kind as usize].next != NONE
    }

    /// The second book becomes the first.
    #[inline(always)]
    pub(super) fn rotate(&mut self, books: &[Book], kind: Kind) {
        if self.0 != NONE {
            self.0 = Ring::after(books, kind, self.0);
        }
    }

    /// Hangs a loose book in as the last.
    pub(super) fn push(&mut self, books: &mut [Book], kind: Kind, id: u32) {
        debug_assert!(!Ring::holds(books, kind, id));
        let at = kind as usize;
        let Some(first) = self.first() else {
            books[id as usize].links[at] = Links { next: id, prev: id };
            self.0 = id;
            return;
        };
        let last = books[first as usize].links[at].prev;
        books[id as usize].links[at] = Links { next: first, prev: last };
        books[last as usize].links[at].next = id;
        books[first as usize].links[at].prev = id;
    }

    /// Hangs a loose book in as the first.
    pub(super) fn push_first(&mut self, books: &mut [Book], kind: Kind, id: u32) {
        self.push(books, kind, id);
        self.0 = id;
    }

    /// Takes a book out; nothing happens if it hangs in no ring of this kind.
    pub(super) fn remove(&mut self, books: &mut [Book], kind: Kind, id: u32) {
        let at = kind as usize;
        let Links { next, prev } = books[id as usize].links[at];
        if next == NONE {
            return;
        }
        books[id as usize].links[at] = Links::LOOSE;
        if next == id {
            self.0 = NONE;
            return;
        }
        books[prev as usize].links[at].next = next;
        books[next as usize].links[at].prev = prev;
        if self.0 == id {
            self.0 = next;
        }
    }

    /// The books of the ring, first to last.
    pub(super) fn iter(self, books: &[Book], kind: Kind) -> impl Iterator<Item = u32> {
        std::iter::successors(self.first(), move |&id| {
            let next = Ring::after(books, kind, id);
            (next != self.0).then_some(next)
        })
    }
}
