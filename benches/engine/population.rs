//! The live sessions of a measurement: opened through the engine itself, then drawn at random.

use arrayvec::ArrayVec;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use fullnat::clock::Now;
use fullnat::id::PortId;
use fullnat::path::{BURST, Engine};
use fullnat::wire::{Protocol, Tuple, tcp};

use crate::buffer::{Frame, World};
use crate::frame::{self, CLIENT_ISN, Kind, SERVER_ISN, Segment, Templates};
use crate::lab::{self, LAN, WAN};

/// Client ports used per client address.
const FLOWS_PER_CLIENT: u32 = 64;

/// A burst ready to be received.
pub type Burst = (PortId, ArrayVec<Frame, BURST>);

/// Where a session leaves from and goes to, as small as can be: reading it must not disturb the caches.
#[derive(Clone, Copy, Debug)]
struct Beyond {
    rip: u8,
    lip: u16,
    lport: u16,
}

/// Live sessions and the traffic on them.
pub struct Population {
    /// what their frames look like
    pub kind: Kind,
    templates: Templates,
    beyond: Vec<Beyond>,
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

/// The n-th client's first packet's flow.
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
            beyond: Vec::with_capacity(capacity as usize),
            random: StdRng::seed_from_u64(1),
        }
    }

    /// Live sessions.
    pub fn len(&self) -> u32 {
        self.beyond.len() as u32
    }

    /// Opens the next `count` sessions; TCP ones through their whole handshake.
    pub fn open(&mut self, engine: &mut Engine<Frame>, world: &mut World, now: Now, count: u32) {
        let first = self.len();
        for from in (first..first + count).step_by(BURST) {
            let to = (from + BURST as u32).min(first + count);
            let syn = Segment { seq: CLIENT_ISN, ack: 0, flags: tcp::SYN };
            self.run(engine, world, now, (from..to).map(|number| (number, syn)), WAN);
            for (_, sent) in &world.sent {
                self.beyond.push(Beyond::read(self.kind, sent));
            }
            world.recycle();
            if self.kind.tcp {
                let answer = Segment { seq: SERVER_ISN, ack: 0, flags: tcp::SYN | tcp::ACK };
                self.run(engine, world, now, (from..to).map(|number| (number, answer)), LAN);
                world.recycle();
                self.run(engine, world, now, (from..to).map(|number| (number, established())), WAN);
                world.recycle();
            }
        }
        assert_eq!(self.len(), first + count, "every session was opened");
    }

    fn run(
        &mut self,
        engine: &mut Engine<Frame>,
        world: &mut World,
        now: Now,
        segments: impl Iterator<Item = (u32, Segment)>,
        port: PortId,
    ) {
        let mut burst = ArrayVec::new();
        for (number, segment) in segments {
            burst.push(self.frame(world, number, port, segment));
        }
        let wanted = burst.len();
        engine.process(world, now, port, &mut burst);
        assert_eq!(world.sent.len(), wanted, "nothing is dropped: {:?}", engine.counters());
    }

    /// A frame of session `number` that arrives on `port`.
    #[inline]
    pub fn frame(&mut self, world: &mut World, number: u32, port: PortId, segment: Segment) -> Frame {
        let inbound = inbound(self.kind, number);
        if port == WAN {
            return world.receive(self.templates.inbound.stamp(&inbound, segment));
        }
        let beyond = self.beyond[number as usize];
        let outbound = Tuple {
            src: lab::rip(self.kind.v6, beyond.rip.into()),
            dst: lab::lip(self.kind.v6, beyond.lip.into()),
            sport: 8080,
            dport: beyond.lport,
            protocol: inbound.protocol,
        };
        world.receive(self.templates.outbound.stamp(&outbound, segment))
    }

    /// One burst of established traffic on `port`.
    pub fn burst(&mut self, world: &mut World, draw: &Draw, port: PortId) -> Burst {
        let mut burst = ArrayVec::new();
        for _ in 0..BURST {
            let number = self.draw(draw);
            burst.push(self.frame(world, number, port, established()));
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
            Draw::Zipf(zipf) => (u64::from(zipf.draw(&mut self.random)) * 2_654_435_761 % u64::from(len)) as u32,
        }
    }
}

/// An acknowledgement without data. It does not acknowledge the real server's first byte: TOA, where configured, goes
/// into every one.
pub const fn established() -> Segment {
    Segment { seq: CLIENT_ISN + 1, ack: SERVER_ISN + 1, flags: tcp::ACK }
}

impl Beyond {
    fn read(kind: Kind, frame: &Frame) -> Beyond {
        use fullnat::path::packet::Packet;
        let (lip, lport, rip, _) = frame::ends(frame.head());
        let number = |of: fn(bool, u32) -> fullnat::wire::Address, address, max: u32| {
            (0..max).find(|&number| of(kind.v6, number) == address).expect("one of the lab's addresses")
        };
        let low = |address: fullnat::wire::Address| {
            let octets = address.octets();
            u16::from_be_bytes([octets[14], octets[15]])
        };
        let lip = if kind.v6 { low(lip) } else { low(lip) - 0x100 };
        Beyond { rip: number(lab::rip, rip, lab::REAL_SERVERS) as u8, lip, lport }
    }
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
