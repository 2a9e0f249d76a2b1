//! A gateway between two links: engines, manual clock, neighbours that answer, books that are checked.
//!
//! ```text
//!  clients 10.1.0.1, .2   2001:db8:1::1, ::2      wan | engines | lan      real servers 10.2.0.11, .12  2001:db8:2::11, ::12
//!  VIPs    10.1.0.100     2001:db8:1::100             |  1..4   |          LIPs         10.2.0.100-     2001:db8:2::100-
//! ```
//!
//! Frames reach the workers in turn, whoever is their home, as from a device without RSS.

mod books;
pub mod conversation;
pub mod frame;
pub mod seen;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;
use fullnat::clock::{Now, Tick};
use fullnat::config::{Config, PortFacts, Requirements, Slots, parse};
use fullnat::id::{PortId, RealServerId, WorkerId};
use fullnat::path::drop_reason::DropReason;
use fullnat::path::heap::{HeapPacket, Sent, Shape, TestIo};
use fullnat::path::neighbour::NeighbourConfig;
use fullnat::path::packet::HandOff;
use fullnat::path::{Engine, ShardConfig};
use fullnat::service::snapshot::Snapshot;
use fullnat::session::{SessionIndex, State};
use fullnat::steering::Steering;
use fullnat::wire::{Address, Protocol, Tuple, proxy_protocol};

use frame::{ETH, arp, ethernet, nd};
use seen::Seen;

pub const WAN: PortId = PortId(0);
pub const LAN: PortId = PortId(1);
pub const WAN_MAC: [u8; 6] = [2, 0, 0, 0, 1, 0];
pub const LAN_MAC: [u8; 6] = [2, 0, 0, 0, 2, 0];

/// Hosts on the two links; also the addresses that must not be seen on the other side.
const HOSTS: [(PortId, &str, [u8; 6]); 8] = [
    (WAN, "10.1.0.1", [2, 0, 0, 1, 0, 1]),
    (WAN, "10.1.0.2", [2, 0, 0, 1, 0, 2]),
    (WAN, "2001:db8:1::1", [2, 0, 0, 1, 0, 1]),
    (WAN, "2001:db8:1::2", [2, 0, 0, 1, 0, 2]),
    (LAN, "10.2.0.11", [2, 0, 0, 2, 0, 11]),
    (LAN, "10.2.0.12", [2, 0, 0, 2, 0, 12]),
    (LAN, "2001:db8:2::11", [2, 0, 0, 2, 0, 11]),
    (LAN, "2001:db8:2::12", [2, 0, 0, 2, 0, 12]),
];
const INSIDE: [&str; 8] = [
    "10.2.0.11",
    "10.2.0.12",
    "10.2.0.100",
    "10.2.0.101",
    "2001:db8:2::11",
    "2001:db8:2::12",
    "2001:db8:2::100",
    "2001:db8:2::101",
];

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The ports, routes and the pool of every configuration here.
pub fn base(workers: usize) -> String {
    format!(
        r#"
[dataplane]
workers = {workers}
sessions_max = {sessions}
[[port]]
name = "wan"
device = "net_tap0"
addresses = ["10.1.0.254/24", "2001:db8:1::fe/64"]
mtu = 1500
[[port]]
name = "lan"
device = "net_tap1"
addresses = ["10.2.0.254/24", "2001:db8:2::fe/64"]
mtu = 1500
[[route]]
to = "0.0.0.0/0"
via = "10.1.0.1"
[[route]]
to = "::/0"
via = "2001:db8:1::1"
[[local_pool]]
name = "pool"
port = "lan"
addresses = ["10.2.0.100-10.2.0.101", "2001:db8:2::100-2001:db8:2::101"]
"#,
        sessions = 1024 * workers,
    )
}

/// A service `web` on one VIP with one real server on port 8080; `more` is TOML for the service's table.
pub fn service(protocol: &str, vip: &str, rip: &str, more: &str) -> String {
    let bracket = |ip: &str| if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    format!(
        r#"
[[service]]
name = "web"
listen = "{}:80"
protocol = "{protocol}"
scheduler = "rr"
local_pool = "pool"
{more}
[[service.real_server]]
address = "{}:8080"
"#,
        bracket(vip),
        bracket(rip),
    )
}

/// The families of a client's and a real server's side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Families {
    pub client_v6: bool,
    pub server_v6: bool,
}

impl Families {
    pub const ALL: [Families; 4] = [
        Families { client_v6: false, server_v6: false },
        Families { client_v6: true, server_v6: true },
        Families { client_v6: false, server_v6: true },
        Families { client_v6: true, server_v6: false },
    ];

    pub const V4: Families = Families::ALL[0];

    pub fn client(self) -> IpAddr {
        ip(if self.client_v6 { "2001:db8:1::1" } else { "10.1.0.1" })
    }

    pub fn vip(self) -> IpAddr {
        ip(if self.client_v6 { "2001:db8:1::100" } else { "10.1.0.100" })
    }

    /// Where the service of [`Families::config`] listens.
    pub fn vip_end(self) -> frame::End {
        (self.vip(), 80)
    }

    pub fn rip(self) -> IpAddr {
        ip(if self.server_v6 { "2001:db8:2::11" } else { "10.2.0.11" })
    }

    /// [`base`] and a [`service`] of these families.
    pub fn config(self, workers: usize, protocol: &str, more: &str) -> String {
        base(workers) + &service(protocol, &self.vip().to_string(), &self.rip().to_string(), more)
    }
}

/// What differs from the usual gateway.
#[derive(Clone, Copy)]
pub struct Options {
    /// how received packets lie in memory
    pub shape: Shape,
    pub mtu: [u16; 2],
    pub checksum_offload: bool,
    pub partial_checksums: bool,
    /// frames carry an IEEE 802.1Q tag of VLAN 0
    pub priority_tag: bool,
    pub neighbours_max: u16,
    pub guests_max: usize,
    /// books and destinations; `None`: as the gateway sizes them
    pub books_max: Option<usize>,
    /// where the configuration does not say
    pub refusals_per_second: u32,
    pub neighbour_messages_per_second: u32,
    /// whether the hosts are known before the test and answer during it
    pub hosts_answer: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            shape: crate::segments::usual_shape(),
            mtu: [1500, 1500],
            checksum_offload: false,
            partial_checksums: false,
            priority_tag: false,
            neighbours_max: 256,
            guests_max: 256,
            books_max: None,
            refusals_per_second: 100_000,
            neighbour_messages_per_second: 1_000_000,
            hosts_answer: true,
        }
    }
}

impl Options {
    fn parse(self, text: &str) -> Config {
        let mut config = parse(text).unwrap_or_else(|error| panic!("{error}"));
        if !text.contains("[refusal]") {
            config.refusal.per_second = self.refusals_per_second;
        }
        config
    }
}

/// The gateway and the links on both sides.
pub struct Rig {
    pub engines: Vec<Engine<HeapPacket>>,
    pub ios: Vec<TestIo>,
    pub now: Now,
    pub options: Options,
    /// Whether frames that were damaged on purpose may leave with wrong L4 checksums.
    pub damaged: bool,
    /// Whether clients and real servers share addresses (hairpin), so that none is foreign to either side.
    pub hairpin: bool,
    slots: Slots,
    facts: [PortFacts; 2],
    steering: Arc<Steering>,
    rings: VecDeque<(WorkerId, HandOff<HeapPacket>)>,
    turn: usize,
    /// What left and was neither ARP nor ND, since last taken.
    sent: Vec<Seen>,
    unread: bool,
    neighbour_answers: u64,
    /// PROXY protocol headers that real servers were sent: there a client's address may stand.
    proxy_headers: HashSet<Vec<u8>>,
    mark: BTreeMap<String, u64>,
}

impl Rig {
    pub fn new(config: &str) -> Rig {
        Rig::with(config, Options::default())
    }

    pub fn with(config: &str, options: Options) -> Rig {
        let config = options.parse(config);
        let workers = config.dataplane.workers;
        let needs = Requirements::of(&config);
        let steering = Arc::new(Steering::random(workers.into(), 128, [9; 32]).unwrap());
        let facts = [(WAN_MAC, 0), (LAN_MAC, 1)].map(|(mac, at): (_, usize)| PortFacts {
            mac,
            mtu: options.mtu[at],
            checksum_offload: options.checksum_offload,
            partial_checksums: options.partial_checksums,
        });
        let (snapshot, slots) = Slots::new().apply(&config, &facts, steering.clone()).unwrap();
        let snapshot = Arc::new(snapshot);
        let now = Now { nanos: 1_000_000_000 };
        let shard = |worker: u16| ShardConfig {
            worker: WorkerId(worker),
            workers,
            sessions_max: config.dataplane.sessions_per_worker(),
            huge_pages: false,
            lease_books_max: options.books_max.unwrap_or(needs.lease_books_max as usize),
            destinations_max: options.books_max.unwrap_or(needs.lease_destinations_max as usize),
            guests_max: options.guests_max,
            neighbours: NeighbourConfig {
                capacity: options.neighbours_max,
                messages_per_second: options.neighbour_messages_per_second,
                worker: WorkerId(worker),
                workers,
                seed: 5,
                ..NeighbourConfig::default()
            },
            seed: [worker as u8 + 1; 32],
            isn_secret: [3; 16],
        };
        let engines = (0..workers).map(|worker| Engine::new(&shard(worker), snapshot.clone(), now).unwrap());
        let mut rig = Rig {
            engines: engines.collect(),
            ios: (0..workers).map(|_| world(options.shape)).collect(),
            now,
            options,
            damaged: false,
            hairpin: false,
            slots,
            facts,
            steering,
            rings: VecDeque::new(),
            turn: 0,
            sent: Vec::new(),
            unread: false,
            neighbour_answers: 0,
            proxy_headers: HashSet::new(),
            mark: BTreeMap::new(),
        };
        // Until all announcements are out.
        for _ in 0..8 {
            rig.pass(1);
        }
        if options.hosts_answer {
            rig.introduce_hosts();
        }
        rig.mark();
        rig
    }

    /// Every host asks for the gateway, which so knows it.
    fn introduce_hosts(&mut self) {
        for (port, host, mac) in HOSTS {
            let frame = match (ip(host), port) {
                (IpAddr::V4(from), WAN) => arp(1, (mac, from.octets()), ([0; 6], [10, 1, 0, 254]), [0xff; 6]),
                (IpAddr::V4(from), _) => arp(1, (mac, from.octets()), ([0; 6], [10, 2, 0, 254]), [0xff; 6]),
                (from, WAN) => nd(135, mac, from, ip("2001:db8:1::fe"), ip("2001:db8:1::fe"), WAN_MAC),
                (from, _) => nd(135, mac, from, ip("2001:db8:2::fe"), ip("2001:db8:2::fe"), LAN_MAC),
            };
            self.inject(0, port, &frame);
        }
    }

    // Frames in

    /// An IP packet from the host that has its source address, or from the router.
    pub fn packet(&mut self, port: PortId, packet: &[u8]) -> Vec<Seen> {
        let frame = self.framed(port, packet);
        self.frame(port, &frame)
    }

    /// An IP packet from a client.
    pub fn client(&mut self, packet: &[u8]) -> Vec<Seen> {
        self.packet(WAN, packet)
    }

    /// An IP packet from a real server.
    pub fn server(&mut self, packet: &[u8]) -> Vec<Seen> {
        self.packet(LAN, packet)
    }

    /// A packet in the frame its sender would put it in.
    pub fn framed(&self, port: PortId, packet: &[u8]) -> Vec<u8> {
        let src = source_of(packet);
        let host = HOSTS.iter().find(|(at, host, _)| *at == port && Some(ip(host)) == src);
        let mac = host.map_or([2, 0, 0, port.0 as u8 + 1, 0, 1], |(_, _, mac)| *mac);
        let mut frame = ethernet(if port == WAN { WAN_MAC } else { LAN_MAC }, mac, packet);
        if self.options.priority_tag {
            frame.splice(12..12, [0x81, 0, 0, 0]);
        }
        frame
    }

    /// A frame, to the workers in turn.
    pub fn frame(&mut self, port: PortId, frame: &[u8]) -> Vec<Seen> {
        self.turn = (self.turn + 1) % self.engines.len();
        self.frame_to(self.turn, port, frame)
    }

    /// A frame, to the workers in turn, of which nobody knows what it is; what leaves is not read.
    pub fn frame_unread(&mut self, port: PortId, frame: &[u8]) {
        self.unread = true;
        self.turn = (self.turn + 1) % self.engines.len();
        self.inject(self.turn, port, frame);
        self.unread = false;
    }

    /// A frame to one worker.
    pub fn frame_to(&mut self, worker: usize, port: PortId, frame: &[u8]) -> Vec<Seen> {
        self.inject(worker, port, frame);
        self.take_sent()
    }

    /// Frames in one burst to one worker.
    pub fn burst(&mut self, worker: usize, port: PortId, frames: &[Vec<u8>]) -> Vec<Seen> {
        let mut packets = frames.iter().map(|frame| self.ios[worker].receive(frame)).collect();
        self.process(worker, port, &mut packets);
        self.take_sent()
    }

    /// A buffer to one worker.
    pub fn buffer(&mut self, worker: usize, port: PortId, packet: HeapPacket) -> Vec<Seen> {
        self.process(worker, port, &mut ArrayVec::from_iter([packet]));
        self.take_sent()
    }

    fn inject(&mut self, worker: usize, port: PortId, frame: &[u8]) {
        let packet = self.ios[worker].receive(frame);
        self.process(worker, port, &mut ArrayVec::from_iter([packet]));
    }

    fn process(&mut self, worker: usize, port: PortId, packets: &mut ArrayVec<HeapPacket, 32>) {
        self.engines[worker].process(&mut self.ios[worker], self.now, port, packets);
        assert!(packets.is_empty());
        self.settle();
    }

    /// Hand-offs in order until there are none; answers to the gateway's questions; the books.
    fn settle(&mut self) {
        loop {
            for io in &mut self.ios {
                self.rings.extend(io.handed_off.drain(..));
            }
            if let Some(&(to, _)) = self.rings.front() {
                let rings = &mut self.rings;
                let items = std::iter::from_fn(|| Some(rings.pop_front_if(|item| item.0 == to)?.1));
                self.engines[to.index()].take(&mut self.ios[to.index()], self.now, items);
                continue;
            }
            let sent: Vec<Sent> = self.ios.iter_mut().flat_map(TestIo::take_sent).collect();
            if sent.is_empty() {
                break;
            }
            sent.into_iter().for_each(|sent| self.look_at(sent));
        }
        self.check_books();
    }

    /// Everything that left: sound, and nothing in it of the other side.
    fn look_at(&mut self, Sent { port, frame }: Sent) {
        let own = if port == WAN { WAN_MAC } else { LAN_MAC };
        assert_eq!(frame[6..12], own, "the source MAC");
        if let Some(answer) = self.neighbour_answer(port, &frame) {
            if self.options.hosts_answer {
                self.neighbour_answers += 1;
                self.inject(0, port, &answer);
            }
            return;
        }
        if self.unread {
            return;
        }
        match Seen::read(port, &frame, self.damaged) {
            Some(seen) if is_nd(&seen) => {}
            Some(seen) => {
                self.check_secrecy(&seen);
                self.sent.push(seen);
            }
            None => {}
        }
    }

    fn check_secrecy(&mut self, seen: &Seen) {
        let mut frame = seen.frame.clone();
        let clients: Vec<&str> = HOSTS.iter().filter(|host| host.0 == WAN).map(|host| host.1).collect();
        let foreign = if seen.port == WAN { &INSIDE[..] } else { &clients[..] };
        if let seen::L4::Tcp { options, .. } = &seen.l4 {
            let toa =
                seen::options(options).into_iter().find(|option| [28, 200, 253, 254].contains(&option[0]));
            assert!(seen.port == LAN || toa.is_none(), "TOA on the client side: {options:02x?}");
            if let Some(toa) = toa.map(<[u8]>::to_vec)
                && let Some(at) = frame.windows(toa.len()).position(|window| window == toa)
            {
                frame[at..at + toa.len()].fill(0);
            }
        }
        if seen.uoa().is_some() {
            assert_eq!(seen.port, LAN, "UOA on the client side");
            let len = usize::from(seen.ipv4_options()[1]);
            frame[ETH + 20..ETH + 20 + len].fill(0);
        }
        if let Some(header) = self.proxy_header(seen)
            && let Some(at) = frame.windows(header.len()).position(|window| window == header)
        {
            assert_eq!(seen.port, LAN, "a PROXY protocol header on the client side: {header:02x?}");
            frame[at..at + header.len()].fill(0);
        }
        for address in foreign.iter().filter(|_| !self.hairpin) {
            let found = match ip(address) {
                IpAddr::V4(v4) => frame[ETH..].windows(4).any(|window| window == v4.octets()),
                IpAddr::V6(v6) => frame[ETH..].windows(16).any(|window| window == v6.octets()),
            };
            assert!(!found, "{address} in a frame on the other side: {seen:?}");
        }
    }

    /// The PROXY protocol header in a payload, or all that is sent again of one.
    fn proxy_header<'a>(&mut self, seen: &'a Seen) -> Option<&'a [u8]> {
        if let Ok(said) = proxy_protocol::read(&seen.payload) {
            let header = &seen.payload[..said.len];
            self.proxy_headers.insert(header.to_vec());
            return Some(header);
        }
        let is_rest = self.proxy_headers.iter().any(|header| header.ends_with(&seen.payload));
        (is_rest && seen.port == LAN && !seen.payload.is_empty()).then_some(&seen.payload)
    }

    /// A host's answer to a question of the gateway; `None` if the frame is none, an empty one from nobody.
    fn neighbour_answer(&self, port: PortId, frame: &[u8]) -> Option<Vec<u8>> {
        let host = |address: IpAddr| {
            let found = HOSTS.iter().find(|(at, host, _)| *at == port && ip(host) == address);
            found.map(|(_, _, mac)| *mac)
        };
        let own: [u8; 6] = frame[6..12].try_into().unwrap();
        if frame[12..14] == [8, 6] && frame[21] == 1 && frame[28..32] != frame[38..42] {
            let [target, sender] = [38, 28].map(|at| <[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
            return Some(arp(2, (host(IpAddr::from(target))?, target), (own, sender), own));
        }
        if frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && frame[54] == 135 {
            let [target, sender] = [62, 22].map(|at| <[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
            let target = IpAddr::from(target);
            return Some(nd(136, host(target)?, target, IpAddr::from(sender), target, own));
        }
        None
    }

    pub fn take_sent(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.sent)
    }

    // Time and configuration

    /// Lets so many ticks of 10 ms pass at once and gives every worker its turns.
    pub fn pass_ticks(&mut self, ticks: u32) {
        self.now.nanos += u64::from(ticks) * 10_000_000;
        for _ in 0..4 {
            for worker in 0..self.engines.len() {
                self.engines[worker].tick(&mut self.ios[worker], self.now);
                self.settle();
            }
        }
    }

    /// Lets seconds pass, one at a time.
    pub fn pass(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.pass_ticks(Tick::PER_SECOND);
        }
    }

    /// Replaces the configuration on all workers.
    pub fn apply(&mut self, config: &str) {
        let config = self.options.parse(config);
        let (snapshot, slots) = self.slots.apply(&config, &self.facts, self.steering.clone()).unwrap();
        self.slots = slots;
        let snapshot = Arc::new(snapshot);
        for engine in &mut self.engines {
            engine.apply(snapshot.clone(), self.now);
        }
        self.settle();
    }

    /// Gives numbers and addresses free that no session uses, as control does between two configurations.
    pub fn retire(&mut self) {
        let Rig { engines, slots, .. } = self;
        let has_sessions = |id: RealServerId| {
            engines.iter().map(|engine| &engine.real_servers()[id.index()]).any(|c| c.active + c.inactive > 0)
        };
        let leased = |address: &Address| {
            engines
                .iter()
                .flat_map(|engine| engine.pools().lips())
                .any(|lip| lip.address == *address && lip.leased > 0)
        };
        slots.retire(has_sessions, |_, address| leased(address));
    }

    // What to look at

    /// The configuration in force.
    pub fn snapshot(&self) -> &Snapshot {
        self.engines[0].snapshot()
    }

    /// The worker whose packets with this tuple are.
    pub fn home(&self, src: frame::End, dst: frame::End, protocol: Protocol) -> usize {
        self.steering.home(&tuple(src, dst, protocol)).index()
    }

    /// How many packets each worker has handed over.
    pub fn handed(&self) -> Vec<u64> {
        self.engines.iter().map(|engine| engine.counters().handed).collect()
    }

    /// Whether a worker has no session of a packet with this tuple, though one whose tag is the same.
    pub fn is_mistaken(&self, worker: usize, src: frame::End, dst: frame::End, protocol: Protocol) -> bool {
        let (sessions, tuple) = (self.engines[worker].sessions(), tuple(src, dst, protocol));
        let looks_known = !sessions.probe(sessions.hash(&tuple, src.0.is_ipv6())).is_none();
        looks_known && sessions.find(&tuple).is_none()
    }

    pub fn sessions(&self) -> u32 {
        self.engines.iter().map(|engine| engine.sessions().len()).sum()
    }

    /// The session of a packet with this tuple: worker and index.
    pub fn find(
        &self,
        src: frame::End,
        dst: frame::End,
        protocol: Protocol,
    ) -> Option<(usize, SessionIndex)> {
        let tuple = tuple(src, dst, protocol);
        let mut found =
            self.engines.iter().enumerate().filter_map(|(worker, engine)| {
                engine.sessions().find(&tuple).map(|(index, _)| (worker, index))
            });
        let first = found.next();
        assert!(found.next().is_none(), "two workers have a session for {tuple:?}");
        first
    }

    /// The state of the session of a packet with this tuple.
    pub fn state(&self, src: frame::End, dst: frame::End) -> Option<State> {
        let (worker, index) = self.find(src, dst, Protocol::Tcp)?;
        Some(self.engines[worker].sessions().hot(index).state)
    }

    pub fn leases(&self) -> u32 {
        self.engines.iter().flat_map(|engine| engine.pools().lips()).map(|lip| lip.leased).sum()
    }

    /// (active, inactive) of all real servers.
    pub fn at_real_servers(&self) -> (u32, u32) {
        let all = self.engines.iter().flat_map(|engine| engine.real_servers());
        all.fold((0, 0), |sum, counters| (sum.0 + counters.active, sum.1 + counters.inactive))
    }

    pub fn buffers_alive(&self) -> usize {
        self.ios.iter().map(TestIo::buffers_alive).sum()
    }

    pub fn held(&self) -> usize {
        self.engines.iter().map(|engine| engine.neighbours().held()).sum()
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.engines.iter().map(|engine| engine.counters().drops.get(reason)).sum()
    }
}

fn world(shape: Shape) -> TestIo {
    let mut io = TestIo::default();
    io.shape = shape;
    io
}

/// ND beyond questions to hosts we know: announcements, questions to strangers.
fn is_nd(seen: &Seen) -> bool {
    seen.src.is_ipv6() && matches!(seen.l4, seen::L4::Icmp { kind: 133..=137, .. })
}

fn tuple(src: frame::End, dst: frame::End, protocol: Protocol) -> Tuple {
    Tuple { src: src.0.into(), dst: dst.0.into(), sport: src.1, dport: dst.1, protocol }
}

fn source_of(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(12..16)?).ok()?)),
        _ => Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(8..24)?).ok()?)),
    }
}

/// The only frame of `out`.
#[track_caller]
pub fn one(mut out: Vec<Seen>) -> Seen {
    assert_eq!(out.len(), 1, "{out:?}");
    out.remove(0)
}
