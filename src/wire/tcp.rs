//! TCP headers (RFC 9293 §3.1).

use super::Address;
use super::checksum::l4_checksum;
use super::field::{get_array, get_u16, get_u32, put_u16, put_u32};

/// IANA protocol number
pub const PROTOCOL: u8 = 6;
/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Bytes of the longest header.
pub const HEADER_LEN_MAX: usize = 60;
/// Bytes of options that a header can hold.
pub const OPTIONS_LEN_MAX: usize = HEADER_LEN_MAX - HEADER_LEN;
/// Where the checksum stands in the header.
pub const CHECKSUM_OFFSET: usize = 16;

/// the sender has finished sending
pub const FIN: u8 = 0x01;
/// sequence numbers start
pub const SYN: u8 = 0x02;
/// the connection is reset
pub const RST: u8 = 0x04;
/// the receiver should hand on what it has
pub const PSH: u8 = 0x08;
/// the acknowledgement number is valid
pub const ACK: u8 = 0x10;
/// the urgent pointer is valid
pub const URG: u8 = 0x20;
/// ECN echo (RFC 3168)
pub const ECE: u8 = 0x40;
/// congestion window reduced (RFC 3168)
pub const CWR: u8 = 0x80;

/// Segment size that a peer without an MSS option takes over IPv4 (RFC 9293 §3.7.1).
pub const MSS_DEFAULT_V4: u16 = 536;
/// Segment size that a peer without an MSS option takes over IPv6 (RFC 9293 §3.7.1).
pub const MSS_DEFAULT_V6: u16 = 1220;

/// The MSS option's value for a link's MTU: what is left without the fixed headers (RFC 6691 §2). 0 for no MTU at all.
#[inline]
pub const fn mss_for_mtu(mtu: u16, v6: bool) -> u16 {
    mtu.saturating_sub(if v6 { 60 } else { 40 })
}

/// Why a segment has no valid header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TcpError {
    /// fewer than twenty bytes
    #[error("the segment is shorter than a TCP header")]
    Truncated,
    /// data offset below 5, or beyond the segment
    #[error("the TCP data offset is below 20 bytes or beyond the segment")]
    HeaderLength,
}

/// A segment whose header length was checked.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<'a> {
    fixed: &'a [u8; HEADER_LEN],
    segment: &'a [u8],
}

impl<'a> Tcp<'a> {
    /// Checks a segment: the IP payload without link padding, or as much of it as lies in one piece.
    ///
    /// # Errors
    /// [`TcpError`] says which check failed.
    #[inline]
    pub fn parse(segment: &'a [u8]) -> Result<Self, TcpError> {
        let fixed = segment.first_chunk::<HEADER_LEN>().ok_or(TcpError::Truncated)?;
        let header_len = header_len(fixed);
        if header_len < HEADER_LEN || header_len > segment.len() {
            return Err(TcpError::HeaderLength);
        }
        Ok(Tcp { fixed, segment })
    }

    /// Source port.
    #[inline(always)]
    pub fn sport(&self) -> u16 {
        sport(self.fixed)
    }

    /// Destination port.
    #[inline(always)]
    pub fn dport(&self) -> u16 {
        dport(self.fixed)
    }

    /// Sequence number of the first byte, or of the SYN.
    #[inline(always)]
    pub fn seq(&self) -> u32 {
        seq(self.fixed)
    }

    /// Acknowledgement number; valid with [`ACK`].
    #[inline(always)]
    pub fn ack(&self) -> u32 {
        ack(self.fixed)
    }

    /// Bytes of the header, options included: 20 to 60.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        header_len(self.fixed)
    }

    /// The eight flags.
    #[inline(always)]
    pub fn flags(&self) -> u8 {
        flags(self.fixed)
    }

    /// Window, not scaled.
    #[inline(always)]
    pub fn window(&self) -> u16 {
        window(self.fixed)
    }

    /// Checksum field.
    #[inline(always)]
    pub fn checksum(&self) -> u16 {
        checksum(self.fixed)
    }

    /// The options, for [`super::tcp_option::Options`].
    #[inline(always)]
    pub fn options(&self) -> &'a [u8] {
        &self.segment[HEADER_LEN..self.header_len()]
    }

    /// What follows the header, as far as it lies in the piece that was parsed.
    #[inline(always)]
    pub fn payload(&self) -> &'a [u8] {
        &self.segment[self.header_len()..]
    }
}

/// Source port.
#[inline(always)]
pub fn sport(segment: &[u8]) -> u16 {
    get_u16(segment, 0)
}

/// Destination port.
#[inline(always)]
pub fn dport(segment: &[u8]) -> u16 {
    get_u16(segment, 2)
}

/// Sequence number.
#[inline(always)]
pub fn seq(segment: &[u8]) -> u32 {
    get_u32(segment, 4)
}

/// Acknowledgement number; valid with [`ACK`].
#[inline(always)]
pub fn ack(segment: &[u8]) -> u32 {
    get_u32(segment, 8)
}

/// Bytes of the header as its data offset says.
#[inline(always)]
pub fn header_len(segment: &[u8]) -> usize {
    usize::from(segment[12] >> 4) * 4
}

/// The eight flags.
#[inline(always)]
pub fn flags(segment: &[u8]) -> u8 {
    segment[13]
}

/// Window, not scaled.
#[inline(always)]
pub fn window(segment: &[u8]) -> u16 {
    get_u16(segment, 14)
}

/// Checksum field.
#[inline(always)]
pub fn checksum(segment: &[u8]) -> u16 {
    get_u16(segment, CHECKSUM_OFFSET)
}

/// Sets the source port; the checksum is the caller's, as in all setters.
#[inline(always)]
pub fn set_sport(segment: &mut [u8], port: u16) {
    put_u16(segment, 0, port);
}

/// Sets the destination port.
#[inline(always)]
pub fn set_dport(segment: &mut [u8], port: u16) {
    put_u16(segment, 2, port);
}

/// Sets the sequence number.
#[inline(always)]
pub fn set_seq(segment: &mut [u8], seq: u32) {
    put_u32(segment, 4, seq);
}

/// Sets the acknowledgement number.
#[inline(always)]
pub fn set_ack(segment: &mut [u8], ack: u32) {
    put_u32(segment, 8, ack);
}

/// Sets the data offset; `header_len` is a multiple of 4 from 20 to 60. The reserved bits beside it stay.
#[inline(always)]
pub fn set_header_len(segment: &mut [u8], header_len: usize) {
    debug_assert!(header_len.is_multiple_of(4) && (HEADER_LEN..=HEADER_LEN_MAX).contains(&header_len));
    segment[12] = ((header_len / 4) as u8) << 4 | segment[12] & 0x0f;
}

/// What tells kinds of segments: the header's length, and SYN, FIN, RST and ACK; as these bytes lie in memory.
#[inline(always)]
pub fn shape(header: &[u8; HEADER_LEN]) -> u16 {
    u16::from_ne_bytes(get_array(header, 12)) & SHAPE.to_be()
}

/// The [`shape`] of data or an acknowledgement with so many bytes of options, a multiple of 4.
#[inline(always)]
pub const fn shape_of_ack(options_len: usize) -> u16 {
    with_more_options((HEADER_LEN as u16 / 4) << 12 | ACK as u16, options_len).to_be()
}

const SHAPE: u16 = 0xf000 | (SYN | FIN | RST | ACK) as u16;

/// The word of data offset, reserved bits and flags once the header has `len` more bytes of options, a multiple of 4 for
/// which there is room; for checksum differences.
#[inline(always)]
pub const fn with_more_options(word: u16, len: usize) -> u16 {
    word + ((len / 4) << 12) as u16
}

/// Adds `len` bytes of options to the data offset, as [`with_more_options`] does.
#[inline(always)]
pub fn lengthen_options(segment: &mut [u8], len: usize) {
    segment[12] += ((len / 4) << 4) as u8;
}

/// Sets the flags.
#[inline(always)]
pub fn set_flags(segment: &mut [u8], flags: u8) {
    segment[13] = flags;
}

/// Sets the window.
#[inline(always)]
pub fn set_window(segment: &mut [u8], window: u16) {
    put_u16(segment, 14, window);
}

/// Sets the checksum field.
#[inline(always)]
pub fn set_checksum(segment: &mut [u8], checksum: u16) {
    put_u16(segment, CHECKSUM_OFFSET, checksum);
}

/// Sequence numbers that a segment takes up: SYN and FIN count one each (RFC 9293 §3.4).
#[inline(always)]
pub const fn segment_len(flags: u8, payload_len: u32) -> u32 {
    payload_len + (flags & SYN != 0) as u32 + (flags & FIN != 0) as u32
}

/// Whether a stack could have sent these flags: SYN, SYN+ACK, ACK, FIN+ACK, RST or RST+ACK, each with any of PSH, URG,
/// ECE and CWR. NULL, XMAS, SYN+FIN, SYN+RST and FIN without ACK are scans (Linux `tcp_valid_flags`).
#[inline(always)]
pub const fn flags_plausible(flags: u8) -> bool {
    const PLAUSIBLE: u32 =
        1 << SYN | 1 << (SYN | ACK) | 1 << ACK | 1 << (FIN | ACK) | 1 << RST | 1 << (RST | ACK);
    PLAUSIBLE >> (flags & (FIN | SYN | RST | ACK)) & 1 != 0
}

/// Whether sequence number `a` lies before `b` (RFC 9293 §3.4: modulo 2^32).
#[inline(always)]
pub const fn seq_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// Whether sequence number `a` lies after `b`.
#[inline(always)]
pub const fn seq_after(a: u32, b: u32) -> bool {
    seq_before(b, a)
}

/// A segment without options and payload that the gateway sends of its own accord.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// source port
    pub sport: u16,
    /// destination port
    pub dport: u16,
    /// sequence number
    pub seq: u32,
    /// acknowledgement number, 0 without [`ACK`]
    pub ack: u32,
    /// flags
    pub flags: u8,
    /// window
    pub window: u16,
}

impl Segment {
    /// The RST that answers a segment for which there is no connection (RFC 9293 §3.10.7.1); none for a RST.
    ///
    /// `payload_len` counts the payload that the IP header claims, whether or not it lies in the parsed piece.
    #[inline]
    pub fn reset_for(segment: &Tcp<'_>, payload_len: u32) -> Option<Segment> {
        let flags = segment.flags();
        if flags & RST != 0 {
            return None;
        }
        let (seq, ack, flags) = if flags & ACK != 0 {
            (segment.ack(), 0, RST)
        } else {
            (0, segment.seq().wrapping_add(segment_len(flags, payload_len)), RST | ACK)
        };
        Some(Segment { sport: segment.dport(), dport: segment.sport(), seq, ack, flags, window: 0 })
    }
}

/// Writes a segment of [`HEADER_LEN`] bytes with its checksum to the front of `out`; the result is that length.
#[inline]
pub fn write_segment(out: &mut [u8], src: &Address, dst: &Address, segment: &Segment) -> usize {
    let out = &mut out[..HEADER_LEN];
    out.fill(0);
    set_sport(out, segment.sport);
    set_dport(out, segment.dport);
    set_seq(out, segment.seq);
    set_ack(out, segment.ack);
    set_header_len(out, HEADER_LEN);
    set_flags(out, segment.flags);
    set_window(out, segment.window);
    let checksum = l4_checksum(src, dst, PROTOCOL, out);
    set_checksum(out, checksum);
    HEADER_LEN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::checksum::verify_l4;
    use proptest::prelude::*;

    const SEGMENT: Segment =
        Segment { sport: 40_001, dport: 80, seq: 0xffff_fff0, ack: 7, flags: ACK | PSH, window: 512 };

    fn addresses() -> (Address, Address) {
        (Address::from_v4([10, 1, 0, 1]), Address::from_v4([10, 1, 0, 100]))
    }

    fn bytes_of(segment: &Segment) -> [u8; 20] {
        let mut out = [0xee; 20];
        let (src, dst) = addresses();
        assert_eq!(write_segment(&mut out, &src, &dst, segment), 20);
        out
    }

    #[test]
    fn a_written_segment_reads_back_and_etherparse_agrees() {
        let bytes = bytes_of(&SEGMENT);
        let (src, dst) = addresses();
        assert!(verify_l4(&src, &dst, PROTOCOL, &bytes));
        let view = Tcp::parse(&bytes).unwrap();
        assert_eq!((view.sport(), view.dport(), view.seq(), view.ack()), (40_001, 80, 0xffff_fff0, 7));
        assert_eq!((view.flags(), view.window(), view.header_len()), (ACK | PSH, 512, 20));
        assert!(view.options().is_empty() && view.payload().is_empty());
        let (oracle, _) = etherparse::TcpHeader::from_slice(&bytes).unwrap();
        assert_eq!(
            oracle.calc_checksum_ipv4_raw(src.v4_octets(), dst.v4_octets(), &[]).unwrap(),
            view.checksum()
        );
        assert!(oracle.ack && oracle.psh && !oracle.syn && !oracle.rst);
    }

    #[test]
    fn conformance_i6_wrong_data_offsets_and_short_segments_are_refused() {
        let mut bytes = [0u8; 40];
        bytes[..20].copy_from_slice(&bytes_of(&SEGMENT));
        for offset in 0..16u8 {
            bytes[12] = offset << 4;
            let expected = (5..=10).contains(&offset);
            assert_eq!(Tcp::parse(&bytes).is_ok(), expected, "data offset {offset}");
        }
        for len in 0..20 {
            assert_eq!(Tcp::parse(&bytes[..len]).err(), Some(TcpError::Truncated));
        }
        bytes[12] = 0x80;
        let view = Tcp::parse(&bytes).unwrap();
        assert_eq!((view.options().len(), view.payload().len()), (12, 8));
    }

    #[test]
    fn conformance_i5_only_flags_that_stacks_send_are_plausible() {
        let plausible = [
            SYN,
            SYN | ACK,
            ACK,
            ACK | PSH,
            ACK | URG,
            FIN | ACK,
            FIN | ACK | PSH | URG,
            RST,
            RST | ACK,
            SYN | ECE | CWR,
            SYN | ACK | ECE,
        ];
        for flags in plausible {
            assert!(flags_plausible(flags), "{flags:#x}");
        }
        let scans = [
            0,
            FIN,
            PSH,
            URG,
            FIN | PSH | URG,
            SYN | FIN,
            SYN | FIN | ACK,
            SYN | RST,
            SYN | RST | ACK,
            FIN | RST,
            FIN | RST | ACK,
            ECE | CWR,
            0xff,
        ];
        for flags in scans {
            assert!(!flags_plausible(flags), "{flags:#x}");
        }
    }

    #[test]
    fn the_header_length_can_change_and_the_reserved_bits_stay() {
        let mut bytes = bytes_of(&SEGMENT);
        bytes[12] |= 0x05;
        set_header_len(&mut bytes, 28);
        assert_eq!((header_len(&bytes), bytes[12] & 0x0f), (28, 5));
        let word = with_more_options(get_u16(&bytes, 12), 8);
        lengthen_options(&mut bytes, 8);
        assert_eq!(get_u16(&bytes, 12), word);
        assert_eq!((header_len(&bytes), bytes[12] & 0x0f, flags(&bytes)), (36, 5, ACK | PSH));
    }

    #[test]
    fn resets_answer_as_rfc_9293_says() {
        let parse = |segment: &Segment, payload_len| {
            let bytes = bytes_of(segment);
            Segment::reset_for(&Tcp::parse(&bytes).unwrap(), payload_len)
        };
        let reset = parse(&SEGMENT, 100).unwrap();
        assert_eq!((reset.sport, reset.dport), (80, 40_001));
        assert_eq!((reset.seq, reset.ack, reset.flags), (7, 0, RST));
        let reset = parse(&Segment { flags: SYN, ack: 0, ..SEGMENT }, 20).unwrap();
        assert_eq!((reset.seq, reset.ack, reset.flags), (0, 5, RST | ACK), "wraps, and counts the SYN");
        assert_eq!(parse(&Segment { flags: RST, ..SEGMENT }, 0), None);
    }

    #[test]
    fn segment_size_follows_from_the_mtu() {
        assert_eq!((mss_for_mtu(1500, false), mss_for_mtu(1500, true)), (1460, 1440));
        assert_eq!(mss_for_mtu(1280, true), MSS_DEFAULT_V6);
        assert_eq!(mss_for_mtu(20, false), 0);
    }

    proptest! {
        #[test]
        fn sequence_numbers_compare_across_the_wrap(a: u32, distance in 1u32..0x8000_0000) {
            let b = a.wrapping_add(distance);
            prop_assert!(seq_before(a, b) && seq_after(b, a));
            prop_assert!(!seq_before(b, a) && !seq_after(a, b));
            prop_assert!(!seq_before(a, a) && !seq_after(a, a));
        }

        #[test]
        fn any_bytes_are_parsed_as_etherparse_does(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            match (Tcp::parse(&bytes), etherparse::TcpSlice::from_slice(&bytes)) {
                (Ok(view), Ok(oracle)) => {
                    prop_assert_eq!(view.seq(), oracle.sequence_number());
                    prop_assert_eq!(view.ack(), oracle.acknowledgment_number());
                    prop_assert_eq!(view.window(), oracle.window_size());
                    prop_assert_eq!(view.options(), oracle.options());
                    prop_assert_eq!(view.payload(), oracle.payload());
                }
                (ours, oracle) => prop_assert!(ours.is_err() && oracle.is_err()),
            }
        }
    }
}
