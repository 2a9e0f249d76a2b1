//! IPv4 headers (RFC 791).

use super::Address;
use super::checksum::{Delta, adjust, fold, internet_checksum, sum};
use super::field::{get_array, get_u16, get_u64, put_array, put_u16, put_u64};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Bytes of the longest header.
pub const HEADER_LEN_MAX: usize = 60;
/// Smallest MTU that every link must have (RFC 791 §3.2).
pub const MTU_MIN: u16 = 68;
/// A path MTU told below this is not believed (Linux `ip_rt_min_pmtu`, RFC 5927 §7).
pub const PATH_MTU_MIN: u16 = 552;
/// The "don't fragment" bit within [`Ipv4::fragment_field`].
pub const DONT_FRAGMENT: u16 = 0x4000;
/// The "more fragments" bit within [`Ipv4::fragment_field`].
pub const MORE_FRAGMENTS: u16 = 0x2000;

/// Why a packet is not IPv4 that may be forwarded; RFC 1812 §5.2.2 has all of them discarded in silence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Ipv4Error {
    /// fewer than twenty bytes
    #[error("the packet is shorter than an IPv4 header")]
    Truncated,
    /// version other than 4
    #[error("the IP version is not 4")]
    Version,
    /// IHL below 5, or beyond the packet
    #[error("the IPv4 header length is below 20 bytes or beyond the packet")]
    HeaderLength,
    /// total length below the header's, or beyond the packet
    #[error("the IPv4 total length is below the header's or beyond the packet")]
    TotalLength,
}

/// A header whose version and lengths were checked; the checksum was not, see [`Ipv4::checksum_ok`].
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a> {
    fixed: &'a [u8; HEADER_LEN],
    packet: &'a [u8],
}

impl<'a> Ipv4<'a> {
    /// Checks a packet that lies in one piece. What follows its total length is link padding and not part of the view.
    ///
    /// # Errors
    /// [`Ipv4Error`] says which check failed.
    #[inline]
    pub fn parse(packet: &'a [u8]) -> Result<Self, Ipv4Error> {
        Self::parse_within(packet, packet.len())
    }

    /// Checks a packet of `available` bytes of which `head` holds the first, its options at least.
    ///
    /// # Errors
    /// [`Ipv4Error`] says which check failed; `HeaderLength` also if the options are not within `head`.
    #[inline]
    pub fn parse_within(head: &'a [u8], available: usize) -> Result<Self, Ipv4Error> {
        let fixed = head.first_chunk::<HEADER_LEN>().ok_or(Ipv4Error::Truncated)?;
        if fixed[0] >> 4 != 4 {
            return Err(Ipv4Error::Version);
        }
        let header_len = usize::from(fixed[0] & 0x0f) * 4;
        if header_len < HEADER_LEN || header_len > head.len() {
            return Err(Ipv4Error::HeaderLength);
        }
        let total_len = usize::from(get_u16(fixed, 2));
        if total_len < header_len || total_len > available {
            return Err(Ipv4Error::TotalLength);
        }
        Ok(Ipv4 { fixed, packet: &head[..head.len().min(total_len)] })
    }

    /// Bytes of the header, options included: 20 to 60.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        usize::from(self.fixed[0] & 0x0f) * 4
    }

    /// The header's bytes, options included.
    #[inline(always)]
    pub fn header(&self) -> &'a [u8] {
        &self.packet[..self.header_len()]
    }

    /// The options; empty for most packets.
    #[inline(always)]
    pub fn options(&self) -> &'a [u8] {
        &self.packet[HEADER_LEN..self.header_len()]
    }

    /// What follows the header, as far as it lies in the piece that was parsed.
    #[inline(always)]
    pub fn payload(&self) -> &'a [u8] {
        &self.packet[self.header_len()..]
    }

    /// Bytes of header and payload.
    #[inline(always)]
    pub fn total_len(&self) -> usize {
        usize::from(get_u16(self.fixed, 2))
    }

    /// DSCP and ECN.
    #[inline(always)]
    pub fn tos(&self) -> u8 {
        self.fixed[1]
    }

    /// Identification.
    #[inline(always)]
    pub fn id(&self) -> u16 {
        get_u16(self.fixed, 4)
    }

    /// Flags and fragment offset as they stand: see [`DONT_FRAGMENT`], [`MORE_FRAGMENTS`].
    #[inline(always)]
    pub fn fragment_field(&self) -> u16 {
        get_u16(self.fixed, 6)
    }

    /// Whether routers must not fragment it.
    #[inline(always)]
    pub fn dont_fragment(&self) -> bool {
        self.fragment_field() & DONT_FRAGMENT != 0
    }

    /// Whether more fragments follow it.
    #[inline(always)]
    pub fn more_fragments(&self) -> bool {
        self.fragment_field() & MORE_FRAGMENTS != 0
    }

    /// Where in the datagram its payload belongs, in bytes.
    #[inline(always)]
    pub fn fragment_offset(&self) -> usize {
        usize::from(self.fragment_field() & 0x1fff) * 8
    }

    /// Whether it is a part of a datagram only.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.fragment_field() & 0x3fff != 0
    }

    /// Time to live.
    #[inline(always)]
    pub fn ttl(&self) -> u8 {
        self.fixed[8]
    }

    /// IANA number of the protocol above.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        self.fixed[9]
    }

    /// Source address.
    #[inline(always)]
    pub fn src(&self) -> Address {
        Address::from_v4(get_array(self.fixed, 12))
    }

    /// Destination address.
    #[inline(always)]
    pub fn dst(&self) -> Address {
        Address::from_v4(get_array(self.fixed, 16))
    }

    /// Whether the header checksum is right.
    #[inline(always)]
    pub fn checksum_ok(&self) -> bool {
        if self.fixed[0] == 0x45 { plain_checksum_ok(self.fixed) } else { fold(sum(self.header())) == 0xffff }
    }
}

/// Whether the checksum of a header without options is right: three loads and a few additions. Not for a header of zeros.
#[inline(always)]
pub fn plain_checksum_ok(header: &[u8; HEADER_LEN]) -> bool {
    debug_assert!(*header != [0; HEADER_LEN]);
    // Nothing but 0xffff is left of such a sum, which costs the compiler a multiplication, less than to fold.
    plain_sum(header).is_multiple_of(0xffff)
}

/// The sum of a header without options, in the machine's order of bytes, which does not matter until the end (RFC 1071
/// §2 (B)).
#[inline(always)]
fn plain_sum(header: &[u8; HEADER_LEN]) -> u64 {
    let (words, rest) = header.as_chunks::<8>();
    let rest = u64::from(u32::from_ne_bytes(get_array(rest, 0)));
    let (sum, carry) = u64::from_ne_bytes(words[0]).overflowing_add(u64::from_ne_bytes(words[1]));
    let (sum, last_carry) = sum.overflowing_add(rest + u64::from(carry));
    sum + u64::from(last_carry)
}

/// Gives a header without options, of no fragment, one hop less, this source and destination, this total length and
/// identification if it shall have others, and the checksum of that.
///
/// Summed up from registers: reading back what was written in other pieces would wait for the stores.
#[inline(always)]
pub fn readdress_plain(
    header: &mut [u8; HEADER_LEN],
    total_len: Option<u16>,
    id: Option<u16>,
    addresses: [u8; 8],
) {
    debug_assert!(header[8] > 0 && header[7] == 0);
    // The order of bytes within words does not matter until the end (RFC 1071 §2 (B)).
    let sum = u64::from_le_bytes(addresses);
    let mut front = u64::from_le_bytes(get_array(header, 0));
    if let Some(id) = id {
        set_id(header, id);
        front = front & !(0xffff << 32) | u64::from(id.swap_bytes()) << 32;
    }
    if let Some(len) = total_len {
        set_total_len(header, len);
        front = front & !(0xffff << 16) | u64::from(len.swap_bytes()) << 16;
    }
    // The hops left are the lower byte.
    let hops_and_protocol = u32::from(u16::from_le_bytes(get_array(header, 8))).wrapping_sub(1);
    // The uppermost byte of the front is 0: that of no fragment's offset.
    let (sum, carry) = (front + u64::from(hops_and_protocol)).overflowing_add(sum);
    let checksum = !fold(sum + u64::from(carry));
    put_array(header, 8, (hops_and_protocol as u16).to_le_bytes());
    put_array(header, 10, checksum.to_le_bytes());
    put_array(header, 12, addresses);
}

/// Why a packet's options keep it from being forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OptionProblem {
    /// loose or strict source route: dropped by policy (RFC 7126 §4.3, §4.4)
    #[error("the packet carries a source route")]
    SourceRoute,
    /// an option's length or inner pointer is wrong; answered by ICMP parameter problem (RFC 1812 §5.2.4.1)
    #[error("the IPv4 option byte at {pointer} is wrong")]
    Malformed {
        /// which byte is wrong, from the start of the IP header
        pointer: u8,
    },
}

/// Looks through the options of a header; what it accepts is forwarded untouched (RFC 7126).
///
/// # Errors
/// [`OptionProblem`] for the first option that forbids forwarding. The checks are those of Linux `ip_options_compile`.
#[cold]
pub fn options_policy(options: &[u8]) -> Result<(), OptionProblem> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const RECORD_ROUTE: u8 = 7;
    const TIMESTAMP: u8 = 68;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    const ROUTER_ALERT: u8 = 148;

    let malformed = |at: usize| Err(OptionProblem::Malformed { pointer: (HEADER_LEN + at) as u8 });
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        match kind {
            END => break,
            NO_OPERATION => {
                at += 1;
                continue;
            }
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(OptionProblem::SourceRoute),
            _ => {}
        }
        let len = usize::from(options.get(at + 1).copied().unwrap_or(0));
        // Least length, and least value of the pointer in the third byte where there is one.
        let (len_min, pointer_min) = match kind {
            RECORD_ROUTE => (3, 4),
            TIMESTAMP => (4, 5),
            ROUTER_ALERT => (4, 0),
            _ => (2, 0),
        };
        if len < len_min || at + len > options.len() {
            return malformed((at + 1).min(options.len() - 1));
        }
        if pointer_min != 0 && options[at + 2] < pointer_min {
            return malformed(at + 2);
        }
        at += len;
    }
    Ok(())
}

/// Sets DSCP and ECN; the checksum is the caller's.
#[inline(always)]
pub fn set_tos(header: &mut [u8], tos: u8) {
    header[1] = tos;
}

/// Sets the length of the header, a multiple of four; the checksum is the caller's.
#[inline(always)]
pub fn set_header_len(header: &mut [u8], len: usize) {
    header[0] = 0x40 | (len / 4) as u8;
}

/// Sets the total length; the checksum is the caller's.
#[inline(always)]
pub fn set_total_len(header: &mut [u8], total_len: u16) {
    put_u16(header, 2, total_len);
}

/// Adds to the total length, for which there is room; the checksum is the caller's. Eight bytes are written at once, as
/// [`readdress_plain`] reads them.
#[inline(always)]
pub fn lengthen(header: &mut [u8], len: usize) {
    put_u64(header, 0, get_u64(header, 0) + ((len as u64) << 32));
}

/// Bytes of header and payload.
#[inline(always)]
pub fn total_len(header: &[u8]) -> u16 {
    get_u16(header, 2)
}

/// Sets the identification; the checksum is the caller's.
#[inline(always)]
pub fn set_id(header: &mut [u8], id: u16) {
    put_u16(header, 4, id);
}

/// Whether routers may not fragment the packet.
#[inline(always)]
pub fn dont_fragment(header: &[u8]) -> bool {
    get_u16(header, 6) & DONT_FRAGMENT != 0
}

/// Sets the time to live; the checksum is the caller's.
#[inline(always)]
pub fn set_ttl(header: &mut [u8], ttl: u8) {
    header[8] = ttl;
}

/// Sets the header checksum field.
#[inline(always)]
pub fn set_checksum(header: &mut [u8], checksum: u16) {
    put_u16(header, 10, checksum);
}

/// The header checksum field.
#[inline(always)]
pub fn checksum(header: &[u8]) -> u16 {
    get_u16(header, 10)
}

/// Sets the source address; the checksum is the caller's.
#[inline(always)]
pub fn set_src(header: &mut [u8], src: [u8; 4]) {
    put_array(header, 12, src);
}

/// Sets the destination address; the checksum is the caller's.
#[inline(always)]
pub fn set_dst(header: &mut [u8], dst: [u8; 4]) {
    put_array(header, 16, dst);
}

/// Takes one from the time to live, which must not be 0, and keeps the checksum true (RFC 1624).
#[inline(always)]
pub fn decrement_ttl(header: &mut [u8]) {
    let ttl = header[8];
    debug_assert_ne!(ttl, 0);
    header[8] = ttl.wrapping_sub(1);
    // The word holds TTL and protocol: 0x0100 less in it, whatever the protocol.
    let delta = Delta::default().replace_u16(0x0100, 0);
    let checksum = adjust(checksum(header), delta.fold());
    set_checksum(header, checksum);
}

/// Computes the checksum afresh over `header`, which is the header with its options and nothing else.
#[inline]
pub fn fill_checksum(header: &mut [u8]) {
    set_checksum(header, 0);
    let checksum = match header.as_array::<HEADER_LEN>() {
        Some(plain) => u16::from_be(!fold(plain_sum(plain))),
        None => internet_checksum(header),
    };
    set_checksum(header, checksum);
}

/// What a header without options says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv4Header {
    /// DSCP and ECN
    pub tos: u8,
    /// bytes of header and payload
    pub total_len: u16,
    /// identification
    pub id: u16,
    /// whether routers must not fragment it
    pub dont_fragment: bool,
    /// time to live
    pub ttl: u8,
    /// IANA number of the protocol above
    pub protocol: u8,
    /// source address
    pub src: [u8; 4],
    /// destination address
    pub dst: [u8; 4],
}

/// Writes a header of [`HEADER_LEN`] bytes with its checksum to the front of `out`.
#[inline]
pub fn write_header(out: &mut [u8], header: &Ipv4Header) {
    let out = &mut out[..HEADER_LEN];
    out[0] = 0x45;
    set_tos(out, header.tos);
    set_total_len(out, header.total_len);
    set_id(out, header.id);
    put_u16(out, 6, if header.dont_fragment { DONT_FRAGMENT } else { 0 });
    set_ttl(out, header.ttl);
    out[9] = header.protocol;
    set_src(out, header.src);
    set_dst(out, header.dst);
    fill_checksum(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: Ipv4Header = Ipv4Header {
        tos: 0xbb,
        total_len: 40,
        id: 0x1234,
        dont_fragment: true,
        ttl: 64,
        protocol: 6,
        src: [10, 1, 0, 1],
        dst: [10, 1, 0, 100],
    };

    fn packet() -> [u8; 40] {
        let mut packet = [0; 40];
        write_header(&mut packet, &HEADER);
        packet
    }

    #[test]
    fn a_written_header_reads_back_and_etherparse_agrees() {
        let packet = packet();
        let view = Ipv4::parse(&packet).unwrap();
        assert_eq!((view.header_len(), view.total_len(), view.payload().len()), (20, 40, 20));
        assert_eq!((view.tos(), view.id(), view.ttl(), view.protocol()), (0xbb, 0x1234, 64, 6));
        assert_eq!((view.src(), view.dst()), (Address::from_v4(HEADER.src), Address::from_v4(HEADER.dst)));
        assert!(view.checksum_ok() && view.dont_fragment() && !view.is_fragment() && !view.more_fragments());
        let (oracle, _) = etherparse::Ipv4Header::from_slice(&packet).unwrap();
        assert_eq!(oracle.calc_header_checksum(), checksum(&packet));
        assert_eq!((oracle.total_len, oracle.identification, oracle.time_to_live), (40, 0x1234, 64));
        let mut longer = packet;
        lengthen(&mut longer, 8);
        assert_eq!(longer[..], [&[0x45, 0xbb, 0, 48], &packet[4..]].concat());
    }

    #[test]
    fn conformance_c1_wrong_version_and_lengths_are_refused_one_by_one() {
        let with = |at: usize, value: u8| {
            let mut bytes = packet();
            bytes[at] = value;
            bytes
        };
        let error = |bytes: &[u8]| Ipv4::parse(bytes).err();
        assert_eq!(error(&with(0, 0x55)), Some(Ipv4Error::Version));
        assert_eq!(error(&with(0, 0x65)), Some(Ipv4Error::Version));
        assert_eq!(error(&with(0, 0x44)), Some(Ipv4Error::HeaderLength));
        assert_eq!(error(&with(0, 0x4f)), Some(Ipv4Error::HeaderLength));
        assert_eq!(error(&with(0, 0x4a)), None);
        assert_eq!(error(&with(3, 19)), Some(Ipv4Error::TotalLength));
        assert_eq!(error(&with(3, 41)), Some(Ipv4Error::TotalLength));
        let mut long_header = with(0, 0x46);
        long_header[3] = 20;
        assert_eq!(error(&long_header), Some(Ipv4Error::TotalLength));
        assert_eq!(error(&packet()[..19]), Some(Ipv4Error::Truncated));
        assert_eq!(error(&[]), Some(Ipv4Error::Truncated));
        for at in 0..20 {
            let corrupt = with(at, packet()[at] ^ 1);
            if let Ok(view) = Ipv4::parse(&corrupt) {
                assert!(!view.checksum_ok(), "byte {at}");
            }
        }
    }

    #[test]
    fn conformance_a6_link_padding_is_not_payload() {
        let mut padded = [0xee; 60];
        padded[..40].copy_from_slice(&packet());
        assert_eq!(Ipv4::parse(&padded).unwrap().payload().len(), 20);
    }

    #[test]
    fn conformance_a9_the_rest_of_a_chained_packet_counts_as_available() {
        let bytes = packet();
        assert_eq!(Ipv4::parse(&bytes[..24]).err(), Some(Ipv4Error::TotalLength));
        let view = Ipv4::parse_within(&bytes[..24], 40).unwrap();
        assert_eq!((view.total_len(), view.payload().len()), (40, 4));
    }

    #[test]
    fn fragments_are_told_by_offset_or_more_fragments() {
        for (field, fragment, offset) in [
            (0u16, false, 0),
            (0x4000, false, 0),
            (0x8000, false, 0),
            (0x2000, true, 0),
            (0x00b9, true, 1480),
        ] {
            let mut bytes = packet();
            bytes[6..8].copy_from_slice(&field.to_be_bytes());
            let view = Ipv4::parse(&bytes).unwrap();
            assert_eq!((view.is_fragment(), view.fragment_offset()), (fragment, offset), "{field:x}");
        }
    }

    #[test]
    fn conformance_c4_source_routes_are_refused_and_others_pass() {
        let malformed = |pointer| Err(OptionProblem::Malformed { pointer });
        let record_route = [7, 7, 4, 0, 0, 0, 0, 0];
        assert_eq!(options_policy(&[]), Ok(()));
        assert_eq!(options_policy(&[1; 40]), Ok(()));
        assert_eq!(options_policy(&record_route), Ok(()));
        assert_eq!(options_policy(&[148, 4, 0, 0]), Ok(()));
        assert_eq!(options_policy(&[68, 8, 5, 0, 0, 0, 0, 0]), Ok(()));
        assert_eq!(options_policy(&[0, 131, 3, 4]), Ok(()), "nothing counts behind the end");
        assert_eq!(options_policy(&[131, 7, 4, 1, 2, 3, 4, 0]), Err(OptionProblem::SourceRoute));
        assert_eq!(options_policy(&[1, 1, 137, 7]), Err(OptionProblem::SourceRoute));
        assert_eq!(options_policy(&[7, 0, 4, 0]), malformed(21));
        assert_eq!(options_policy(&[1, 94, 1, 0]), malformed(22));
        assert_eq!(options_policy(&[7, 44, 4, 0]), malformed(21));
        assert_eq!(options_policy(&[7, 7, 3, 0, 0, 0, 0, 0]), malformed(22));
        assert_eq!(options_policy(&[1, 1, 1, 7]), malformed(23));
        assert_eq!(options_policy(&[94, 5, 0, 0]), malformed(21), "one byte beyond the header");
        assert_eq!(options_policy(&[94, 4, 0, 0]), Ok(()));
    }

    proptest! {
        #[test]
        fn conformance_g1_a_plain_header_is_readdressed_like_any_other(
            mut bytes: [u8; HEADER_LEN], len: Option<u16>, id: Option<u16>, src: [u8; 4], dst: [u8; 4],
        ) {
            (bytes[7], bytes[8]) = (0, bytes[8] | 1);
            let (mut plain, mut any) = (bytes, bytes);
            let [a, b, c, d] = src;
            let [e, f, g, h] = dst;
            readdress_plain(&mut plain, len, id, [a, b, c, d, e, f, g, h]);
            if let Some(len) = len {
                set_total_len(&mut any, len);
            }
            if let Some(id) = id {
                set_id(&mut any, id);
            }
            decrement_ttl(&mut any);
            set_src(&mut any, src);
            set_dst(&mut any, dst);
            fill_checksum(&mut any);
            prop_assert_eq!(plain, any);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_as_etherparse_does(mut bytes in prop::collection::vec(any::<u8>(), 0..120), v4 in any::<bool>()) {
            if v4 && bytes.len() > 4 {
                bytes[0] = 0x40 | (bytes[0] & 0x0f);
                bytes[2] = 0;
            }
            let oracle = etherparse::Ipv4HeaderSlice::from_slice(&bytes);
            match Ipv4::parse(&bytes) {
                Ok(view) => {
                    let oracle = oracle.unwrap();
                    prop_assert_eq!(view.header(), oracle.slice());
                    prop_assert_eq!(view.total_len(), usize::from(oracle.total_len()));
                    prop_assert_eq!(view.fragment_offset(), usize::from(oracle.fragments_offset().value()) * 8);
                    prop_assert_eq!(view.checksum_ok(), oracle.to_header().calc_header_checksum() == oracle.header_checksum()
                        || (oracle.header_checksum() == 0xffff && oracle.to_header().calc_header_checksum() == 0));
                }
                Err(Ipv4Error::TotalLength) => {
                    let total = usize::from(oracle.as_ref().unwrap().total_len());
                    prop_assert!(total > bytes.len() || total < oracle.unwrap().slice().len());
                }
                Err(_) => prop_assert!(oracle.is_err()),
            }
            let _ = options_policy(&bytes);
        }

        #[test]
        fn conformance_c1_the_quick_look_at_a_plain_checksum_is_the_full_one(mut bytes: [u8; 20], right: bool) {
            if right {
                bytes[0] = 0x45;
                fill_checksum(&mut bytes);
            }
            prop_assert_eq!(plain_checksum_ok(&bytes), fold(sum(&bytes)) == 0xffff);
            prop_assert!(!right || plain_checksum_ok(&bytes));
        }

        #[test]
        fn conformance_c2_decrementing_keeps_every_checksum_true(ttl in 1u8.., protocol: u8, id: u16, src: [u8; 4]) {
            let mut bytes = [0; 20];
            write_header(&mut bytes, &Ipv4Header { ttl, protocol, id, src, total_len: 20, ..HEADER });
            decrement_ttl(&mut bytes);
            let mut full = bytes;
            fill_checksum(&mut full);
            prop_assert_eq!(bytes, full);
            prop_assert_eq!(bytes[8], ttl - 1);
        }
    }
}
