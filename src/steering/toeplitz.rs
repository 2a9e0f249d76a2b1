//! The Toeplitz hash of receive-side scaling, as NICs compute it over addresses and ports.
//!
//! Source: Microsoft, "RSS Hashing Types" and "Verifying the RSS Hash Calculation". For every set bit of the input, in
//! network order, the 32 key bits that begin at the same position are XORed together. The hash is linear:
//! `hash(a ^ b) = hash(a) ^ hash(b)`, so each byte of the input contributes by itself and is looked up.
//!
//! Cost: one load and one XOR per byte; tables of 1 KiB per byte position, 12 KiB for IPv4 and 36 KiB for IPv6.

use super::KEY_LEN;

/// Bytes of the longest input: two IPv6 addresses and two ports.
const INPUT_LEN: usize = 36;

/// Where the source port stands in the input of an IPv4 packet.
pub(super) const V4_SPORT: usize = 8;
/// Where the destination port stands in the input of an IPv4 packet.
pub(super) const V4_DPORT: usize = 10;
/// Where the source port stands in the input of an IPv6 packet.
pub(super) const V6_SPORT: usize = 32;
/// Where the destination port stands in the input of an IPv6 packet.
pub(super) const V6_DPORT: usize = 34;

/// One key's hash: what each value of each input byte contributes.
#[derive(Clone)]
pub(super) struct Toeplitz {
    tables: Box<[[u32; 256]; INPUT_LEN]>,
}

impl Toeplitz {
    pub(super) fn new(key: &[u8; KEY_LEN]) -> Self {
        let mut tables = Box::new([[0; 256]; INPUT_LEN]);
        for (position, table) in tables.iter_mut().enumerate() {
            // the 40 key bits that the byte's eight 32-bit windows lie in
            let bits =
                key[position..position + 5].iter().fold(0u64, |bits, &byte| bits << 8 | u64::from(byte));
            for (value, contribution) in table.iter_mut().enumerate() {
                *contribution = (0..8)
                    .filter(|bit| value & (0x80 >> bit) != 0)
                    .fold(0, |hash, bit| hash ^ (bits >> (8 - bit)) as u32);
            }
        }
        Toeplitz { tables }
    }

    /// What the two bytes of an L4 port contribute at byte `position` of the input.
    pub(super) fn port(&self, position: usize, port: u16) -> u32 {
        let [high, low] = port.to_be_bytes();
        self.tables[position][usize::from(high)] ^ self.tables[position + 1][usize::from(low)]
    }

    #[inline(always)]
    pub(super) fn v4(&self, src: [u8; 4], dst: [u8; 4], sport: u16, dport: u16) -> u32 {
        self.octets::<0, 4>(&src)
            ^ self.octets::<4, 4>(&dst)
            ^ self.octets::<V4_SPORT, 2>(&sport.to_be_bytes())
            ^ self.octets::<V4_DPORT, 2>(&dport.to_be_bytes())
    }

    #[inline(always)]
    pub(super) fn v6(&self, src: &[u8; 16], dst: &[u8; 16], sport: u16, dport: u16) -> u32 {
        self.octets::<0, 16>(src)
            ^ self.octets::<16, 16>(dst)
            ^ self.octets::<V6_SPORT, 2>(&sport.to_be_bytes())
            ^ self.octets::<V6_DPORT, 2>(&dport.to_be_bytes())
    }

    /// What `N` bytes contribute from byte `AT` of the input on; constants, so that no bounds are checked.
    #[inline(always)]
    fn octets<const AT: usize, const N: usize>(&self, octets: &[u8; N]) -> u32 {
        let mut hash = 0;
        for (i, &octet) in octets.iter().enumerate() {
            hash ^= self.tables[AT + i][usize::from(octet)];
        }
        hash
    }
}
