//! From a key's hash to the sessions it may belong to: buckets of one cache line.
//!
//! ```text
//! |tag|tag|tag|tag|tag|tag|tag|tag|tag|tag|overflowed|reach| entry | entry |  ... ten ... |   64 bytes
//!  2 bytes each, compared all at once                        4 bytes each: direction, session index
//! ```
//!
//! A key stands in its home bucket, or, where that was full, in the first of the buckets after it that had
//! room. The home bucket counts the keys that went on (`overflowed`) and how far they went at most (`reach`),
//! so a look-up touches one line unless there is a reason to touch another. With two random homes per key
//! instead, every look-up would have to prefetch two lines, and a line costs more than everything else here.
//! At 6.4 keys per bucket, the load of a table at its full capacity, 2 % of the keys stand further on,
//! nearly all in the next line (compare Knuth, TAOCP vol. 3 §6.4, table 4); half full, hardly any does.
//!
//! A tag matches by chance once in 32,768 / 6.4 look-ups: whoever asks must compare the whole key.

use zerocopy::{FromZeros, Immutable, IntoBytes, KnownLayout, transmute_ref};

use super::entry::{Direction, SessionIndex};
use super::key::KeyHash;
use crate::cpu::{self, HugeArray, MapError, Pages};

/// Keys in one bucket.
const SLOTS: usize = 10;
/// The bits that [`cpu::equal_lanes`] sets for the tags; the lanes behind them are no tags.
const TAG_BITS: u32 = (1 << (2 * SLOTS)) - 1;
/// The tag of a free slot.
const FREE: u16 = 0;
/// How far from its home a key may stand. At full capacity the furthest of 20 million keys stands nine
/// buckets away; sixty-four full buckets in a row do not happen by chance.
const REACH_MAX: u16 = 64;

/// A session and which of its keys, as a bucket holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct EntryRef(u32);

impl EntryRef {
    /// No session; also what a look-up without any match gives.
    pub(super) const NONE: EntryRef = EntryRef(u32::MAX);
    /// Session indexes are below this.
    pub(super) const SESSIONS_MAX: u32 = i32::MAX as u32;
    const OUTBOUND: u32 = 1 << 31;

    #[inline(always)]
    pub(super) const fn new(session: SessionIndex, direction: Direction) -> Self {
        EntryRef(session.0 | (direction as u32) << 31)
    }

    #[inline(always)]
    pub(super) const fn is_none(self) -> bool {
        self.0 == u32::MAX
    }

    #[inline(always)]
    pub(super) const fn session(self) -> SessionIndex {
        SessionIndex(self.0 & !EntryRef::OUTBOUND)
    }

    #[inline(always)]
    pub(super) const fn direction(self) -> Direction {
        if self.0 & EntryRef::OUTBOUND == 0 { Direction::Inbound } else { Direction::Outbound }
    }
}

#[derive(FromZeros, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u16; SLOTS],
    /// keys whose home this is and that stand further on
    overflowed: u16,
    /// distance of the furthest of them, since there were none at last
    reach: u16,
    entries: [u32; SLOTS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    /// The slots whose tag is `tag`.
    #[inline(always)]
    fn slots_with(&self, tag: u16) -> Slots {
        let lanes: &[u16; 32] = transmute_ref!(self);
        let (head, _) = lanes.split_first_chunk::<16>().expect("16 lanes of 32");
        Slots(cpu::equal_lanes(head, tag) & TAG_BITS)
    }

    /// Puts an entry into a free slot, if there is one.
    #[inline(always)]
    fn put(&mut self, tag: u16, entry: EntryRef) -> bool {
        let Some(slot) = self.slots_with(FREE).next() else { return false };
        self.tags[slot] = tag;
        self.entries[slot] = entry.0;
        true
    }

    /// Takes an entry out, if it is there.
    #[inline(always)]
    fn take(&mut self, tag: u16, entry: EntryRef) -> bool {
        let Some(slot) = self.slots_with(tag).find(|&slot| self.entries[slot] == entry.0) else {
            return false;
        };
        self.tags[slot] = FREE;
        true
    }
}

/// Slots of a bucket, two bits each in a mask.
struct Slots(u32);

impl Iterator for Slots {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let slot = self.0.trailing_zeros() / 2;
        self.0 &= self.0 - 1;
        Some(slot as usize)
    }
}

/// The index of one table.
#[derive(Debug)]
pub(super) struct Index {
    buckets: HugeArray<Bucket>,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bucket")
    }
}

impl Index {
    /// Buckets for `sessions` sessions, that is twice as many keys: 6.4 keys per bucket, 20 bytes per
    /// session.
    pub(super) const fn buckets_for(sessions: u32) -> usize {
        (sessions as usize * 5).div_ceil(16)
    }

    /// Bytes of [`Index::buckets_for`] as many sessions.
    pub(super) const fn bytes_for(sessions: u32) -> usize {
        Index::buckets_for(sessions) * size_of::<Bucket>()
    }

    /// An empty index, present in memory from the start: its pages are touched at random from the first
    /// session on.
    pub(super) fn new(sessions: u32, pages: Pages) -> Result<Self, MapError> {
        let mut buckets = HugeArray::new(Index::buckets_for(sessions), pages)?;
        buckets.populate();
        Ok(Index { buckets })
    }

    /// The bucket `distance` after `home`; `distance` does not exceed the number of buckets.
    #[inline(always)]
    fn after(&self, home: usize, distance: usize) -> usize {
        let bucket = home + distance;
        if bucket < self.buckets.len() { bucket } else { bucket - self.buckets.len() }
    }

    #[inline(always)]
    pub(super) fn prefetch(&self, hash: KeyHash) {
        cpu::prefetch_index(&self.buckets, hash.home as usize);
    }

    /// The first entry whose tag is that of `hash`.
    #[inline(always)]
    pub(super) fn first(&self, hash: KeyHash) -> EntryRef {
        let bucket = &self.buckets[hash.home as usize];
        match bucket.slots_with(hash.tag).next() {
            Some(slot) => EntryRef(bucket.entries[slot]),
            None if bucket.overflowed == 0 => EntryRef::NONE,
            None => self.first_further(hash),
        }
    }

    #[cold]
    #[inline(never)]
    fn first_further(&self, hash: KeyHash) -> EntryRef {
        self.find(hash, |_| true).unwrap_or(EntryRef::NONE)
    }

    /// The first entry whose tag is that of `hash` and that `is_it` accepts.
    pub(super) fn find(&self, hash: KeyHash, is_it: impl Fn(EntryRef) -> bool) -> Option<EntryRef> {
        let home = hash.home as usize;
        for distance in 0..=usize::from(self.buckets[home].reach) {
            let bucket = &self.buckets[self.after(home, distance)];
            for slot in bucket.slots_with(hash.tag) {
                let entry = EntryRef(bucket.entries[slot]);
                if is_it(entry) {
                    return Some(entry);
                }
            }
        }
        None
    }

    /// Adds an entry. False if there is no room within reach, which a table within its capacity does not see.
    #[must_use]
    #[inline]
    pub(super) fn insert(&mut self, hash: KeyHash, entry: EntryRef) -> bool {
        let home = hash.home as usize;
        self.buckets[home].put(hash.tag, entry) || self.insert_further(home, hash.tag, entry)
    }

    #[cold]
    #[inline(never)]
    fn insert_further(&mut self, home: usize, tag: u16, entry: EntryRef) -> bool {
        let others = self.buckets.len() - 1;
        for distance in (1..=REACH_MAX).take(others) {
            let bucket = self.after(home, usize::from(distance));
            if self.buckets[bucket].put(tag, entry) {
                let home = &mut self.buckets[home];
                home.overflowed += 1;
                home.reach = home.reach.max(distance);
                return true;
            }
        }
        false
    }

    /// Takes an entry out. False if it was not there.
    #[inline]
    pub(super) fn remove(&mut self, hash: KeyHash, entry: EntryRef) -> bool {
        self.buckets[hash.home as usize].take(hash.tag, entry) || self.remove_further(hash, entry)
    }

    #[cold]
    #[inline(never)]
    fn remove_further(&mut self, hash: KeyHash, entry: EntryRef) -> bool {
        let home = hash.home as usize;
        for distance in 1..=usize::from(self.buckets[home].reach) {
            let bucket = self.after(home, distance);
            if self.buckets[bucket].take(hash.tag, entry) {
                let home = &mut self.buckets[home];
                home.overflowed -= 1;
                if home.overflowed == 0 {
                    home.reach = 0;
                }
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u32) -> EntryRef {
        EntryRef::new(SessionIndex(n), Direction::Inbound)
    }

    /// A hash with a given tag whose home is the first bucket.
    fn at_first_bucket(tag: u16) -> KeyHash {
        KeyHash { home: 0, tag }
    }

    #[test]
    fn an_entry_knows_its_session_and_direction() {
        for direction in [Direction::Inbound, Direction::Outbound] {
            let entry = EntryRef::new(SessionIndex(EntryRef::SESSIONS_MAX - 1), direction);
            assert_eq!((entry.session().0, entry.direction()), (EntryRef::SESSIONS_MAX - 1, direction));
            assert!(!entry.is_none());
        }
        assert!(EntryRef::NONE.is_none());
    }

    #[test]
    fn a_full_home_sends_keys_on_and_forgets_it_when_they_are_gone() {
        let mut index = Index::new(32, Pages::Transparent).unwrap();
        for n in 0..25 {
            assert!(index.insert(at_first_bucket(7), entry(n)));
        }
        assert_eq!((index.buckets[0].overflowed, index.buckets[0].reach), (15, 2));
        for n in 0..25 {
            assert_eq!(index.find(at_first_bucket(7), |found| found == entry(n)), Some(entry(n)));
        }
        for n in 0..25 {
            assert!(index.remove(at_first_bucket(7), entry(n)));
            assert!(!index.remove(at_first_bucket(7), entry(n)));
        }
        assert_eq!((index.buckets[0].overflowed, index.buckets[0].reach), (0, 0));
        assert!(index.first(at_first_bucket(7)).is_none());
    }

    #[test]
    fn the_way_on_is_as_long_in_an_index_of_any_size() {
        // 65,537 buckets: one more than the distances that a bucket can note
        let mut index = Index::new(209_718, Pages::Transparent).unwrap();
        assert_eq!(index.buckets.len(), 1 + (1 << 16));
        for n in 0..SLOTS as u32 * (1 + u32::from(REACH_MAX)) {
            assert!(index.insert(at_first_bucket(7), entry(n)), "{n}");
        }
        assert_eq!(index.buckets[0].reach, REACH_MAX);
        assert!(!index.insert(at_first_bucket(7), entry(650)));
    }

    #[test]
    fn a_look_up_goes_beyond_a_home_without_a_match() {
        let mut index = Index::new(32, Pages::Transparent).unwrap();
        for n in 0..10 {
            assert!(index.insert(at_first_bucket(7), entry(n)));
        }
        assert!(index.first(at_first_bucket(9)).is_none());
        assert!(index.insert(at_first_bucket(9), entry(10)));
        assert_eq!(index.first(at_first_bucket(9)), entry(10));
        assert!(index.remove(at_first_bucket(7), entry(3)));
        assert_eq!(index.first(at_first_bucket(9)), entry(10), "it stays where it is");
    }

    #[test]
    fn the_way_on_wraps_and_ends() {
        let mut index = Index::new(8, Pages::Transparent).unwrap();
        assert_eq!(index.buckets.len(), 3);
        let last = KeyHash { home: 2, tag: 9 };
        for n in 0..30 {
            assert!(index.insert(last, entry(n)), "{n}");
        }
        assert!(!index.insert(last, entry(30)), "thirty slots hold thirty keys");
        assert_eq!(index.buckets[2].reach, 2);
        assert_eq!(index.find(last, |found| found == entry(29)), Some(entry(29)));
    }

    /// The figures at the head of this file, and that a key's place is near its home.
    #[test]
    fn at_full_capacity_few_keys_leave_home_and_none_goes_far() {
        const SESSIONS: u32 = 500_000;
        let mut index = Index::new(SESSIONS, Pages::Transparent).unwrap();
        let mut state = 1_u64;
        for n in 0..2 * SESSIONS {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            assert!(index.insert(KeyHash::of(mixed ^ mixed >> 29, index.buckets.len() as u32), entry(n)));
        }
        let away: u32 = index.buckets.iter().map(|bucket| u32::from(bucket.overflowed)).sum();
        let furthest = index.buckets.iter().map(|bucket| bucket.reach).max().unwrap();
        println!(
            "{:.2} % of keys away from home, furthest {furthest}",
            f64::from(away) / f64::from(SESSIONS) * 50.0
        );
        assert!(away < 2 * SESSIONS / 40, "{away} keys are away from home");
        assert!(furthest < REACH_MAX / 4, "{furthest} buckets from home");
    }

    #[test]
    fn counters_beside_the_tags_are_not_taken_for_tags() {
        let mut index = Index::new(32, Pages::Transparent).unwrap();
        for n in 0..11 {
            assert!(index.insert(at_first_bucket(7), entry(n)));
        }
        // overflowed = reach = 1, and the first entry's low half is 0
        assert!(index.find(at_first_bucket(1), |_| true).is_none());
        assert_eq!(index.buckets[0].slots_with(FREE).count(), 0);
    }
}
