//! Letters between control and one worker: control asks, the worker answers between two bursts.
//!
//! ```text
//!  control                         ArrayQueue (bounded)                       worker
//!  ControlEnd::send(Request)  ──── letters ───────────────────►  WorkerEnd::next() -> Letter
//!  ControlEnd::take(Ticket)   ◄─── replies ────────────────────  WorkerEnd::answer(Ticket, Answer)
//! ```
//!
//! * Plain data only: no reference into a worker's shard ever leaves it.
//! * The worker never allocates or frees for a letter: control sends the empty page along with the question and the
//!   worker fills it; a replaced snapshot travels back so that control drops the last reference.
//! * The worker takes at most one letter per turn of its loop and scans at most [`SCAN_MAX`] entries for it, so a
//!   dump of a million sessions costs each burst a few microseconds. A page says where to go on.
//! * At most [`OUTSTANDING_MAX`] letters are under way per worker, hence [`WorkerEnd::answer`] always finds room.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_queue::ArrayQueue;

use super::records::{
    ConflictRecord, LeaseRecord, LocalAddressRecord, NeighbourRecord, RealServerRecord, SessionFilter,
    SessionRecord,
};
use crate::id::PortId;
use crate::service::snapshot::Snapshot;

/// Letters that may be under way to one worker.
pub const OUTSTANDING_MAX: usize = 16;

/// Of [`OUTSTANDING_MAX`], how many places only a snapshot may take, so that questions never delay a change.
const SNAPSHOT_PLACES: usize = 2;

/// Table entries a worker looks at for one letter before it answers with what it has.
pub const SCAN_MAX: u32 = 2048;

/// What control asks of a worker.
pub enum Request {
    /// Work by this snapshot from the next burst on; answered by [`Answer::Applied`].
    Apply(Arc<Snapshot>),
    /// Sessions that the filter lets through, from the page's position on.
    Sessions(SessionFilter, Page<SessionRecord>),
    /// The neighbour table from the page's position on.
    Neighbours(Page<NeighbourRecord>),
    /// Leases held, one record per destination.
    Leases(Page<LeaseRecord>),
    /// Leases held, one record per local address.
    LocalAddresses(Page<LocalAddressRecord>),
    /// A port's link came up again: its addresses shall be announced. Answered by [`Answer::Noted`].
    LinkUp(PortId),
    /// Counters of the real servers, by ascending id.
    RealServers(Page<RealServerRecord>),
    /// Own addresses that other hosts claim.
    Conflicts(Page<ConflictRecord>),
}

/// What a worker answers; each kind belongs to the request of the same name.
pub enum Answer {
    /// The new snapshot is in use; here is the one it replaced.
    Applied(Arc<Snapshot>),
    /// see [`Request::Sessions`]
    Sessions(Page<SessionRecord>),
    /// see [`Request::Neighbours`]
    Neighbours(Page<NeighbourRecord>),
    /// see [`Request::Leases`]
    Leases(Page<LeaseRecord>),
    /// see [`Request::LocalAddresses`]
    LocalAddresses(Page<LocalAddressRecord>),
    /// It will be done.
    Noted,
    /// see [`Request::RealServers`]
    RealServers(Page<RealServerRecord>),
    /// see [`Request::Conflicts`]
    Conflicts(Page<ConflictRecord>),
}

/// A bounded part of a table. Control makes it, the worker fills it.
#[derive(Clone, Debug)]
pub struct Page<T> {
    records: Vec<T>,
    room: usize,
    from: u32,
    next: Option<u32>,
}

impl<T> Page<T> {
    /// An empty page for up to `room` records, to be filled from table position `from` on.
    pub fn new(from: u32, room: usize) -> Self {
        Page { records: Vec::with_capacity(room), room, from, next: None }
    }

    /// The table position to start at; 0 is the beginning.
    pub fn from(&self) -> u32 {
        self.from
    }

    /// Whether no further record fits.
    pub fn is_full(&self) -> bool {
        self.records.len() >= self.room
    }

    /// Adds a record, without allocating. A full page ignores it: ask [`Page::is_full`] first.
    pub fn push(&mut self, record: T) {
        debug_assert!(!self.is_full(), "push to a full page");
        if !self.is_full() {
            self.records.push(record);
        }
    }

    /// Says that entries from position `next` on were not looked at; without it the table ended here.
    pub fn continue_at(&mut self, next: u32) {
        self.next = Some(next);
    }

    /// Where the next page starts; `None` after the table's end.
    pub fn next(&self) -> Option<u32> {
        self.next
    }

    /// What was found.
    pub fn records(&self) -> &[T] {
        &self.records
    }

    /// What was found, owned.
    pub fn into_records(self) -> Vec<T> {
        self.records
    }

    /// Fills the page from a table of `len` positions: at most [`SCAN_MAX`] of them are looked at by `read`, which
    /// gives a record or `None` for an entry that is free or not asked for.
    pub fn fill(&mut self, len: u32, mut read: impl FnMut(u32) -> Option<T>) {
        let end = len.min(self.from.saturating_add(SCAN_MAX));
        for position in self.from..end {
            if self.is_full() {
                self.continue_at(position);
                return;
            }
            if let Some(record) = read(position) {
                self.push(record);
            }
        }
        if end < len {
            self.continue_at(end);
        }
    }
}

/// Which letter an answer belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ticket(u64);

/// A request on its way.
pub struct Letter {
    /// names it in the answer
    pub ticket: Ticket,
    /// what is asked
    pub request: Request,
}

type Letters = Arc<ArrayQueue<Letter>>;
type Replies = Arc<ArrayQueue<(Ticket, Answer)>>;

/// Both ends of a new mailbox.
pub fn mailbox() -> (ControlEnd, WorkerEnd) {
    let letters: Letters = Arc::new(ArrayQueue::new(OUTSTANDING_MAX));
    let replies: Replies = Arc::new(ArrayQueue::new(OUTSTANDING_MAX));
    let worker = WorkerEnd { letters: letters.clone(), replies: replies.clone() };
    (ControlEnd { letters, replies, desk: Mutex::default() }, worker)
}

/// The worker's end; exactly one worker owns it.
pub struct WorkerEnd {
    letters: Letters,
    replies: Replies,
}

impl WorkerEnd {
    /// The next letter, if one waits. Two loads and a compare when none does: `pop` alone would put a fence into every
    /// turn of the loop, and the stores of a whole burst would have to wait for each other.
    #[inline]
    pub fn next(&self) -> Option<Letter> {
        if self.letters.is_empty() { None } else { self.letters.pop() }
    }

    /// Answers a letter. Every letter must be answered once.
    pub fn answer(&self, ticket: Ticket, answer: Answer) {
        let delivered = self.replies.push((ticket, answer)).is_ok();
        debug_assert!(delivered, "more answers than letters");
    }
}

/// Control's end. Several tasks may use it at a time.
pub struct ControlEnd {
    letters: Letters,
    replies: Replies,
    desk: Mutex<Desk>,
}

/// What control knows of the letters under way.
#[derive(Default)]
struct Desk {
    next_ticket: u64,
    outstanding: usize,
    arrived: HashMap<Ticket, Answer>,
    abandoned: HashSet<Ticket>,
}

impl ControlEnd {
    /// Sends a letter; back if too many are under way already.
    pub fn send(&self, request: Request) -> Result<Ticket, Request> {
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        self.collect(&mut desk);
        let reserved = if matches!(request, Request::Apply(_)) { 0 } else { SNAPSHOT_PLACES };
        if desk.outstanding + reserved >= OUTSTANDING_MAX {
            return Err(request);
        }
        let ticket = Ticket(desk.next_ticket);
        self.letters.push(Letter { ticket, request }).map_err(|letter| letter.request)?;
        desk.next_ticket += 1;
        desk.outstanding += 1;
        Ok(ticket)
    }

    /// Whether a snapshot could be sent now. False only if the worker has not taken the ones before.
    pub fn has_room_for_snapshot(&self) -> bool {
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        self.collect(&mut desk);
        desk.outstanding < OUTSTANDING_MAX
    }

    /// The answer to a letter, once it is there.
    pub fn take(&self, ticket: Ticket) -> Option<Answer> {
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        self.collect(&mut desk);
        desk.arrived.remove(&ticket)
    }

    /// Gives up waiting: the answer is dropped when it comes.
    pub fn abandon(&self, ticket: Ticket) {
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        self.collect(&mut desk);
        if desk.arrived.remove(&ticket).is_none() {
            desk.abandoned.insert(ticket);
        }
    }

    fn collect(&self, desk: &mut Desk) {
        while let Some((ticket, answer)) = self.replies.pop() {
            desk.outstanding -= 1;
            if !desk.abandoned.remove(&ticket) {
                desk.arrived.insert(ticket, answer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbours() -> Request {
        Request::Neighbours(Page::new(0, 1))
    }

    #[test]
    fn answers_reach_whoever_asked_in_any_order() {
        let (control, worker) = mailbox();
        let first = control.send(neighbours()).ok().unwrap();
        let second = control.send(Request::Leases(Page::new(7, 1))).ok().unwrap();
        assert!(control.take(first).is_none());
        for _ in 0..2 {
            let letter = worker.next().unwrap();
            let answer = match letter.request {
                Request::Neighbours(page) => Answer::Neighbours(page),
                Request::Leases(page) => Answer::Leases(page),
                _ => unreachable!(),
            };
            worker.answer(letter.ticket, answer);
        }
        assert!(matches!(control.take(second), Some(Answer::Leases(page)) if page.from() == 7));
        assert!(matches!(control.take(first), Some(Answer::Neighbours(_))));
        assert!(control.take(first).is_none());
    }

    #[test]
    fn letters_under_way_are_bounded_and_abandoned_answers_free_their_place() {
        let (control, worker) = mailbox();
        let room = OUTSTANDING_MAX - SNAPSHOT_PLACES;
        let tickets: Vec<_> = (0..room).map(|_| control.send(neighbours()).ok().unwrap()).collect();
        assert!(control.send(neighbours()).is_err());
        assert!(control.has_room_for_snapshot(), "questions leave room for a change");
        // Taken by the worker but not answered: its place in the reply queue stays reserved.
        let letter = worker.next().unwrap();
        assert!(control.send(neighbours()).is_err());
        control.abandon(tickets[0]);
        worker.answer(letter.ticket, Answer::Neighbours(Page::new(0, 0)));
        assert!(control.send(neighbours()).is_ok());
        assert!(control.take(tickets[0]).is_none());
        assert!(control.desk.lock().unwrap().arrived.is_empty());
        assert!(control.desk.lock().unwrap().abandoned.is_empty());
    }

    #[test]
    fn a_page_covers_the_table_once_whatever_its_size() {
        let len = 3 * SCAN_MAX + 5;
        for room in [1, 7, 4096] {
            let (mut from, mut seen) = (0, Vec::new());
            loop {
                let mut page = Page::new(from, room);
                // every third entry is in use
                page.fill(len, |position| (position % 3 == 0).then_some(position));
                assert!(page.records().len() <= room);
                let next = page.next();
                seen.extend(page.into_records());
                let Some(next) = next else { break };
                assert!(next > from || room == 0);
                from = next;
            }
            assert_eq!(seen, (0..len).step_by(3).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_page_never_grows() {
        let mut page = Page::new(0, 4);
        let before = page.records.capacity();
        page.fill(100, Some);
        assert_eq!((page.records().len(), page.next()), (4, Some(4)));
        assert_eq!(page.records.capacity(), before);
    }
}
