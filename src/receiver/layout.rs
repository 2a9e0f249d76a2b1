//! The layouts that the programs and the loader share: those of `ffi/receiver.bpf.h` and `ffi/toa.bpf.c`.

use std::net::{Ipv6Addr, SocketAddr};

use serde::Serialize;

/// What the programs counted since they were attached, summed over the processors.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize)]
pub struct Counts {
    /// handshakes completed on sockets of the cgroup
    pub sessions: u64,
    /// of them: with an option that was taken
    pub options: u64,
    /// of them: without any option of that kind
    pub without_option: u64,
    /// rejected: the sender is not among the trusted
    pub rejected_untrusted: u64,
    /// rejected: the kind is TOA's, the length is not
    pub rejected_malformed: u64,
    /// the kernel had no memory to keep the client; the server sees the gateway
    pub no_memory: u64,
    /// answers of `accept()` and `getpeername()` that name the client
    pub rewritten: u64,
    /// answers that could not: an IPv6 client at an IPv4 socket
    pub not_sayable: u64,
    /// answers of `getsockopt(IPPROTO_IP, 4096)`
    pub looked_up: u64,
    /// datagrams whose option was taken
    pub udp_options: u64,
    /// datagrams with a rejected option: the sender is not among the trusted
    pub udp_rejected_untrusted: u64,
    /// datagrams with a rejected option: the type is UOA's, the length is not
    pub udp_rejected_malformed: u64,
    /// the kernel had no memory to keep a client of UDP; the server sees the gateway
    pub udp_no_memory: u64,
    /// datagrams of IPv6 clients, whom a server could not answer over IPv4 if it knew them; it sees the gateway
    pub udp_not_sayable: u64,
    /// datagrams of which the server was told the client
    pub udp_shown: u64,
    /// answers to a client, and connections to it, that were turned to its gateway
    pub udp_answers: u64,
}

impl Counts {
    /// How many counters there are: `COUNTERS` of the program.
    pub(super) const LEN: u32 = 16;

    /// From the program's array, in its order.
    pub(super) fn from_array(counters: [u64; Self::LEN as usize]) -> Self {
        let [
            sessions,
            options,
            without_option,
            rejected_untrusted,
            rejected_malformed,
            no_memory,
            rewritten,
            not_sayable,
            looked_up,
            udp_options,
            udp_rejected_untrusted,
            udp_rejected_malformed,
            udp_no_memory,
            udp_not_sayable,
            udp_shown,
            udp_answers,
        ] = counters;
        Counts {
            sessions,
            options,
            without_option,
            rejected_untrusted,
            rejected_malformed,
            no_memory,
            rewritten,
            not_sayable,
            looked_up,
            udp_options,
            udp_rejected_untrusted,
            udp_rejected_malformed,
            udp_no_memory,
            udp_not_sayable,
            udp_shown,
            udp_answers,
        }
    }
}

/// A live connection whose client is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Connection {
    /// whom the option named
    pub client: SocketAddr,
    /// the other end on the wire: a local address of the gateway
    pub gateway: SocketAddr,
    /// this end
    pub local: SocketAddr,
    /// TCP state as `ss` names it
    pub state: &'static str,
}

impl Connection {
    /// Bytes of `struct connection`.
    pub(super) const LEN: usize = 56;

    /// From one `struct connection`.
    pub(super) fn from_bytes(line: &[u8; Self::LEN]) -> Self {
        let address = |at: usize| {
            let octets: [u8; 16] = line[at..at + 16].try_into().expect("16 bytes");
            Ipv6Addr::from(octets).to_canonical()
        };
        let big = |at: usize| u16::from_be_bytes([line[at], line[at + 1]]);
        Connection {
            client: SocketAddr::new(address(0), big(48)),
            gateway: SocketAddr::new(address(16), big(50)),
            local: SocketAddr::new(address(32), u16::from_ne_bytes([line[52], line[53]])),
            state: state_name(line[54]),
        }
    }
}

/// `include/net/tcp_states.h`
fn state_name(state: u8) -> &'static str {
    const NAMES: [&str; 12] = [
        "ESTAB",
        "SYN-SENT",
        "SYN-RECV",
        "FIN-WAIT-1",
        "FIN-WAIT-2",
        "TIME-WAIT",
        "CLOSE",
        "CLOSE-WAIT",
        "LAST-ACK",
        "LISTEN",
        "CLOSING",
        "NEW-SYN-RECV",
    ];
    state.checked_sub(1).and_then(|at| NAMES.get(usize::from(at))).copied().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_iterator_is_read_back() {
        let mut line = [0; Connection::LEN];
        line[10..12].fill(0xff);
        line[12..16].copy_from_slice(&[203, 0, 113, 7]);
        line[16..32].copy_from_slice(&"2001:db8:2::100".parse::<Ipv6Addr>().unwrap().octets());
        line[32..48].copy_from_slice(&"2001:db8:2::11".parse::<Ipv6Addr>().unwrap().octets());
        line[48..50].copy_from_slice(&40_001u16.to_be_bytes());
        line[50..52].copy_from_slice(&1024u16.to_be_bytes());
        line[52..54].copy_from_slice(&80u16.to_ne_bytes());
        line[54] = 1;
        let connection = Connection::from_bytes(&line);
        assert_eq!(connection.client.to_string(), "203.0.113.7:40001");
        assert_eq!(connection.gateway.to_string(), "[2001:db8:2::100]:1024");
        assert_eq!(connection.local.to_string(), "[2001:db8:2::11]:80");
        assert_eq!(connection.state, "ESTAB");
    }

    #[test]
    fn the_programs_and_the_loader_agree_on_layouts() {
        let source = concat!(include_str!("../../ffi/receiver.bpf.h"), include_str!("../../ffi/toa.bpf.c"));
        let body = |begin: &str| {
            let from = source.split(begin).nth(1).expect("declared");
            from.split("};").next().expect("ends").to_owned()
        };
        let names: Vec<String> = body("enum counter {")
            .lines()
            .filter_map(|line| {
                line.trim().split(',').next().filter(|name| !name.is_empty()).map(str::to_owned)
            })
            .collect();
        assert_eq!(names.last().map(String::as_str), Some("COUNTERS"));
        assert_eq!(names.len() as u32 - 1, Counts::LEN, "{names:?}");
        let connection = body("struct connection {");
        let fields: Vec<&str> = connection
            .lines()
            .filter_map(|line| line.trim().split_once(';').map(|(field, _)| field))
            .collect();
        assert_eq!(
            fields,
            [
                "__u32 client[4]",
                "__u32 peer[4]",
                "__u32 local[4]",
                "__be16 client_port",
                "__be16 peer_port",
                "__u16 local_port",
                "__u8 state",
                "__u8 unused"
            ]
        );
        assert_eq!(3 * 16 + 3 * 2 + 2, Connection::LEN);
    }

    #[test]
    fn states_have_the_names_of_ss() {
        assert_eq!(
            [state_name(0), state_name(1), state_name(8), state_name(200)],
            ["?", "ESTAB", "CLOSE-WAIT", "?"]
        );
    }
}
