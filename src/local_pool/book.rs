//! Books: which ports of a worker's share of one (LIP, RIP, rport, protocol) are held.
//!
//! ```text
//! one book:  [ summary: a bit per word, 1 = no free port in it ][ held: a bit per port of the share, 1 = held ]
//! ```
//!
//! A bit of `held` is the truth of a lease, whatever the pool's range of ports is now or becomes; what may be leased
//! is the range's ports that are not held. A book without leases is all zero, so that one given back needs no
//! cleaning, and a fresh one touches only the words it uses.
//!
//! All books lie in one arena mapped at start, whose pages are touched with use. Taking a port costs a few random
//! numbers and words while a quarter of the ports is free, and beyond that never more than a walk over the summary (16
//! words for 65,536 ports). The first number is drawn when the port before it is taken, so that its word has all the time
//! until then to come from memory.

use rand::{Rng, rngs::StdRng};

use super::NONE;
use super::memory::room_for;
use super::range::PortRange;
use super::ring::{KINDS, Links};
use super::share::Share;
use crate::chain::{Chained, Chains};
use crate::cpu::{self, HugeArray, Pages};
use crate::wire::{Address, Protocol};

/// Random ports of the share looked at before the summary is asked, while one in four is free.
const SHARE_TRIES: (u32, usize) = (4, 8);

/// Random ports of the pool's range looked at before the summary is asked, while one in sixteen is free and ours:
/// narrow ranges lie unevenly in the words, so the summary would prefer some ports.
const RANGE_TRIES: (u32, usize) = (16, 32);

/// Random words looked at before the words with free ports are counted.
const WORD_TRIES: usize = 3;

/// What is known of one book beside its bits.
#[repr(C, align(64))]
pub(super) struct Book {
    /// its neighbours in the rings it hangs in
    pub(super) links: [Links; KINDS],
    /// ports that may be leased now
    pub(super) free: u32,
    /// ports of the share within the pool's range
    pub(super) capacity: u32,
    /// ports held, leased or resting, within the range or not
    pub(super) held: u32,
    /// contribution of LIP, RIP and rport to the RETA index
    base: u16,
    /// the pool's range of ports for which `free`, `capacity` and the summary hold
    pub(super) range: u16,
    /// whose it is; [`NONE`]: nobody's, its last leases drain
    pub(super) destination: u32,
    /// slot of its LIP
    pub(super) lip: u32,
    first: u16,
    last: u16,
    /// the port that is tried first when the next one is taken; 0: none was drawn yet
    ahead: u16,
    pub(super) v4: bool,
    // the second line: seldom needed
    pub(super) protocol: Protocol,
    pub(super) rport: u16,
    pub(super) rip: Address,
    /// ports of `held` that rest
    pub(super) resting: u32,
    /// sessions whose lease may be taken over, oldest first
    pub(super) reclaim_first: u32,
    pub(super) reclaim_last: u32,
    chain_next: u32,
}

const _: () = assert!(size_of::<Book>() == 128);

impl Book {
    /// Whether more than half of its ports are taken.
    #[inline(always)]
    pub(super) fn over_half(&self) -> bool {
        self.free * 2 < self.capacity
    }

    /// How many ports random ones are drawn from, and whether that is the pool's range: it or the share, whichever is
    /// smaller.
    #[inline(always)]
    fn drawn_from(&self, share: &Share) -> (u32, bool) {
        let span = u32::from(self.last - self.first) + 1;
        (span.min(share.bits()), span < share.bits())
    }

    /// How many random ports are looked at before the summary is asked.
    #[inline(always)]
    fn tries(&self, share: &Share) -> usize {
        let (room, by_range) = self.drawn_from(share);
        let (one_in, tries) = if by_range { RANGE_TRIES } else { SHARE_TRIES };
        if self.free * one_in >= room { tries } else { 0 }
    }

    /// A port at random.
    #[inline(always)]
    fn draw(&self, share: &Share, random: &mut StdRng) -> u16 {
        let (room, by_range) = self.drawn_from(share);
        let drawn = scale(random.next_u32(), room);
        if by_range {
            self.first + drawn as u16
        } else {
            share.port_at(share.layout(self.v4), self.base, drawn)
        }
    }

    /// The place of the bit of `port` and its mask, `None` if the port is another worker's.
    #[inline(always)]
    fn place_of(&self, port: u16, share: &Share) -> Option<(usize, u64)> {
        let bit = share.bit_of(share.layout(self.v4), self.base, port)?;
        Some((bit as usize / 64, 1 << (bit % 64)))
    }

    /// Marks `port` as held if it may be leased and is free.
    #[inline(always)]
    fn claim(&self, bits: &mut Bits<'_>, port: u16, ports: &PortRange, share: &Share) -> bool {
        if !(self.first..=self.last).contains(&port) {
            return false;
        }
        let Some((word, mask)) = self.place_of(port, share) else { return false };
        looks_at(&bits.held[word]);
        if bits.held[word] & mask != 0 {
            return false;
        }
        bits.held[word] |= mask;
        let (room, _) = self.drawn_from(share);
        if room < share.bits() / 2 {
            // Few ports to a word: without this the summary would send many a search to words without any.
            let within = &ports.words[share.layout_word(self.base, word)];
            looks_at(within);
            if within & !bits.held[word] == 0 {
                bits.summary[word / 64] |= 1 << (word % 64);
            }
        }
        true
    }
}

/// The bits of one book.
struct Bits<'a> {
    summary: &'a mut [u64],
    held: &'a mut [u64],
}

impl<'a> Bits<'a> {
    #[inline(always)]
    fn of(words: &'a mut [u64], summary_len: usize) -> Self {
        let (summary, held) = words.split_at_mut(summary_len);
        Bits { summary, held }
    }
}

impl Chained for Book {
    fn chain_next(&self) -> u32 {
        self.chain_next
    }

    fn set_chain_next(&mut self, next: u32) {
        self.chain_next = next;
    }
}

/// Names a book: its LIP's slot and the real server's side.
#[derive(Clone, Copy)]
pub(super) struct BookKey {
    pub(super) lip: u32,
    pub(super) protocol: Protocol,
    pub(super) rip: Address,
    pub(super) rport: u16,
}

impl BookKey {
    fn rest(&self) -> u64 {
        u64::from(self.lip) << 32 | u64::from(self.rport) << 16 | self.protocol as u64
    }
}

/// Words of the summary over so many words of bits.
pub(super) const fn summary_len(words: usize) -> usize {
    words.div_ceil(64)
}

/// The arena of books.
pub(super) struct Books {
    pub(super) records: Vec<Book>,
    records_max: usize,
    /// books given back, chained by `chain_next`
    spare: u32,
    chains: Chains,
    words: HugeArray<u64>,
    summary_len: usize,
    stride: usize,
}

impl Books {
    /// An empty arena; `None` if there is no memory for it.
    pub(super) fn new(records_max: usize, share: &Share, hasher: ahash::RandomState) -> Option<Self> {
        let summary_len = summary_len(share.words());
        let stride = summary_len + share.words();
        Some(Books {
            records: room_for(records_max)?,
            records_max,
            spare: NONE,
            chains: Chains::new(records_max, hasher).ok()?,
            words: HugeArray::new(records_max.checked_mul(stride)?, Pages::Small).ok()?,
            summary_len,
            stride,
        })
    }

    pub(super) fn find(&self, key: &BookKey) -> Option<u32> {
        self.chains.find(&self.records, self.chains.chain((&key.rip, key.rest())), |book| {
            book.lip == key.lip
                && book.rport == key.rport
                && book.protocol == key.protocol
                && book.rip == key.rip
        })
    }

    /// Whether another book can be made.
    pub(super) fn has_room(&self) -> bool {
        self.spare != NONE || self.records.len() < self.records_max
    }

    /// A new book that belongs to nobody; room must have been asked for.
    pub(super) fn create(
        &mut self,
        key: &BookKey,
        lip: &Address,
        range: u16,
        ports: &PortRange,
        share: &Share,
    ) -> u32 {
        let book = Book {
            links: [Links::LOOSE; KINDS],
            free: 0,
            capacity: 0,
            held: 0,
            base: share.steering.base_class(&key.rip, lip, key.rport),
            range,
            destination: NONE,
            lip: key.lip,
            first: 0,
            last: 0,
            ahead: 0,
            v4: key.rip.is_v4(),
            protocol: key.protocol,
            rport: key.rport,
            rip: key.rip,
            resting: 0,
            reclaim_first: NONE,
            reclaim_last: NONE,
            chain_next: NONE,
        };
        let id = if self.spare == NONE {
            assert!(self.records.len() < self.records_max, "room for a book was asked for");
            self.records.push(book);
            self.records.len() as u32 - 1
        } else {
            let id = self.spare;
            self.spare = self.records[id as usize].chain_next;
            self.records[id as usize] = book;
            id
        };
        self.chains.insert(&mut self.records, self.chains.chain((&key.rip, key.rest())), id);
        self.fit(id, range, ports, share);
        id
    }

    /// Gives a book without leases back.
    pub(super) fn destroy(&mut self, id: u32) {
        let book = &self.records[id as usize];
        debug_assert!(book.held == 0 && book.destination == NONE);
        debug_assert_eq!(
            book.reclaim_first, NONE,
            "a session's offer is withdrawn before its lease is given back"
        );
        let key = BookKey { lip: book.lip, protocol: book.protocol, rip: book.rip, rport: book.rport };
        self.chains.remove(&mut self.records, self.chains.chain((&key.rip, key.rest())), id);
        self.records[id as usize].chain_next = self.spare;
        self.spare = id;
    }

    /// Makes the ports of `ports` that are not held the free ones. About a microsecond.
    pub(super) fn fit(&mut self, id: u32, range: u16, ports: &PortRange, share: &Share) {
        let book = &mut self.records[id as usize];
        let bits = &mut self.words[id as usize * self.stride..][..self.stride];
        let (summary, held) = bits.split_at_mut(self.summary_len);
        summary.fill(u64::MAX);
        (book.range, book.first, book.last) = (range, ports.first, ports.last);
        (book.free, book.capacity) = (0, 0);
        for word in 0..held.len() {
            let within = ports.words[share.layout_word(book.base, word)];
            if within == 0 {
                continue;
            }
            // a book without leases is known to be zero: do not touch its memory for that
            let free = if book.held == 0 { within } else { within & !held[word] };
            book.capacity += within.count_ones();
            book.free += free.count_ones();
            if free != 0 {
                summary[word / 64] &= !(1 << (word % 64));
            }
        }
    }

    /// Takes a free port at random; `None` only if there is none.
    ///
    /// While enough ports are free, random ones are tried, from the share or from the pool's range, whichever is
    /// smaller: each free port is equally likely (RFC 6056 §3.3.2). Beyond, the summary leads to one nearly as evenly.
    #[inline(always)]
    pub(super) fn take(
        &mut self,
        id: u32,
        ports: &PortRange,
        share: &Share,
        random: &mut StdRng,
    ) -> Option<u16> {
        let book = &mut self.records[id as usize];
        let words = &mut self.words[id as usize * self.stride..][..self.stride];
        let mut bits = Bits::of(words, self.summary_len);
        let port = if book.claim(&mut bits, book.ahead, ports, share) {
            book.ahead
        } else {
            search(book, &mut bits, ports, share, random)?
        };
        book.free -= 1;
        book.held += 1;
        book.ahead = 0;
        if book.tries(share) > 0 {
            book.ahead = book.draw(share, random);
            if let Some((word, _)) = book.place_of(book.ahead, share) {
                cpu::prefetch_index(bits.held, word);
            }
        }
        Some(port)
    }

    /// Gives a port back. False, and nothing happens, if it was not held.
    #[inline]
    pub(super) fn give_back(&mut self, id: u32, lport: u16, share: &Share) -> bool {
        let Some(book) = self.records.get_mut(id as usize) else { return false };
        let words = &mut self.words[id as usize * self.stride..][..self.stride];
        let bits = Bits::of(words, self.summary_len);
        let Some((word, mask)) = book.place_of(lport, share) else { return false };
        if bits.held[word] & mask == 0 {
            return false;
        }
        bits.held[word] &= !mask;
        book.held -= 1;
        if (book.first..=book.last).contains(&lport) {
            book.free += 1;
            bits.summary[word / 64] &= !(1 << (word % 64));
        }
        true
    }
}

/// Names what a lease looks at to the test that counts it (conformance H6). Nothing in what is shipped.
#[inline(always)]
pub(super) fn looks_at<T>(_place: &T) {
    #[cfg(test)]
    super::tests::work::note(_place);
}

/// A random number below `bound`: the upper half of the product (Lemire 2019, without rejection; the bias of at most
/// 2^-16 is far below what can be observed).
#[inline(always)]
fn scale(random: u32, bound: u32) -> u32 {
    ((u64::from(random) * u64::from(bound)) >> 32) as u32
}

/// Takes a free port: tries random ones while enough are free, else one of a random word that has any. Every such word is
/// equally likely, and most have one or two.
#[inline(never)]
fn search(
    book: &Book,
    bits: &mut Bits<'_>,
    ports: &PortRange,
    share: &Share,
    random: &mut StdRng,
) -> Option<u16> {
    for _ in 0..book.tries(share) {
        let port = book.draw(share, random);
        if book.claim(bits, port, ports, share) {
            return Some(port);
        }
    }
    loop {
        let word = open_word(bits.summary, bits.held.len() as u32, random)?;
        let within = &ports.words[share.layout_word(book.base, word)];
        looks_at(within);
        looks_at(&bits.held[word]);
        let free = within & !bits.held[word];
        if free & free.wrapping_sub(1) == 0 {
            // its last free port goes now, or random tries took it unnoticed
            bits.summary[word / 64] |= 1 << (word % 64);
        }
        if free != 0 {
            let bit = pick_bit(free, random.next_u32());
            bits.held[word] |= 1 << bit;
            return Some(share.port_at(share.layout(book.v4), book.base, word as u32 * 64 + bit));
        }
    }
}

/// A random one of the words whose summary bit is 0: a few are tried, then they are counted and one is counted off.
#[inline(always)]
fn open_word(summary: &[u64], words: u32, random: &mut StdRng) -> Option<usize> {
    for _ in 0..WORD_TRIES {
        let word = scale(random.next_u32(), words) as usize;
        looks_at(&summary[word / 64]);
        if summary[word / 64] >> (word % 64) & 1 == 0 {
            return Some(word);
        }
    }
    let mut ahead = scale(random.next_u32(), summary.iter().map(|group| group.count_zeros()).sum());
    for (at, group) in summary.iter().enumerate() {
        looks_at(group);
        let here = group.count_zeros();
        if ahead < here {
            return Some(at * 64 + nth_bit(!*group, ahead) as usize);
        }
        ahead -= here;
    }
    None
}

/// A random bit of those set in `bits`, of which there is one at least. Two random bits are looked at before set bits
/// are counted off.
#[inline(always)]
fn pick_bit(bits: u64, random: u32) -> u32 {
    for bit in [random & 63, random >> 6 & 63] {
        if bits >> bit & 1 != 0 {
            return bit;
        }
    }
    nth_bit(bits, scale(random >> 12 << 12, bits.count_ones()))
}

/// The place of the set bit with `ahead` set bits below it.
#[inline(always)]
fn nth_bit(bits: u64, ahead: u32) -> u32 {
    (0..ahead).fold(bits, |rest, _| rest & (rest - 1)).trailing_zeros()
}
