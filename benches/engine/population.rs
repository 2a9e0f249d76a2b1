//! The live sessions of a measurement: opened through the engine itself, then drawn at random.

use arrayvec::ArrayVec;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use fullnat::clock::Now;
use fullnat::id::PortId;
use fullnat::path::packet::Packet;
use fullnat::path::{BURST, Engine};
use fullnat::wire::{Address, Protocol, Tuple, tcp};

use crate::buffer::{Frame, World};
use crate::frame::{self, CLIENT_ISN, Kind, SERVER_ISN, Segment, Templates};
use crate::lab::{self, LAN, WAN};

/// Client ports used per client address.
const FLOWS_PER_CLIENT: u32 = 64;

/// A burst ready to be received.
pub type Burst = (PortId, ArrayVec<Frame, BURST>);

/// A session, as small as can be: reading it must not disturb the caches.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// which client's flow it is
    pub number: u32,
    /// the client's first sequence number as the real server sees it
    pub isn: u32,
    rip: u8,
    lip: u16,
    lport: u16,
}

/// Live sessions and the traffic on them.
pub struct Population {
    /// what their frames look like
    pub kind: Kind,
    templates: Templates,
    flows: Vec<Flow>,
    next: u32,
    /// flows whose first packets are on their way through the engine, in order
    opening: Vec<u32>,
    random: StdRng,
}

/// How sessions are drawn.
#[derive(Clone, Debug)]
pub enum Draw {
    /// each as often as any other (RFC 4814)
    Uniform,
    /// the n-th most frequent 1/n as often as the first
    Zipf(rand_zipf::Zipf),
}

/// The n-th flow, as the client's packets show it.
pub fn inbound(kind: Kind, number: u32) -> Tuple {
    Tuple {
        src: lab::cip(kind.v6, number / FLOWS_PER_CLIENT),
        dst: lab::vip(kind.v6),
        sport: 1024 + (number % FLOWS_PER_CLIENT) as u16 * 997,
        dport: 80,
        protocol: if kind.tcp { Protocol::Tcp } else { Protocol::Udp },
    }
}

impl Population {
    /// Nobody yet.
    pub fn new(kind: Kind, capacity: u32) -> Self {
        Population {
            kind,
            templates: Templates::new(kind),
            flows: Vec::with_capacity(capacity as usize),
            next: 0,
            opening: Vec::new(),
            random: StdRng::seed_from_u64(1),
        }
    }

    /// Live sessions.
    pub fn len(&self) -> u32 {
        self.flows.len() as u32
    }

    /// What is known of them, in the order they were opened.
    pub fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// Takes in sessions that another population opened.
    pub fn extend(&mut self, flows: &[Flow]) {
        self.flows.extend_from_slice(flows);
    }

    /// Opens `count` more sessions; TCP ones through their whole handshake.
    pub fn open(&mut self, engine: &mut Engine<Frame>, world: &mut World, now: Now, count: u32) {
        self.open_where(engine, world, now, count, |_| true);
    }

    /// As [`Population::open`], of flows that `ours` admits.
    pub fn open_where(
        &mut self,
        engine: &mut Engine<Frame>,
        world: &mut World,
        now: Now,
        count: u32,
        ours: impl Fn(&Tuple) -> bool,
    ) {
        let wanted = self.len() + count;
        while self.len() < wanted {
            let some = (wanted - self.len()).min(BURST as u32);
            let (_, mut burst) = self.first_packets(world, some as usize, &ours);
            forward_all(engine, world, now, WAN, &mut burst);
            let opened = self.note_opened(world);
            if self.kind.tcp {
                for (port, flags) in [(LAN, tcp::SYN | tcp::ACK), (WAN, tcp::ACK)] {
                    let mut burst = ArrayVec::new();
                    for at in opened.clone() {
                        let ack =
                            if port == LAN { self.flows[at].isn.wrapping_add(1) } else { SERVER_ISN + 1 };
                        let seq = if port == LAN { SERVER_ISN } else { CLIENT_ISN + 1 };
                        burst.push(self.frame(world, at, port, Segment { seq, ack, flags }));
                    }
                    forward_all(engine, world, now, port, &mut burst);
                    world.recycle();
                }
            }
        }
    }

    /// A burst of `count` first packets of flows that were never seen.
    pub fn first_packets(&mut self, world: &mut World, count: usize, ours: impl Fn(&Tuple) -> bool) -> Burst {
        let mut burst = ArrayVec::new();
        while burst.len() < count {
            let (number, tuple) = (self.next, inbound(self.kind, self.next));
            self.next += 1;
            if ours(&tuple) {
                self.opening.push(number);
                let syn = Segment { seq: CLIENT_ISN, ack: 0, flags: tcp::SYN };
                burst.push(world.receive(self.templates.inbound.stamp(&tuple, syn)));
            }
        }
        (WAN, burst)
    }

    /// Reads from what was sent where the sessions went whose first packets went in; their places.
    pub fn note_opened(&mut self, world: &mut World) -> std::ops::Range<usize> {
        let first = self.flows.len();
        assert_eq!(world.forwarded().count(), self.opening.len(), "every session was opened");
        for (frame, number) in world.forwarded().zip(self.opening.drain(..)) {
            self.flows.push(Flow::read(self.kind, number, frame));
        }
        world.recycle();
        first..self.flows.len()
    }

    /// Forgets all sessions; they live on in the engine until they expire.
    pub fn forget(&mut self) {
        self.flows.clear();
    }

    /// A frame of the session at `at` that arrives on `port`.
    #[inline]
    pub fn frame(&mut self, world: &mut World, at: usize, port: PortId, segment: Segment) -> Frame {
        let flow = self.flows[at];
        let inbound = inbound(self.kind, flow.number);
        if port == WAN {
            return world.receive(self.templates.inbound.stamp(&inbound, segment));
        }
        let outbound = Tuple {
            src: lab::rip(self.kind.v6, flow.rip.into()),
            dst: lab::lip(self.kind.v6, flow.lip.into()),
            sport: 8080,
            dport: flow.lport,
            protocol: inbound.protocol,
        };
        world.receive(self.templates.outbound.stamp(&outbound, segment))
    }

    /// One burst of established traffic on `port`.
    pub fn burst(&mut self, world: &mut World, draw: &Draw, port: PortId) -> Burst {
        let mut burst = ArrayVec::new();
        for _ in 0..BURST {
            let at = self.draw(draw) as usize;
            burst.push(self.frame(world, at, port, established()));
        }
        (port, burst)
    }

    /// Draws a session.
    #[inline]
    pub fn draw(&mut self, draw: &Draw) -> u32 {
        let len = self.len();
        match draw {
            Draw::Uniform => self.random.random_range(0..len),
            // the ranks are spread over the table, or the frequent ones would share lines with each other
            Draw::Zipf(zipf) => {
                (u64::from(zipf.draw(&mut self.random)) * 2_654_435_761 % u64::from(len)) as u32
            }
        }
    }
}

/// An acknowledgement without data. It does not acknowledge the real server's first byte: TOA, where configured, goes
/// into every one.
pub const fn established() -> Segment {
    Segment { seq: CLIENT_ISN + 1, ack: SERVER_ISN + 1, flags: tcp::ACK }
}

impl Flow {
    /// Of the session whose translated first packet this is.
    fn read(kind: Kind, number: u32, frame: &Frame) -> Flow {
        let frame = frame.head();
        let (lip, lport, rip, _) = frame::ends(frame);
        let low = |address: Address| u16::from_be_bytes([address.octets()[14], address.octets()[15]]);
        let (lip, rip) =
            if kind.v6 { (low(lip), low(rip) - 0x11) } else { (low(lip) - 0x100, low(rip) - 11) };
        let isn = if kind.tcp { frame::seq(frame) } else { 0 };
        Flow { number, isn, rip: rip as u8, lip, lport }
    }
}

fn forward_all(
    engine: &mut Engine<Frame>,
    world: &mut World,
    now: Now,
    port: PortId,
    burst: &mut ArrayVec<Frame, BURST>,
) {
    let wanted = burst.len();
    engine.process(world, now, port, burst);
    assert_eq!(world.sent.len(), wanted, "nothing is dropped: {:?}", engine.counters());
}

/// Zipf's distribution with exponent 1 by inversion of its continuous form.
pub mod rand_zipf {
    use rand::RngExt;
    use rand::rngs::StdRng;

    /// Over the ranks 0 to `len - 1`.
    #[derive(Clone, Debug)]
    pub struct Zipf {
        log_len: f64,
        len: u32,
    }

    impl Zipf {
        /// Over `len` ranks.
        pub fn new(len: u32) -> Self {
            Zipf { log_len: f64::from(len).ln(), len }
        }

        /// A rank. P(rank >= x) = 1 - ln x / ln len.
        #[inline]
        pub fn draw(&self, random: &mut StdRng) -> u32 {
            let uniform: f64 = random.random();
            ((uniform * self.log_len).exp() as u32).saturating_sub(1).min(self.len - 1)
        }
    }
}
