//! Taking over: finished sessions whose lease a new session may have when no port is free.
//!
//! A session that both sides have closed keeps its entry, and its lease, until its time-out; that is what lets late
//! segments through. When a real server's ports run out, the one that finished first gives way. Each book chains its
//! finished sessions, oldest first, through the sessions themselves; each destination rings its books that have any.

use super::ring::{Kind, Ring};
use super::{LocalPools, NONE};
use crate::id::PoolId;
use crate::session::SessionIndex;
use crate::wire::{Address, Protocol};

/// Access to `Cold::reclaim_next` and `Cold::reclaim_prev` of a session, which these lists own: both 0 in a session
/// that is in none.
pub trait ReclaimLinks {
    /// The session's (`reclaim_next`, `reclaim_prev`).
    fn get(&self, session: SessionIndex) -> (u32, u32);
    /// Sets the session's (`reclaim_next`, `reclaim_prev`).
    fn set(&mut self, session: SessionIndex, next: u32, prev: u32);
}

/// The link at either end of a list; other links are a session's index plus 1.
const END: u32 = u32::MAX;

fn link_to(session: u32) -> u32 {
    if session == NONE { END } else { session + 1 }
}

fn session_at(link: u32) -> u32 {
    if link == END { NONE } else { link - 1 }
}

impl LocalPools {
    /// Lets a finished session's lease be taken over. Nothing happens if it already may.
    pub fn offer(&mut self, lease_slot: u32, session: SessionIndex, links: &mut impl ReclaimLinks) {
        if links.get(session) != (0, 0) {
            return;
        }
        let book = &mut self.books.records[lease_slot as usize];
        let last = std::mem::replace(&mut book.reclaim_last, session.0);
        links.set(session, END, link_to(last));
        if last != NONE {
            let (_, prev) = links.get(SessionIndex(last));
            links.set(SessionIndex(last), link_to(session.0), prev);
            return;
        }
        book.reclaim_first = session.0;
        let owner = book.destination;
        if owner != NONE {
            let record = &mut self.destinations.records[owner as usize];
            record.reclaim.push(&mut self.books.records, Kind::Reclaim, lease_slot);
        }
    }

    /// Takes a session's offer back, as must be done before its lease is given back or its entry goes. Nothing
    /// happens if it made none.
    pub fn withdraw(&mut self, lease_slot: u32, session: SessionIndex, links: &mut impl ReclaimLinks) {
        let (next, prev) = links.get(session);
        if (next, prev) == (0, 0) {
            return;
        }
        links.set(session, 0, 0);
        let book = &mut self.books.records[lease_slot as usize];
        match session_at(prev) {
            NONE => book.reclaim_first = session_at(next),
            before => {
                let (_, prev) = links.get(SessionIndex(before));
                links.set(SessionIndex(before), next, prev);
            }
        }
        match session_at(next) {
            NONE => book.reclaim_last = session_at(prev),
            after => {
                let (next, _) = links.get(SessionIndex(after));
                links.set(SessionIndex(after), next, prev);
            }
        }
        let (empty, owner) = (book.reclaim_first == NONE, book.destination);
        if empty && owner != NONE {
            let record = &mut self.destinations.records[owner as usize];
            record.reclaim.remove(&mut self.books.records, Kind::Reclaim, lease_slot);
        }
    }

    /// A finished session that may give its lease to a new one toward the same RIP:rport, the oldest of one of the
    /// pool's LIPs. It is still offered: the caller withdraws it, ends it, releases its lease and leases again.
    pub fn reclaim_candidate(
        &mut self,
        pool: PoolId,
        protocol: Protocol,
        rip: &Address,
        rport: u16,
    ) -> Option<SessionIndex> {
        let id = self.destinations.find(pool, protocol, rip, rport)?;
        let record = &mut self.destinations.records[id as usize];
        let book = record.reclaim.first()?;
        record.reclaim.rotate(&self.books.records, Kind::Reclaim);
        debug_assert!(Ring::holds(&self.books.records, Kind::Reclaim, book));
        Some(SessionIndex(self.books.records[book as usize].reclaim_first))
    }
}
