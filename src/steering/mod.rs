//! Which worker is the home of a packet: one function for both directions of a session, on any NIC.
//!
//! `home = reta[toeplitz(src, dst, sport, dport) & (reta_len - 1)]`, over the tuple as it stands on the packet. It is what
//! NICs compute for receive-side scaling (RSS), so a NIC that is given [`Steering::key`] and
//! [`Steering::device_reta`] delivers every packet to its home; without such a NIC a worker computes the same and
//! passes the packet on by ring. Inbound packets have the home their client's tuple gives them. Outbound packets come
//! to the same home because the lease *chooses* the LIP's port: the hash is linear over XOR, so that a destination port
//! contributes its [class](Steering::class_of_port) to the RETA index independently of everything else, and a lease
//! needs only a port of the right class ([`PortLayout`] enumerates them).
//!
//! Owned by the snapshot and shared read-only by all workers; key and RETA stay the same while the program runs.
//! Cost: one table look-up and one XOR per byte of the tuple, 12 for IPv4 and 36 for IPv6; nothing with one worker.

mod port_layout;
mod toeplitz;

pub use port_layout::PortLayout;

use std::fmt;

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::id::WorkerId;
use crate::wire::{Address, Tuple};
use toeplitz::Toeplitz;

/// Bytes of a Toeplitz key, as many as the longest that devices take; the hash uses the first 40.
pub const KEY_LEN: usize = 52;

/// Fewest entries of a redirection table.
pub const RETA_MIN: usize = 128;

/// Most entries of a redirection table.
pub const RETA_MAX: usize = 512;

/// The verification key of Microsoft's RSS specification, zeros behind: known to everybody, so for tests and for one
/// worker only.
const WELL_KNOWN_KEY: [u8; KEY_LEN] = {
    let known = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
        0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
        0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];
    let mut key = [0; KEY_LEN];
    let mut i = 0;
    while i < known.len() {
        key[i] = known[i];
        i += 1;
    }
    key
};

/// Why no steering could be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SteeringError {
    /// The redirection table has a length that is no power of two, too small or too large.
    #[error("a redirection table of {0} entries: use 128, 256 or 512")]
    RetaLength(usize),
    /// Not every worker can get an entry of the redirection table.
    #[error(
        "{workers} workers do not fit a redirection table of {reta_len} entries: use 1 to {reta_len} workers"
    )]
    Workers {
        /// workers asked for
        workers: usize,
        /// entries there are
        reta_len: usize,
    },
    /// The redirection table names no entry for a worker below the highest it names.
    #[error("the redirection table has no entry for worker {0}: give every worker at least one")]
    IdleWorker(u16),
    /// With this key L4 ports do not spread evenly over the redirection table.
    #[error(
        "the Toeplitz key does not spread L4 ports over the whole redirection table: choose a random key"
    )]
    WeakKey,
}

/// Toeplitz key and redirection table: the one function that defines a flow's home.
#[derive(Clone)]
pub struct Steering {
    toeplitz: Toeplitz,
    /// The table, repeated up to its maximum so that an index needs no length.
    reta: Box<[WorkerId; RETA_MAX]>,
    reta_len: usize,
    workers: usize,
    key: [u8; KEY_LEN],
    layout_v4: PortLayout,
    layout_v6: PortLayout,
}

impl fmt::Debug for Steering {
    /// Without the key, which is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering")
            .field("workers", &self.workers)
            .field("reta_len", &self.reta_len)
            .finish_non_exhaustive()
    }
}

impl Default for Steering {
    /// One worker, a well-known key.
    fn default() -> Self {
        Self::with_key(1, RETA_MIN, WELL_KNOWN_KEY).expect("the well-known key spreads ports")
    }
}

impl Steering {
    /// Steering over `workers` workers, round robin, with a key drawn from `seed`.
    ///
    /// `seed` must come from the operating system: who knows the key can aim flows at one worker. Keys under which L4
    /// ports would not spread evenly are drawn again.
    pub fn random(workers: usize, reta_len: usize, seed: [u8; 32]) -> Result<Self, SteeringError> {
        let mut generator = StdRng::from_seed(seed);
        loop {
            let mut key = [0; KEY_LEN];
            generator.fill_bytes(&mut key);
            match Self::with_key(workers, reta_len, key) {
                Err(SteeringError::WeakKey) => {}
                Ok(steering) if !steering.spreads_client_ports() => {}
                other => return other,
            }
        }
    }

    /// Steering over `workers` workers, round robin, with a given key, such as one that a device has and will not
    /// change.
    pub fn with_key(workers: usize, reta_len: usize, key: [u8; KEY_LEN]) -> Result<Self, SteeringError> {
        if workers == 0 || workers > reta_len {
            return Err(SteeringError::Workers { workers, reta_len });
        }
        let reta: Vec<_> = (0..reta_len).map(|entry| WorkerId((entry % workers) as u16)).collect();
        Self::with_reta(&reta, key)
    }

    /// Steering by a given redirection table and key. The workers are 0 to the highest that `reta` names.
    pub fn with_reta(reta: &[WorkerId], key: [u8; KEY_LEN]) -> Result<Self, SteeringError> {
        let reta_len = reta.len();
        if !reta_len.is_power_of_two() || !(RETA_MIN..=RETA_MAX).contains(&reta_len) {
            return Err(SteeringError::RetaLength(reta_len));
        }
        let workers = reta.iter().map(|worker| worker.index() + 1).max().unwrap_or(0);
        if workers > reta_len {
            return Err(SteeringError::Workers { workers, reta_len });
        }
        if let Some(idle) = (0..workers as u16).find(|&worker| !reta.contains(&WorkerId(worker))) {
            return Err(SteeringError::IdleWorker(idle));
        }
        let toeplitz = Toeplitz::new(&key);
        let mask = reta_len as u32 - 1;
        let class_bits = reta_len.trailing_zeros();
        let layout = |position: usize| {
            PortLayout::new(class_bits, |port| (toeplitz.port(position, port) & mask) as u16)
                .ok_or(SteeringError::WeakKey)
        };
        Ok(Steering {
            layout_v4: layout(toeplitz::V4_DPORT)?,
            layout_v6: layout(toeplitz::V6_DPORT)?,
            reta: Box::new(std::array::from_fn(|entry| reta[entry & (reta_len - 1)])),
            reta_len,
            workers,
            key,
            toeplitz,
        })
    }

    /// The worker that owns the flow this packet belongs to, from the tuple as it stands on the packet.
    #[inline]
    pub fn home(&self, tuple: &Tuple) -> WorkerId {
        if self.workers == 1 {
            return WorkerId(0);
        }
        self.home_of_hash(self.hash(tuple))
    }

    /// The worker that owns flows with this hash, such as one that the device computed with [`Steering::key`].
    #[inline(always)]
    pub fn home_of_hash(&self, hash: u32) -> WorkerId {
        self.reta[hash as usize & (RETA_MAX - 1)]
    }

    /// The Toeplitz hash of addresses and L4 ports, in the form of the family of `tuple.src`.
    #[inline]
    pub fn hash(&self, tuple: &Tuple) -> u32 {
        if tuple.src.is_v4() {
            self.hash_v4(tuple.src.v4_octets(), tuple.dst.v4_octets(), tuple.sport, tuple.dport)
        } else {
            self.hash_v6(tuple.src.octets(), tuple.dst.octets(), tuple.sport, tuple.dport)
        }
    }

    /// What a NIC computes over an IPv4 packet with TCP or UDP. Ports are in host order.
    #[inline]
    pub fn hash_v4(&self, src: [u8; 4], dst: [u8; 4], sport: u16, dport: u16) -> u32 {
        self.toeplitz.v4(src, dst, sport, dport)
    }

    /// What a NIC computes over an IPv6 packet with TCP or UDP. Ports are in host order.
    #[inline]
    pub fn hash_v6(&self, src: &[u8; 16], dst: &[u8; 16], sport: u16, dport: u16) -> u32 {
        self.toeplitz.v6(src, dst, sport, dport)
    }

    /// The part that a packet's destination port has in the RETA index. On an outbound packet, RIP:rport to LIP:lport,
    /// that is the lport: `home = reta[base_class(RIP, LIP, rport) ^ class_of_port(v4, lport)]`.
    #[inline]
    pub fn class_of_port(&self, v4: bool, dport: u16) -> u16 {
        self.port_layout(v4).class_of(dport)
    }

    /// The part that everything else has in the RETA index.
    #[inline]
    pub fn base_class(&self, src: &Address, dst: &Address, sport: u16) -> u16 {
        let hash = if src.is_v4() {
            self.hash_v4(src.v4_octets(), dst.v4_octets(), sport, 0)
        } else {
            self.hash_v6(src.octets(), dst.octets(), sport, 0)
        };
        hash as u16 & (self.reta_len as u16 - 1)
    }

    /// The L4 ports of one family, ordered by class.
    #[inline]
    pub fn port_layout(&self, v4: bool) -> &PortLayout {
        if v4 { &self.layout_v4 } else { &self.layout_v6 }
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The key, for a device that takes one. A device whose keys are shorter takes the first 40 bytes.
    pub fn key(&self) -> &[u8; KEY_LEN] {
        &self.key
    }

    /// The redirection table, 128 to 512 entries.
    pub fn reta(&self) -> &[WorkerId] {
        &self.reta[..self.reta_len]
    }

    /// The redirection table for a device whose own has `device_len` entries: worker `w` stands for its queue `w`.
    ///
    /// Devices index their table by the low bits of the hash. A longer table therefore repeats ours; a shorter one
    /// serves only if ours repeats itself with its length. `None` if the device cannot do what [`Steering::home`] does:
    /// then the hand-off ring delivers.
    pub fn device_reta(&self, device_len: usize) -> Option<Vec<u16>> {
        if !device_len.is_power_of_two() {
            return None;
        }
        let reta = self.reta();
        let repeats = reta.iter().enumerate().all(|(entry, worker)| *worker == reta[entry % device_len]);
        repeats.then(|| (0..device_len).map(|entry| reta[entry % self.reta_len].0).collect())
    }

    /// Whether clients' ports reach every entry of the table as evenly as ours do.
    fn spreads_client_ports(&self) -> bool {
        [toeplitz::V4_SPORT, toeplitz::V6_SPORT].iter().all(|&position| {
            let mask = self.reta_len as u32 - 1;
            PortLayout::new(self.reta_len.trailing_zeros(), |port| {
                (self.toeplitz.port(position, port) & mask) as u16
            })
            .is_some()
        })
    }
}

#[cfg(test)]
mod tests;
