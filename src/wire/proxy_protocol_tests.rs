//! The header against vectors written by hand, against itself, and against whatever comes.

use super::*;
use proptest::prelude::*;

fn flow(src: &str, dst: &str, protocol: Protocol) -> Tuple {
    let [src, dst] = [src, dst].map(|text| text.parse::<IpAddr>().unwrap().into());
    Tuple { src, dst, sport: 40_001, dport: 80, protocol }
}

const V2_TCP4: [u8; 28] = [
    0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11, 0x00, 0x0c, 203, 0,
    113, 7, 10, 1, 0, 100, 0x9c, 0x41, 0x00, 0x50,
];

#[test]
fn a_line_names_source_destination_and_their_ports() {
    let line = write(Version::V1, &flow("203.0.113.7", "10.1.0.100", Protocol::Tcp));
    assert_eq!(&line[..], b"PROXY TCP4 203.0.113.7 10.1.0.100 40001 80\r\n");
    let line = write(Version::V1, &flow("2001:db8::7", "::1", Protocol::Tcp));
    assert_eq!(&line[..], b"PROXY TCP6 2001:db8::7 ::1 40001 80\r\n");
    assert_eq!(&write(Version::V1, &flow("::1", "::2", Protocol::Udp))[..], b"PROXY UNKNOWN\r\n");
}

/// A front that listens for both families may name an IPv4 client in IPv6 clothes: "::ffff:203.0.113.7".
#[test]
fn an_end_of_each_family_makes_a_header_of_ipv6() {
    for (src, dst) in [("203.0.113.7", "2001:db8::100"), ("2001:db8::7", "10.1.0.100")] {
        let mixed = flow(src, dst, Protocol::Tcp);
        for version in [Version::V1, Version::V2] {
            let header = write(version, &mixed);
            assert_eq!(read(&header), Ok(Said { flow: Some(mixed), len: header.len() }), "{header:?}");
        }
    }
    let line = write(Version::V1, &flow("203.0.113.7", "2001:db8::100", Protocol::Tcp));
    assert_eq!(&line[..], b"PROXY TCP6 ::ffff:203.0.113.7 2001:db8::100 40001 80\r\n");
}

#[test]
fn the_longest_line_fits() {
    let wide = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let all = Tuple { sport: 65_535, dport: 65_535, ..flow(wide, wide, Protocol::Tcp) };
    let line = write(Version::V1, &all);
    // §2.1: "PROXY TCP6 ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n": 104 chars
    assert_eq!(line.len(), 104);
    assert_eq!(read(&line), Ok(Said { flow: Some(all), len: 104 }));
}

#[test]
fn the_binary_form_is_that_of_the_specification() {
    let tcp4 = flow("203.0.113.7", "10.1.0.100", Protocol::Tcp);
    assert_eq!(write(Version::V2, &tcp4)[..], V2_TCP4);
    let udp4 = write(Version::V2, &Tuple { protocol: Protocol::Udp, ..tcp4 });
    assert_eq!(udp4[..], [&V2_TCP4[..13], &[0x12], &V2_TCP4[14..]].concat());
    let tcp6 = write(Version::V2, &flow("2001:db8::7", "2001:db8::100", Protocol::Tcp));
    assert_eq!((tcp6.len(), v2_len(true), v2_len(false)), (52, 52, V2_TCP4.len()));
    assert_eq!(tcp6[12..18], [0x21, 0x21, 0x00, 0x24, 0x20, 0x01]);
    assert_eq!(tcp6[30..34], [0x00, 0x07, 0x20, 0x01]);
    assert_eq!(tcp6[46..], [0x01, 0x00, 0x9c, 0x41, 0x00, 0x50]);
    assert_eq!(write(Version::V2, &flow("::1", "::2", Protocol::Udp))[13], 0x22);
}

#[test]
fn lines_that_are_not_as_they_should_be_are_refused() {
    for line in [
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        "PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 ::1 ::2 1 2\r\n",
        "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY \r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8\n1 2\r\n",
    ] {
        assert_eq!(read(line.as_bytes()), Err(ReadError::Line), "{line:?}");
    }
    assert_eq!(read(b"PROXY TCP4 \xff.2.3.4 5.6.7.8 1 2\r\n"), Err(ReadError::Line));
    for line in ["proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "GET / HTTP/1.1\r\n", "PROXYTCP4", "\r\n\r\n\r\n"] {
        assert_eq!(read(line.as_bytes()), Err(ReadError::Absent), "{line:?}");
    }
}

#[test]
fn a_line_ends_within_107_bytes() {
    let line = |len: usize| [b"PROXY UNKNOWN ", &vec![b'x'; len - 16][..], b"\r\n"].concat();
    assert_eq!(read(&line(107)), Ok(Said { flow: None, len: 107 }));
    assert_eq!(read(&line(108)), Err(ReadError::TooLong));
    assert_eq!(read(&line(108)[..106]), Err(ReadError::Incomplete));
}

#[test]
fn headers_without_addresses_of_ip_leave_those_on_the_wire() {
    let with = |command: u8, kind: u8, body: &[u8]| {
        let len = (body.len() as u16).to_be_bytes();
        [&V2_SIGNATURE[..], &[command, kind], &len, body].concat()
    };
    for (header, len) in [
        (b"PROXY UNKNOWN\r\n".to_vec(), 15),
        (b"PROXY UNKNOWN ffff::1 5 nonsense\r\n".to_vec(), 34),
        (b"PROXY UNKNOWN \xff\xfe\r\n".to_vec(), 18),
        (with(0x20, 0x00, &[]), 16),
        (with(0x20, 0x11, &[9; 5]), 21),
        (with(0x20, 0xff, &[9; 5]), 21),
        (with(0x21, 0x00, &[9; 5]), 21),
        (with(0x21, 0x31, &[0; 216]), 232),
        (with(0x21, 0x10, &[0; 12]), 28),
    ] {
        assert_eq!(read(&header), Ok(Said { flow: None, len }), "{header:?}");
    }
}

#[test]
fn tlvs_are_passed_over_if_they_are_whole() {
    let with = |tlvs: &[u8]| {
        let len = (12 + tlvs.len() as u16).to_be_bytes();
        [&V2_TCP4[..14], &len, &V2_TCP4[16..], tlvs].concat()
    };
    let flow = flow("203.0.113.7", "10.1.0.100", Protocol::Tcp);
    for tlvs in [&[][..], &[4, 0, 0], &[1, 0, 2, b'h', b'2', 4, 0, 1, 0]] {
        let header = with(tlvs);
        let more = [&header[..], b"GET"].concat();
        assert_eq!(read(&more), Ok(Said { flow: Some(flow), len: header.len() }), "{tlvs:?}");
    }
    for tlvs in [&[4][..], &[4, 0], &[4, 0, 1], &[4, 0, 0, 1, 255, 255]] {
        assert_eq!(read(&with(tlvs)), Err(ReadError::Length), "{tlvs:?}");
    }
    assert!(read(&with(&[&[4, 1, 249][..], &[0; 505]].concat())).is_ok(), "536 bytes");
    assert_eq!(read(&with(&[&[4, 1, 250][..], &[0; 506]].concat())), Err(ReadError::TooLong));
}

#[test]
fn other_versions_commands_families_and_transports_are_refused() {
    let with = |at: usize, value: u8| {
        let mut header = V2_TCP4;
        header[at] = value;
        header
    };
    for (at, value) in [(12, 0x11), (12, 0x31), (12, 0x22), (12, 0x2f), (13, 0x41), (13, 0x13), (13, 0xff)] {
        assert_eq!(read(&with(at, value)), Err(ReadError::Kind), "{value:02x} at {at}");
    }
    assert_eq!(read(&with(15, 11)), Err(ReadError::Length));
    assert_eq!(read(&with(14, 0xff)), Err(ReadError::TooLong));
    assert_eq!(read(&with(15, 13)), Err(ReadError::Incomplete));
}

fn any_flow() -> impl Strategy<Value = (Version, Tuple)> {
    let v4 = (any::<[u8; 4]>(), any::<[u8; 4]>())
        .prop_map(|(src, dst)| (Address::from_v4(src), Address::from_v4(dst)));
    let v6 = (any::<[u8; 16]>(), any::<[u8; 16]>())
        .prop_map(|(src, dst)| (Address::from_v6(src), Address::from_v6(dst)));
    let short = (0..=0xffff_u32, 0..8_usize).prop_map(|(word, at)| {
        let mut octets = [0; 16];
        octets[2 * at..2 * at + 2].copy_from_slice(&(word as u16).to_be_bytes());
        (Address::from_v6(octets), Address::from_v6([octets[15]; 16]))
    });
    let addresses =
        prop_oneof![v4, v6, short].prop_filter("one family", |(src, dst)| src.is_v4() == dst.is_v4());
    let form = prop_oneof![
        Just((Version::V1, Protocol::Tcp)),
        Just((Version::V2, Protocol::Tcp)),
        Just((Version::V2, Protocol::Udp)),
    ];
    (form, addresses, any::<u16>(), any::<u16>()).prop_map(
        |((version, protocol), (src, dst), sport, dport)| {
            (version, Tuple { src, dst, sport, dport, protocol })
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_whatever_follows(
        (version, flow) in any_flow(),
        more in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let header = write(version, &flow);
        let all = [&header[..], &more].concat();
        prop_assert_eq!(read(&all), Ok(Said { flow: Some(flow), len: header.len() }));
        for cut in 0..header.len() {
            prop_assert_eq!(read(&header[..cut]), Err(ReadError::Incomplete));
        }
    }

    #[test]
    fn any_bytes_are_judged_within_bounds(
        signature in prop_oneof![Just(&V2_SIGNATURE[..]), Just(V1_SIGNATURE), Just(&b""[..])],
        more in prop::collection::vec(any::<u8>(), 0..700),
    ) {
        let bytes = [signature, &more].concat();
        if let Ok(said) = read(&bytes) {
            prop_assert!(said.len <= bytes.len() && said.len <= READ_LEN_MAX);
        }
    }

    #[test]
    fn a_damaged_header_is_never_read_beyond_its_end((version, flow) in any_flow(), at: usize, with: u8) {
        let mut header = write(version, &flow);
        let at = at % header.len();
        header[at] = with;
        if let Ok(said) = read(&header) {
            prop_assert!(said.len <= header.len());
        }
    }
}
