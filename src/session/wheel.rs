//! Timers of sessions: one wheel per worker, one timer per session, kept in lists through the sessions' cold
//! lines.
//!
//! ```text
//!           cursor            now
//!             v                v
//! ...|  done  | due  | due  |  |      |      |   8192 slots of 160 ms: 21 minutes 50 s, then round again
//!               |              each slot: four list heads, Cold::timer_next / timer_prev
//!               |-> session <-> session <-> session
//!               `-> session <-> session ...
//! ```
//!
//! Timers are lazy: a packet stamps its session's hot line and leaves the wheel alone. When a slot has
//! passed, each session in it is shown to the caller, who looks at the stamp and either ends the session or
//! says when to look again. So a time-out further away than the wheel is long needs no second wheel: the
//! session is looked at once per turn. A session is shown no earlier than asked for, unless that is more than
//! a turn ahead of the cursor, and no later than 320 ms after, plus the time between two calls of
//! [`TimerWheel::advance`]. What shortens a time-out (a FIN, a RST) must say so:
//! [`TimerWheel::reschedule_if_sooner`].
//!
//! Owned by the worker that owns the table. Each operation is constant time; `advance` does a bounded piece
//! of work and takes up where it left off. 128 KiB, nothing allocated later.
//!
//! Which session comes next in a list stands in the one before, so a single list would be walked at the pace of memory. A
//! slot's sessions hang in four, by their index, which are walked in turn.

use super::entry::SessionIndex;
use super::table::SessionTable;
use crate::clock::Tick;

/// Ticks of one slot: 160 ms.
const SLOT_TICKS: u32 = 16;
const SLOTS: u32 = 8192;
/// Lists of one slot.
const LISTS: usize = 4;
/// The end of a list.
const NIL: u32 = u32::MAX;

const _: () =
    assert!(SLOTS.is_power_of_two() && SLOTS < u16::MAX as u32, "a slot and 'none' fit Cold::timer_slot");

/// What is to become of a session whose timer has come round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// It lives: look again at this time.
    Keep(Tick),
    /// It has ended: the callback has removed it from the table, or it stays there without a timer.
    Expired,
}

/// The timers of one worker's sessions.
#[derive(Debug)]
pub struct TimerWheel {
    heads: Box<[[u32; LISTS]]>,
    /// the list whose turn it is
    list: usize,
    /// the beginning of the slot that is emptied next, a multiple of [`SLOT_TICKS`]
    cursor: Tick,
    len: u32,
}

impl TimerWheel {
    /// An empty wheel that begins to turn at `now`.
    pub fn new(now: Tick) -> Self {
        let heads = vec![[NIL; LISTS]; SLOTS as usize].into_boxed_slice();
        TimerWheel { heads, list: 0, cursor: slot_start(now), len: 0 }
    }

    /// Timers that run.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether no timer runs.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Ticks that have passed and are not worked off: below 16 unless calls of [`advance`](Self::advance) are
    /// too few or their budget too small.
    pub fn lag(&self, now: Tick) -> u32 {
        now.since(self.cursor)
    }

    /// Whether [`advance`](Self::advance) has anything to do.
    #[inline(always)]
    pub fn is_behind(&self, now: Tick) -> bool {
        self.lag(now) >= SLOT_TICKS
    }

    /// Starts a session's timer, which does not run.
    #[inline]
    pub fn start(&mut self, table: &mut SessionTable, session: SessionIndex, at: Tick) {
        debug_assert_eq!(table.cold(session).timer_slot, 0, "the timer of {session:?} runs already");
        self.link(table, session, self.slots_ahead(at));
    }

    /// Sets a session's timer, which may or may not run already.
    pub fn schedule(&mut self, table: &mut SessionTable, session: SessionIndex, at: Tick) {
        self.cancel(table, session);
        self.link(table, session, self.slots_ahead(at));
    }

    /// Sets a session's timer earlier; leaves it alone if it already comes round by then.
    pub fn reschedule_if_sooner(&mut self, table: &mut SessionTable, session: SessionIndex, at: Tick) {
        let ahead = self.slots_ahead(at);
        let slot = u32::from(table.cold(session).timer_slot);
        if slot == 0 || (slot - 1).wrapping_sub(self.cursor_slot()) % SLOTS > ahead {
            self.cancel(table, session);
            self.link(table, session, ahead);
        }
    }

    /// Stops a session's timer if it runs. Necessary before the session is removed, except within the
    /// callback of [`advance`](Self::advance), where its timer does not run.
    pub fn cancel(&mut self, table: &mut SessionTable, session: SessionIndex) {
        if table.cold(session).timer_slot != 0 {
            self.unlink(table, session);
        }
    }

    /// Shows the sessions whose time has come to `judge`, which may change the table but must not remove
    /// sessions other than the one shown. Returns how many were shown.
    ///
    /// One call shows sessions and passes over empty slots at most `budget` times altogether and leaves the
    /// rest to the next. A stall of any length is caught up with at one turn of the wheel at most.
    pub fn advance(
        &mut self,
        table: &mut SessionTable,
        now: Tick,
        budget: usize,
        mut judge: impl FnMut(&mut SessionTable, SessionIndex) -> Expiry,
    ) -> usize {
        let mut shown = 0;
        let mut budget = budget;
        while self.is_behind(now) {
            if self.lag(now) > SLOTS * SLOT_TICKS {
                self.skip_to_last_turn(now);
            }
            self.heads[self.cursor_slot() as usize]
                .iter()
                .for_each(|&first| table.prefetch_session(SessionIndex(first)));
            while let Some(session) = self.first_due(table) {
                if budget == 0 {
                    return shown;
                }
                budget -= 1;
                shown += 1;
                self.unlink(table, session);
                if let Expiry::Keep(at) = judge(table, session) {
                    self.start(table, session, at);
                }
            }
            if budget == 0 {
                return shown;
            }
            budget -= 1;
            self.cursor = self.cursor.plus(SLOT_TICKS);
        }
        shown
    }

    /// The next session in the slot at the cursor, the one after it in its list on its way into the cache.
    #[inline]
    fn first_due(&mut self, table: &SessionTable) -> Option<SessionIndex> {
        let heads = &self.heads[self.cursor_slot() as usize];
        let mut lists = (self.list..self.list + LISTS).map(|list| list % LISTS);
        let list = lists.find(|&list| heads[list] != NIL)?;
        self.list = (list + 1) % LISTS;
        let session = SessionIndex(heads[list]);
        table.prefetch_session(SessionIndex(table.cold(session).timer_next));
        Some(session)
    }

    /// After a stall of more than one turn everything is due: passing each slot once is enough.
    #[cold]
    fn skip_to_last_turn(&mut self, now: Tick) {
        self.cursor = Tick(slot_start(now).0.wrapping_sub(SLOTS * SLOT_TICKS));
    }

    #[inline(always)]
    fn cursor_slot(&self) -> u32 {
        self.cursor.0 / SLOT_TICKS % SLOTS
    }

    /// In how many slots from the cursor a timer goes. Never into the one at the cursor, which may be in the
    /// middle of being emptied; never a full turn or more.
    #[inline(always)]
    fn slots_ahead(&self, at: Tick) -> u32 {
        (at.since(self.cursor) / SLOT_TICKS).clamp(1, SLOTS - 1)
    }

    #[inline]
    fn link(&mut self, table: &mut SessionTable, session: SessionIndex, ahead: u32) {
        let slot = (self.cursor_slot() + ahead) % SLOTS;
        let head = &mut self.heads[slot as usize][list_of(session)];
        let next = std::mem::replace(head, session.0);
        let cold = table.cold_mut(session);
        cold.timer_slot = slot as u16 + 1;
        cold.timer_next = next;
        if next != NIL {
            table.cold_mut(SessionIndex(next)).timer_prev = session.0;
        }
        self.len += 1;
    }

    /// Takes the first session of a list out without a look at the one after it, which may still be on its way from
    /// memory: a first one's `timer_prev` means nothing.
    #[inline]
    fn unlink(&mut self, table: &mut SessionTable, session: SessionIndex) {
        let cold = table.cold_mut(session);
        let (slot, prev, next) = (cold.timer_slot - 1, cold.timer_prev, cold.timer_next);
        cold.timer_slot = 0;
        self.len -= 1;
        let head = &mut self.heads[usize::from(slot)][list_of(session)];
        if *head == session.0 {
            *head = next;
            return;
        }
        table.cold_mut(SessionIndex(prev)).timer_next = next;
        if next != NIL {
            table.cold_mut(SessionIndex(next)).timer_prev = prev;
        }
    }
}

/// The list that a session hangs in.
#[inline(always)]
const fn list_of(session: SessionIndex) -> usize {
    session.0 as usize % LISTS
}

/// The beginning of the slot that `tick` lies in.
const fn slot_start(tick: Tick) -> Tick {
    Tick(tick.0 / SLOT_TICKS * SLOT_TICKS)
}

#[cfg(test)]
#[path = "wheel_tests.rs"]
mod tests;
