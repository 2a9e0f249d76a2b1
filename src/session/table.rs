//! The session table: both directions of every session of one worker.
//!
//! ```text
//!  tuple --hash--> index: buckets of tags --entry--> Hot   every packet        64 bytes per session
//!                                                    Cold  begin, end, timer   64
//!                                                    Named from a front only   40, untouched pages cost nothing
//!                                        Hot --------> Trunk IPv6 side only    64, shared by many sessions
//! ```
//!
//! Owned by one worker; nobody else sees it. All memory is mapped when it is made. A session takes 148 bytes, index
//! included, and shares a trunk ([`TableMemory`]). Nothing grows, moves or rehashes later, and a table filled to its
//! capacity still takes every key.
//!
//! A burst is looked up in stages, each over all its packets, so that the memory latencies of the packets
//! overlap:
//!
//! 1. [`hash`](SessionTable::hash) and [`prefetch_buckets`](SessionTable::prefetch_buckets)
//! 2. [`probe`](SessionTable::probe) and [`prefetch_entry`](SessionTable::prefetch_entry)
//! 3. [`confirm`](SessionTable::confirm)
//!
//! Between the stages the table may change (an earlier packet of the burst may begin or end a session):
//! `confirm` never gives a wrong session, but it can miss one: it is not established, another's key has the same tag, or
//! it began after the probe. Whoever is not satisfied looks once more with [`find_hashed`](SessionTable::find_hashed).
//!
//! # Keys
//! A key belongs to one session. Inbound keys are unique because a packet that has a session does not begin
//! another; outbound keys because a lease is held once; an inbound and an outbound one differ because no
//! VIP's listening port is ever leased as a local port. A hairpin (a real server that is itself a client)
//! keeps to this: its sessions differ in the destination. Should the rule be broken all the same (asserted in
//! debug builds), look-ups find one of the two sessions, always the same one, and the other again once the
//! first is removed.

use zerocopy::FromZeros;

use super::entry::{Asked, Cold, Direction, Flags, Hot, Named, ProxyFacts, SessionIndex};
use super::index::{EntryRef, Index};
use super::key::{KeyHash, KeyHasher, Keys, is_v4};
use super::trunk::{Trunk, Trunks};
use crate::cpu::{self, HugeArray, MapError, PageKind, Pages};
use crate::id::RealServerId;
use crate::wire::{Address, Tuple};

/// What a table is made from.
#[derive(Clone, Copy, Debug)]
pub struct TableConfig {
    /// sessions that can live at once, 1 to 2^31 - 2
    pub sessions_max: u32,
    /// whether to take huge pages that the operator has reserved; transparent ones are used in any case
    pub huge_pages: bool,
    /// the secret of the hash: random, renewed at every start, told to nobody
    pub seed: [u64; 4],
}

/// Why a table could not be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TableError {
    /// `sessions_max` is out of range.
    #[error("sessions_max = {0} for one worker: give it 1 to {max}", max = EntryRef::SESSIONS_MAX - 1)]
    SessionsMax(u32),
    /// Memory is short.
    #[error(
        "no memory for the {part} of {sessions_max} sessions, lower dataplane.sessions_max or add memory: {source}"
    )]
    Memory {
        /// what the memory was for
        part: &'static str,
        /// as configured
        sessions_max: u32,
        /// the kernel's answer
        source: MapError,
    },
}

/// The table holds as many sessions as it can.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the session table is full: raise dataplane.sessions_max")]
pub struct TableFull;

/// What the first match of a tag says about a packet's session; to be confirmed by the key itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate(EntryRef);

impl Candidate {
    /// No session, before any look-up.
    pub const NONE: Candidate = Candidate(EntryRef::NONE);

    /// A session that is known, as packets of this direction find it.
    #[inline(always)]
    pub const fn of(session: SessionIndex, direction: Direction) -> Candidate {
        Candidate(EntryRef::new(session, direction))
    }

    /// Which way packets travel whose key this is; either where there is no session.
    #[inline(always)]
    pub const fn direction(self) -> Direction {
        self.0.direction()
    }

    /// Whether no tag matched: there was no session at the time of the probe.
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0.is_none()
    }
}

/// Bytes of a table's parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableMemory {
    /// buckets, resident from the start
    pub index: u64,
    /// hot and cold lines, resident as far as they were used
    pub sessions: u64,
    /// whom fronts have named, resident as far as sessions from fronts reached
    pub named: u64,
}

impl TableMemory {
    /// What a table for `sessions_max` sessions needs.
    pub const fn for_sessions(sessions_max: u32) -> TableMemory {
        TableMemory {
            index: Index::bytes_for(sessions_max) as u64,
            sessions: sessions_max as u64 * (size_of::<Hot>() + size_of::<Cold>()) as u64,
            named: sessions_max as u64 * size_of::<Named>() as u64,
        }
    }

    /// A full table.
    pub const fn full(&self) -> u64 {
        self.index + self.sessions
    }

    /// What so many trunks of sessions with an IPv6 side need beside.
    pub const fn of_trunks(trunks: u32) -> u64 {
        Trunks::bytes_for(trunks)
    }
}

const _: () = assert!(TableMemory::for_sessions(1_000_000).full() <= 160 * 1_000_000);

/// The end of the free list.
const NIL: u32 = u32::MAX;

/// The sessions of one worker.
#[derive(Debug)]
pub struct SessionTable {
    hasher: KeyHasher,
    index: Index,
    hot: HugeArray<Hot>,
    cold: HugeArray<Cold>,
    trunks: Trunks,
    named: HugeArray<Named>,
    /// the slot freed last, linked on through `Cold::timer_next`
    free: u32,
    /// slots that were ever used; those above have untouched memory
    slots_used: u32,
    len: u32,
}

impl SessionTable {
    /// Maps the memory of an empty table.
    ///
    /// # Errors
    /// [`TableError`] if the size is out of range or the kernel refuses the memory.
    pub fn new(config: TableConfig) -> Result<Self, TableError> {
        let sessions_max = config.sessions_max;
        if !(1..EntryRef::SESSIONS_MAX).contains(&sessions_max) {
            return Err(TableError::SessionsMax(sessions_max));
        }
        let pages = if config.huge_pages { Pages::Reserved } else { Pages::Transparent };
        let no_memory = |part| move |source| TableError::Memory { part, sessions_max, source };
        let len = sessions_max as usize;
        Ok(SessionTable {
            hasher: KeyHasher::new(config.seed, Index::buckets_for(sessions_max) as u32),
            index: Index::new(sessions_max, pages).map_err(no_memory("index"))?,
            hot: HugeArray::new(len, pages).map_err(no_memory("hot lines"))?,
            cold: HugeArray::new(len, pages).map_err(no_memory("cold lines"))?,
            trunks: Trunks::new(sessions_max, config.seed).map_err(no_memory("IPv6 addresses"))?,
            // Reserved pages would be taken from others whether fronts are used or not.
            named: HugeArray::new(len, Pages::Transparent).map_err(no_memory("clients named by fronts"))?,
            free: NIL,
            slots_used: 0,
            len: 0,
        })
    }

    /// The hash of a packet's tuple, for the stages below; `v6` if the packet is an IPv6 one.
    #[inline(always)]
    pub fn hash(&self, tuple: &Tuple, v6: bool) -> KeyHash {
        self.hasher.hash(tuple, v6)
    }

    #[inline(always)]
    fn hash_key(&self, key: &Tuple) -> KeyHash {
        self.hash(key, !is_v4(key))
    }

    /// Starts to load the line that [`probe`](Self::probe) will read.
    #[inline(always)]
    pub fn prefetch_buckets(&self, hash: KeyHash) {
        self.index.prefetch(hash);
    }

    /// The first entry whose tag matches. Reads one line of the index, rarely another, and nothing of
    /// sessions.
    #[inline(always)]
    pub fn probe(&self, hash: KeyHash) -> Candidate {
        Candidate(self.index.first(hash))
    }

    /// Starts to load what [`confirm`](Self::confirm) will read.
    #[inline(always)]
    pub fn prefetch_entry(&self, candidate: Candidate) {
        // Of no session it is a useless hint, which costs less than a question.
        cpu::prefetch_index(&self.hot, candidate.0.session().0 as usize);
    }

    /// The neighbour toward whom packets of a candidate go.
    #[inline(always)]
    pub fn next_hop(&self, candidate: Candidate) -> Option<u16> {
        let entry = candidate.0;
        Some(self.hot.get(entry.session().0 as usize)?.next_hops(entry.direction()).0)
    }

    /// The session of a packet that travels in `direction` if it is the one that the probe found, which is established and
    /// within one family: what most are that a packet belongs to; if `told`, one whose real server has nothing left to learn
    /// of the client. Compares the whole key. `None` does not say that there is no session.
    #[inline(always)]
    pub fn confirm(
        &self,
        tuple: &Tuple,
        v6: bool,
        candidate: Candidate,
        direction: Direction,
        told: bool,
    ) -> Option<SessionIndex> {
        let session = candidate.0.session();
        // What stands for no session is no index either.
        let hot = self.hot.get(session.0 as usize)?;
        let asked = Asked::established(tuple.protocol, v6, told);
        let is_it = if v6 {
            hot.is_key_wide(self.trunks.get(hot.server_or_trunk)?, tuple, direction, asked)
        } else {
            hot.is_key_v4(tuple, direction, asked)
        };
        is_it.then_some(session)
    }

    /// The session and direction of a tuple, in one go: for what comes alone, such as the tuple within an
    /// ICMP error.
    pub fn find(&self, tuple: &Tuple) -> Option<(SessionIndex, Direction)> {
        self.find_hashed(tuple, self.hash_key(tuple))
    }

    /// As [`find`](Self::find), of a tuple whose hash is known.
    #[inline]
    pub fn find_hashed(&self, tuple: &Tuple, hash: KeyHash) -> Option<(SessionIndex, Direction)> {
        if self.probe(hash).is_none() { None } else { self.find_among(tuple, hash) }
    }

    /// [`find_hashed`](Self::find_hashed) where some tag matches.
    #[inline(never)]
    fn find_among(&self, tuple: &Tuple, hash: KeyHash) -> Option<(SessionIndex, Direction)> {
        let v6 = !is_v4(tuple);
        let entry = self.index.find(hash, |entry| self.is_key_of(tuple, v6, entry))?;
        Some((entry.session(), entry.direction()))
    }

    /// Whether `tuple` is the key that `entry` stands for. False for a session that has ended: its protocol
    /// is none.
    #[inline(always)]
    fn is_key_of(&self, tuple: &Tuple, v6: bool, entry: EntryRef) -> bool {
        let (hot, direction) = (self.hot(entry.session()), entry.direction());
        let asked = Asked::alive(tuple.protocol, direction, v6);
        match self.trunk_of(hot) {
            Some(trunk) => hot.is_key_wide(trunk, tuple, direction, asked),
            None => hot.is_key_v4(tuple, direction, asked),
        }
    }

    /// The trunk of a session with an IPv6 side.
    #[inline(always)]
    fn trunk_of(&self, hot: &Hot) -> Option<&Trunk> {
        if hot.flags.has(Flags::WIDE) { self.trunks.get(hot.server_or_trunk) } else { None }
    }

    /// Begins a session: fills in its keys, family flags, protocol and real server; everything else is zero.
    ///
    /// Neither key may be a session's already (asserted in debug builds), and both are of one protocol.
    ///
    /// # Errors
    /// [`TableFull`], with nothing changed.
    pub fn insert(&mut self, keys: &Keys, real_server: RealServerId) -> Result<SessionIndex, TableFull> {
        let session = self.begin(keys, real_server, self.hash_key(&keys.inbound))?;
        self.index_outbound(session, self.hash_key(&keys.outbound))?;
        Ok(session)
    }

    /// The first half of [`insert`](Self::insert), of an inbound key whose hash is known: answers do not find the session
    /// before the second half, [`index_outbound`](Self::index_outbound).
    #[inline]
    pub fn begin(
        &mut self,
        keys: &Keys,
        real_server: RealServerId,
        inbound: KeyHash,
    ) -> Result<SessionIndex, TableFull> {
        debug_assert_eq!(inbound, self.hash_key(&keys.inbound));
        debug_assert!(self.find(&keys.inbound).is_none(), "inbound key is in use: {:?}", keys.inbound);
        debug_assert!(self.find(&keys.outbound).is_none(), "outbound key is in use: {:?}", keys.outbound);
        debug_assert_eq!(keys.inbound.protocol, keys.outbound.protocol);
        let session = self.next_free().ok_or(TableFull)?;
        if !self.index.insert(inbound, EntryRef::new(session, Direction::Inbound)) {
            return Err(TableFull);
        }

        let slot = session.0 as usize;
        let mut hot = Hot::of(keys);
        hot.server_or_trunk = if hot.flags.has(Flags::WIDE) {
            let shared = [keys.inbound.dst, keys.outbound.src, keys.outbound.dst];
            self.trunks.join(Trunk::new(shared, real_server))
        } else {
            real_server.0
        };
        self.hot[slot] = hot;
        if session.0 == self.slots_used {
            self.slots_used += 1;
        } else {
            self.free = self.cold[slot].timer_next;
        }
        self.cold[slot] = Cold::new_zeroed();
        self.len += 1;
        Ok(session)
    }

    /// The second half of [`insert`](Self::insert): answers find the session. What its bucket needs was asked for by
    /// [`prefetch_insert`](Self::prefetch_insert); the later this comes after that the better.
    ///
    /// # Errors
    /// [`TableFull`], and the session is gone.
    #[inline]
    pub fn index_outbound(&mut self, session: SessionIndex, outbound: KeyHash) -> Result<(), TableFull> {
        debug_assert_eq!(outbound, self.hash_key(&self.outbound(session)));
        if self.index.insert(outbound, EntryRef::new(session, Direction::Outbound)) {
            return Ok(());
        }
        let inbound = self.hash_key(&self.inbound(session));
        self.index.remove(inbound, EntryRef::new(session, Direction::Inbound));
        self.free_slot(session);
        Err(TableFull)
    }

    /// The slot of the next session: the one freed last, whose lines are the most likely to be in the cache,
    /// else one that was never used.
    #[inline(always)]
    fn next_free(&self) -> Option<SessionIndex> {
        if self.free != NIL {
            Some(SessionIndex(self.free))
        } else if self.slots_used < self.capacity() {
            Some(SessionIndex(self.slots_used))
        } else {
            None
        }
    }

    /// Starts to load what the next [`insert`](Self::insert) of a session with this outbound key will write; what its
    /// inbound key needs was loaded when it was looked for. The outbound key's hash.
    #[inline(always)]
    pub fn prefetch_insert(&self, outbound: &Tuple) -> KeyHash {
        let hash = self.hash_key(outbound);
        self.index.prefetch(hash);
        if let Some(session) = self.next_free() {
            cpu::prefetch_index(&self.hot, session.0 as usize);
            cpu::prefetch_index(&self.cold, session.0 as usize);
        }
        hash
    }

    /// The hashes of a session's keys, the inbound one's and the outbound one's. Reads the session's lines.
    #[inline]
    pub fn hashes(&self, session: SessionIndex) -> [KeyHash; 2] {
        let hot = self.hot(session);
        if hot.flags.has(Flags::WIDE) {
            return [self.hash_key(&self.inbound(session)), self.hash_key(&self.outbound(session))];
        }
        let of = |direction| self.hash(&hot.tuple_v4(direction), false);
        [of(Direction::Inbound), of(Direction::Outbound)]
    }

    /// Ends a session and frees its slot. Its timer must be cancelled and its lease given back before.
    pub fn remove(&mut self, session: SessionIndex) {
        self.remove_hashed(session, self.hashes(session));
    }

    /// As [`remove`](Self::remove), of a session whose [`hashes`](Self::hashes) are known.
    #[inline]
    pub fn remove_hashed(&mut self, session: SessionIndex, [inbound, outbound]: [KeyHash; 2]) {
        let slot = session.0 as usize;
        debug_assert!(self.hot[slot].is_live(), "no session lives at {slot}");
        debug_assert_eq!(self.cold[slot].timer_slot, 0, "session {slot} still hangs in the timer wheel");
        if !self.hot[slot].is_live() {
            return;
        }
        debug_assert_eq!([inbound, outbound], self.hashes(session));
        let indexed = self.index.remove(inbound, EntryRef::new(session, Direction::Inbound))
            & self.index.remove(outbound, EntryRef::new(session, Direction::Outbound));
        debug_assert!(indexed, "session {slot} was not found under its keys");
        self.free_slot(session);
    }

    #[inline]
    fn free_slot(&mut self, session: SessionIndex) {
        let hot = &mut self.hot[session.0 as usize];
        hot.protocol = 0;
        if hot.flags.has(Flags::WIDE) {
            self.trunks.leave(hot.server_or_trunk);
        }
        self.cold_mut(session).timer_next = self.free;
        self.free = session.0;
        self.len -= 1;
    }

    /// The line that every packet of a session touches.
    #[inline(always)]
    pub fn hot(&self, session: SessionIndex) -> &Hot {
        &self.hot[session.0 as usize]
    }

    /// See [`hot`](Self::hot). Addresses, ports and family flags must stay as they are: the session is found
    /// by them.
    #[inline(always)]
    pub fn hot_mut(&mut self, session: SessionIndex) -> &mut Hot {
        &mut self.hot[session.0 as usize]
    }

    /// The line of a session's beginning, end and timer.
    #[inline(always)]
    pub fn cold(&self, session: SessionIndex) -> &Cold {
        &self.cold[session.0 as usize]
    }

    /// See [`cold`](Self::cold).
    #[inline(always)]
    pub fn cold_mut(&mut self, session: SessionIndex) -> &mut Cold {
        &mut self.cold[session.0 as usize]
    }

    /// Both lines of a session at once; each is loaded only when looked at.
    #[inline(always)]
    pub fn lines_mut(&mut self, session: SessionIndex) -> (&mut Hot, &mut Cold) {
        let at = session.0 as usize;
        (&mut self.hot[at], &mut self.cold[at])
    }

    /// The real server that a session has as long as it lives.
    #[inline(always)]
    pub fn real_server(&self, session: SessionIndex) -> RealServerId {
        let hot = self.hot(session);
        self.trunk_of(hot).map_or(RealServerId(hot.server_or_trunk), |trunk| trunk.real_server)
    }

    /// [`real_server`](Self::real_server) of a session within one family, `v6` if that is IPv6.
    #[inline(always)]
    pub fn real_server_within(&self, session: SessionIndex, v6: bool) -> RealServerId {
        let hot = self.hot(session);
        debug_assert!(hot.flags.0 & Flags::WIDE == if v6 { Flags::WIDE } else { 0 });
        let number = hot.server_or_trunk;
        if v6 { self.trunk(number).real_server } else { RealServerId(number) }
    }

    /// Source and destination, behind the gateway, of an IPv6 packet of a session within that family.
    #[inline(always)]
    pub fn addresses_behind_v6(&self, session: SessionIndex, direction: Direction) -> [Address; 2] {
        let hot = self.hot(session);
        let trunk = self.trunk(hot.server_or_trunk);
        match direction {
            Direction::Inbound => [trunk.lip, trunk.rip],
            Direction::Outbound => [trunk.vip, hot.client()],
        }
    }

    #[inline(always)]
    fn trunk(&self, number: u32) -> &Trunk {
        self.trunks.get(number).expect("the number of a trunk")
    }

    /// Starts to load both lines of a session.
    #[inline(always)]
    pub fn prefetch_session(&self, session: SessionIndex) {
        cpu::prefetch_index(&self.hot, session.0 as usize);
        cpu::prefetch_index(&self.cold, session.0 as usize);
    }

    /// The tuple of the client's packets: CIP:cport to VIP:vport.
    pub fn inbound(&self, session: SessionIndex) -> Tuple {
        let hot = self.hot(session);
        match self.trunk_of(hot) {
            None => hot.tuple_v4(Direction::Inbound),
            Some(trunk) => Tuple {
                src: hot.client(),
                dst: trunk.vip,
                sport: hot.cport,
                dport: hot.vport,
                protocol: hot.protocol(),
            },
        }
    }

    /// What a front has said of a session; `None` if it is not from one, or the front has not spoken yet.
    pub fn named(&self, session: SessionIndex) -> Option<&Named> {
        let is_named = self.cold(session).header.facts.is_named();
        is_named.then(|| &self.named[session.0 as usize])
    }

    /// See [`named`](Self::named).
    pub fn named_mut(&mut self, session: SessionIndex) -> Option<&mut Named> {
        let is_named = self.cold(session).header.facts.is_named();
        is_named.then(|| &mut self.named[session.0 as usize])
    }

    /// Takes a front's word for whose connection a session from it is.
    pub fn name(&mut self, session: SessionIndex, named: Named) {
        debug_assert!(self.cold(session).header.facts.has(ProxyFacts::FROM_FRONT));
        self.named[session.0 as usize] = named;
        self.cold_mut(session).header.facts.clear(ProxyFacts::AWAITED);
    }

    /// The client's connection as the client made it: what a front has said, else what its packets show.
    #[inline]
    pub fn client_flow(&self, session: SessionIndex) -> Tuple {
        match self.named(session) {
            Some(named) => named.flow(self.hot(session).protocol()),
            None => self.inbound(session),
        }
    }

    /// The tuple of the real server's packets: RIP:rport to LIP:lport.
    pub fn outbound(&self, session: SessionIndex) -> Tuple {
        let hot = self.hot(session);
        match self.trunk_of(hot) {
            None => hot.tuple_v4(Direction::Outbound),
            Some(trunk) => Tuple {
                src: trunk.rip,
                dst: trunk.lip,
                sport: hot.rport,
                dport: hot.lport,
                protocol: hot.protocol(),
            },
        }
    }

    /// A session's packets of `direction` as they leave the gateway.
    #[inline(always)]
    pub fn behind(&self, session: SessionIndex, direction: Direction) -> Tuple {
        match direction {
            Direction::Inbound => self.outbound(session).reversed(),
            Direction::Outbound => self.inbound(session).reversed(),
        }
    }

    /// Sessions that live.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether no session lives.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sessions that can live at once.
    #[inline(always)]
    pub fn capacity(&self) -> u32 {
        self.hot.len() as u32
    }

    /// The end of a listing: all sessions have an index below.
    pub fn slots_used(&self) -> u32 {
        self.slots_used
    }

    /// The sessions among the `slots_max` slots from `cursor` on, in the order of their slots.
    ///
    /// A listing of any length is made of such pages, each of bounded work: begin at 0, add `slots_max` each
    /// time, end at [`slots_used`](Self::slots_used). A session that lives all the while is seen exactly
    /// once.
    pub fn iter_from(&self, cursor: u32, slots_max: u32) -> impl Iterator<Item = SessionIndex> {
        let end = cursor.saturating_add(slots_max).min(self.slots_used);
        (cursor..end).map(SessionIndex).filter(|&session| self.hot(session).is_live())
    }

    /// Bytes of its parts.
    pub fn memory_bytes(&self) -> TableMemory {
        TableMemory::for_sessions(self.capacity())
    }

    /// What pages the lines of sessions lie on.
    pub fn page_kind(&self) -> PageKind {
        self.hot.kind()
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
