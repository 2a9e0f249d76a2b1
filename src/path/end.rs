//! A session's end: by its timer, by a new session that takes its lease, by a removed real server.

use super::neighbour::NeighbourIndex;
use super::packet::{HandOff, Io, Packet};
use super::proxy_header;
use super::shard::{Shard, Turn};
use crate::clock::Tick;
use crate::session::tcp_state::is_active;
use crate::session::wheel::Expiry;
use crate::session::{Cold, Flags, Hot, KeyHash, SessionIndex, State, Timeouts, sequence};
use crate::wire::Protocol;

/// How long Linux keeps a closed connection in TIME_WAIT (`TCP_TIMEWAIT_LEN`), and a little more.
const REST_TICKS: u32 = 61 * Tick::PER_SECOND;

/// Sessions looked at per call of [`Shard::expire`].
const EXPIRE_BUDGET: usize = 64;

impl<P: Packet> Shard<P> {
    /// A slice of the timer wheel: ends what was idle for too long, sends again what was not acknowledged, and sets the
    /// timers of the rest anew.
    #[inline]
    pub(super) fn expire<I: Io<Packet = P>>(&mut self, turn: &mut Turn<'_, I>) {
        let now = turn.now.tick();
        if self.wheel.is_behind(now) {
            self.expire_until(turn, now);
        }
    }

    #[cold]
    #[inline(never)]
    fn expire_until<I: Io<Packet = P>>(&mut self, turn: &mut Turn<'_, I>, now: Tick) {
        let mut due = arrayvec::ArrayVec::<SessionIndex, EXPIRE_BUDGET>::new();
        let mut headers_due = arrayvec::ArrayVec::<SessionIndex, EXPIRE_BUDGET>::new();
        let (default_timeouts, snapshot) = (&self.default_timeouts, turn.snapshot);
        self.wheel.advance(&mut self.sessions, now, EXPIRE_BUDGET, |sessions, index| {
            let (hot, cold) = (sessions.hot(index), sessions.cold(index));
            let timeouts =
                snapshot.service(cold.service).map_or(default_timeouts, |service| &service.timeouts);
            let deadline = hot.stamp.plus(idle_ticks(hot, cold, timeouts));
            if now.reached(deadline) {
                due.push(index);
                return Expiry::Expired;
            }
            match proxy_header::timeout(hot, cold, now) {
                None => Expiry::Keep(deadline),
                Some(timeout) if now.reached(timeout) => {
                    headers_due.push(index);
                    // Sent again, it has a later time-out, which is seen then.
                    Expiry::Keep(now.plus(Tick::PER_SECOND))
                }
                Some(timeout) if deadline.reached(timeout) => Expiry::Keep(timeout),
                Some(_) => Expiry::Keep(deadline),
            }
        });
        for index in headers_due {
            self.header_timed_out(turn, index);
        }
        let hashes: arrayvec::ArrayVec<_, EXPIRE_BUDGET> =
            due.iter().map(|&index| self.sessions.hashes(index)).collect();
        hashes.as_flattened().iter().for_each(|&hash| self.sessions.prefetch_buckets(hash));
        for (index, hashes) in due.into_iter().zip(hashes) {
            self.end_idle_session(turn, index, hashes);
        }
    }

    /// Ends a session that was idle for too long. A real server that still holds the connection is told, so that the
    /// port is good for the next one at once: else it would challenge that one's SYN, which costs a client a second. The
    /// client needs no port of ours; it learns of the end when it speaks again.
    fn end_idle_session<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        index: SessionIndex,
        hashes: [KeyHash; 2],
    ) {
        let is_free = if self.is_held_by_real_server(index) {
            self.reset_real_server(turn, index)
        } else {
            self.reuse_is_acceptable(turn, index)
        };
        self.end_with_lease(turn, index, hashes, is_free);
    }

    /// Ends a session; its lease is free at once if the real server would accept its reuse, else it rests.
    #[cold]
    pub(super) fn end_session<I: Io<Packet = P>>(&mut self, turn: &mut Turn<'_, I>, index: SessionIndex) {
        let (hashes, acceptable) = (self.sessions.hashes(index), self.reuse_is_acceptable(turn, index));
        self.end_with_lease(turn, index, hashes, acceptable);
    }

    fn end_with_lease<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        index: SessionIndex,
        hashes: [KeyHash; 2],
        is_free: bool,
    ) {
        let slot = self.sessions.cold(index).lease_slot;
        let lport = self.sessions.hot(index).lport;
        self.forget(turn, index, hashes);
        if is_free {
            self.pools.release(slot, lport);
        } else {
            self.pools.rest(slot, lport, turn.now.tick().plus(REST_TICKS));
        }
    }

    /// A RST went by that only its receiver can judge. If it was the exact one both ends fall silent, and the session
    /// ends as if by RST; any further packet keeps it.
    ///
    /// The receiver's expected number is what it has acknowledged; to remember that, every packet would have to write
    /// it down, and the hot line is full. A stranger who does not know the number hits the range that is taken for it
    /// with 1 of 65,536 guesses, and then still needs both ends to be silent.
    #[cold]
    pub(super) fn note_perhaps_reset<I: Io>(&mut self, turn: &Turn<'_, I>, index: SessionIndex) {
        let (hot, cold) = self.sessions.lines_mut(index);
        hot.flags.set(Flags::PERHAPS_RESET);
        // This packet is counted when it leaves.
        cold.packets_at_reset = hot.packets.wrapping_add(1);
        let ticks = self.timeouts(turn.snapshot, index).ticks(Protocol::Tcp, State::Close);
        let deadline = turn.now.tick().plus(ticks);
        self.wheel.reschedule_if_sooner(&mut self.sessions, index, deadline);
    }

    /// Ends a session whose lease goes to a new one right away; the taker knows its numbers and stays beyond them.
    pub(super) fn end_session_for_takeover<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        index: SessionIndex,
    ) {
        let slot = self.sessions.cold(index).lease_slot;
        let lport = self.sessions.hot(index).lport;
        self.forget(turn, index, self.sessions.hashes(index));
        self.pools.release(slot, lport);
    }

    /// Whether the real server accepts a new connection on the session's lease right away, whoever opens it.
    ///
    /// It does not while it holds the old one. Of those that are over, only one that it closed first is remembered: in
    /// TIME_WAIT, by the rule of Linux `tcp_timewait_state_process`.
    fn reuse_is_acceptable<I: Io<Packet = P>>(&mut self, turn: &Turn<'_, I>, index: SessionIndex) -> bool {
        let (hot, cold) = (self.sessions.hot(index), self.sessions.cold(index));
        if self.is_held_by_real_server(index) {
            return false;
        }
        if hot.protocol() == Protocol::Udp || !hot.flags.has(Flags::SERVER_CLOSED_FIRST) {
            return true;
        }
        let lease = self.sessions.outbound(index).reversed();
        let has_timestamps = hot.flags.has(Flags::TIMESTAMP);
        let (isn, timestamp) = self.isn.numbers(&lease, turn.now);
        sequence::reuse_acceptable_to_all(
            hot.next_seq_inbound.wrapping_add(hot.seq_delta),
            isn,
            has_timestamps.then(|| cold.last_timestamp.wrapping_add(hot.timestamp_delta)),
            timestamp,
        )
    }

    /// Whether the real server has an open connection behind the session, so far as the gateway knows: the handshake is
    /// over and the end is not.
    fn is_held_by_real_server(&self, index: SessionIndex) -> bool {
        let hot = self.sessions.hot(index);
        hot.protocol() == Protocol::Tcp
            && matches!(hot.state, State::Established | State::FinWait | State::CloseWait)
    }

    /// Takes the session out of the table, the wheel and every count; the lease is the caller's to give back.
    fn forget<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        index: SessionIndex,
        hashes: [KeyHash; 2],
    ) {
        self.wheel.cancel(&mut self.sessions, index);
        let hot = self.sessions.hot(index);
        let (flags, state, real_server) = (hot.flags, hot.state, self.sessions.real_server(index).index());
        let next_hops = hot.next_hops;
        if flags.has(Flags::OFFERED) {
            let slot = self.sessions.cold(index).lease_slot;
            self.pools.withdraw(slot, index, &mut self.sessions);
        }
        next_hops.into_iter().for_each(|next_hop| self.neighbours.release(NeighbourIndex(next_hop)));
        let counters = &mut self.real_servers[real_server];
        if is_active(state) {
            counters.active -= 1;
        } else {
            counters.inactive -= 1;
        }
        if flags.has(Flags::GUEST) {
            let inbound = self.sessions.inbound(index);
            let home = turn.snapshot.steering.home(&inbound);
            // A full ring leaves the home a stale note, which sends the next packet here; that goes back with the note again.
            let _ = turn.io.hand_off(home, HandOff::GuestEnded { inbound, host: self.worker });
        }
        self.sessions.remove_hashed(index, hashes);
        self.counters.sessions_ended += 1;
    }
}

/// How long the session may be silent: as its state allows, or no longer than after a RST if what was last heard of it
/// may have been one.
fn idle_ticks(hot: &Hot, cold: &Cold, timeouts: &Timeouts) -> u32 {
    let ticks = timeouts.ticks(hot.protocol(), hot.state);
    if hot.flags.has(Flags::PERHAPS_RESET) && hot.packets == cold.packets_at_reset {
        ticks.min(timeouts.ticks(hot.protocol(), State::Close))
    } else {
        ticks
    }
}
