//! A session's end: by its timer, by a new session that takes its lease, by a removed real server.

use super::neighbour::NeighbourIndex;
use super::packet::{HandOff, Io, Packet};
use super::shard::{Shard, Turn};
use crate::clock::Tick;
use crate::session::tcp_state::is_active;
use crate::session::wheel::Expiry;
use crate::session::{Flags, SessionIndex, sequence};
use crate::wire::Protocol;

/// How long Linux keeps a closed connection in TIME_WAIT (`TCP_TIMEWAIT_LEN`), and a little more.
const REST_TICKS: u32 = 61 * Tick::PER_SECOND;

/// Sessions looked at per call of [`Shard::expire`].
const EXPIRE_BUDGET: usize = 64;

impl<P: Packet> Shard<P> {
    /// A slice of the timer wheel: ends what was idle for too long, and sets the timers of the rest anew.
    pub(super) fn expire<I: Io<Packet = P>>(&mut self, turn: &mut Turn<'_, I>) {
        let now = turn.now.tick();
        let mut due = arrayvec::ArrayVec::<SessionIndex, EXPIRE_BUDGET>::new();
        let (default_timeouts, services) = (&self.default_timeouts, &turn.snapshot.services);
        self.wheel.advance(&mut self.sessions, now, EXPIRE_BUDGET, |sessions, index| {
            let (hot, cold) = (sessions.hot(index), sessions.cold(index));
            let service = services.get(cold.service as usize).and_then(Option::as_ref);
            let timeouts = service.map_or(default_timeouts, |service| &service.timeouts);
            let deadline = hot.stamp.plus(timeouts.ticks(hot.protocol(), hot.state));
            if now.reached(deadline) {
                due.push(index);
                Expiry::Expired
            } else {
                Expiry::Keep(deadline)
            }
        });
        for index in due {
            self.end_session(turn, index);
        }
    }

    /// Ends a session; its lease is free at once if the real server would accept its reuse, else it rests.
    #[cold]
    pub(super) fn end_session<I: Io<Packet = P>>(&mut self, turn: &mut Turn<'_, I>, index: SessionIndex) {
        let slot = self.sessions.cold(index).lease_slot;
        let lport = self.sessions.hot(index).lport;
        let acceptable = self.reuse_is_acceptable(turn, index);
        self.forget(turn, index);
        if acceptable {
            self.pools.release(slot, lport);
        } else {
            self.pools.rest(slot, lport, turn.now.tick().plus(REST_TICKS));
        }
    }

    /// Ends a session whose lease goes to a new one right away; the taker knows its numbers and stays beyond them.
    pub(super) fn end_session_for_takeover<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        index: SessionIndex,
    ) {
        let slot = self.sessions.cold(index).lease_slot;
        let lport = self.sessions.hot(index).lport;
        self.forget(turn, index);
        self.pools.release(slot, lport);
    }

    /// Linux `tcp_timewait_state_process`: a SYN is accepted if its sequence number, or else its timestamp, lies after
    /// the last one. Only a real server that closed first remembers.
    fn reuse_is_acceptable<I: Io<Packet = P>>(&self, turn: &Turn<'_, I>, index: SessionIndex) -> bool {
        let (hot, cold) = (self.sessions.hot(index), self.sessions.cold(index));
        if hot.protocol() == Protocol::Udp || !hot.flags.has(Flags::SERVER_CLOSED_FIRST) {
            return true;
        }
        let lease = self.sessions.outbound(index).reversed();
        let has_timestamps = hot.flags.has(Flags::TIMESTAMP);
        sequence::reuse_acceptable(
            hot.next_seq_inbound.wrapping_add(hot.seq_delta),
            self.isn.isn(&lease, turn.now.nanos),
            has_timestamps.then(|| cold.last_timestamp.wrapping_add(hot.timestamp_delta)),
            has_timestamps.then(|| self.isn.timestamp_base(&lease, turn.now.millis())),
        )
    }

    /// Takes the session out of the table, the wheel and every count; the lease is the caller's to give back.
    fn forget<I: Io<Packet = P>>(&mut self, turn: &mut Turn<'_, I>, index: SessionIndex) {
        self.wheel.cancel(&mut self.sessions, index);
        let hot = self.sessions.hot(index);
        let (flags, state, real_server) = (hot.flags, hot.state, hot.real_server as usize);
        let (next_hop_inbound, next_hop_outbound) = (hot.next_hop_inbound, hot.next_hop_outbound);
        if flags.has(Flags::OFFERED) {
            let slot = self.sessions.cold(index).lease_slot;
            self.pools.withdraw(slot, index, &mut self.sessions);
        }
        self.neighbours.release(NeighbourIndex(next_hop_inbound));
        self.neighbours.release(NeighbourIndex(next_hop_outbound));
        let counters = &mut self.real_servers[real_server];
        if is_active(state) {
            counters.active -= 1;
        } else {
            counters.inactive -= 1;
        }
        if flags.has(Flags::GUEST) {
            let inbound = self.sessions.inbound(index);
            let home = turn.snapshot.steering.home(&inbound);
            // A full ring leaves the home a stale note, which sends one packet here in vain.
            let _ = turn.io.hand_off(home, HandOff::GuestEnded { inbound });
        }
        self.sessions.remove(index);
        self.counters.sessions_ended += 1;
    }
}
