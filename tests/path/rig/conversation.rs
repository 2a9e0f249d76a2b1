//! A TCP connection through the gateway, segment by segment, in each side's own numbers.

use fullnat::session::State;

use super::frame::{ACK, End, SYN, Segment};
use super::seen::Seen;
use super::{Families, Rig, one};

/// What clients choose as initial sequence number here.
pub const CLIENT_ISN: u32 = 0xffff_fff0;
/// What real servers choose.
pub const SERVER_ISN: u32 = 0x7fff_fff8;

/// Both ends of one connection. Sequence numbers are told as offsets from each side's initial one.
#[derive(Clone, Copy, Debug)]
pub struct Conversation {
    pub client: End,
    pub vip: End,
    pub rip: End,
    /// LIP and lport, as the real server saw them
    pub lip: End,
    pub client_isn: u32,
    /// the client's initial number as the real server saw it
    pub gateway_isn: u32,
    pub server_isn: u32,
}

impl Conversation {
    /// A client's SYN; what the real server saw of it gives the rest.
    pub fn begin(rig: &mut Rig, families: Families, cport: u16) -> Conversation {
        let client = (families.client(), cport);
        Self::begin_with(rig, client, (families.vip(), 80), CLIENT_ISN, &[])
    }

    pub fn begin_with(rig: &mut Rig, client: End, vip: End, client_isn: u32, options: &[u8]) -> Conversation {
        let syn = Segment::new(client, vip, SYN, client_isn, 0).options(options);
        let seen = one(rig.client(&syn.packet()));
        Self::of_syn(&seen, client, vip, client_isn)
    }

    pub fn of_syn(seen: &Seen, client: End, vip: End, client_isn: u32) -> Conversation {
        let (lip, rip) = seen.ends();
        assert_eq!(seen.flags() & 0x3f, SYN);
        Conversation { client, vip, rip, lip, client_isn, gateway_isn: seen.seq(), server_isn: SERVER_ISN }
    }

    /// A whole handshake.
    pub fn open(rig: &mut Rig, families: Families, cport: u16) -> Conversation {
        let conversation = Self::begin(rig, families, cport);
        conversation.shake(rig);
        conversation
    }

    /// SYN-ACK and ACK.
    pub fn shake(&self, rig: &mut Rig) {
        let syn_ack = one(rig.server(&self.outbound(SYN | ACK, 0, 1).packet()));
        assert_eq!(syn_ack.tcp(), (SYN | ACK, self.server_isn, self.client_isn.wrapping_add(1)));
        assert_eq!(syn_ack.ends(), (self.vip, self.client));
        let ack = one(rig.client(&self.inbound(ACK, 1, 1).packet()));
        assert_eq!(ack.tcp(), (ACK, self.gateway_isn.wrapping_add(1), self.server_isn.wrapping_add(1)));
        assert_eq!(ack.ends(), (self.lip, self.rip));
        assert_eq!(self.state(rig), Some(State::Established));
    }

    /// A segment of the client's, by offsets from the initial numbers.
    pub fn inbound(&self, flags: u8, seq: u32, ack: u32) -> Segment {
        let ack = if flags & ACK == 0 { 0 } else { self.server_isn.wrapping_add(ack) };
        Segment::new(self.client, self.vip, flags, self.client_isn.wrapping_add(seq), ack)
    }

    /// A segment of the real server's.
    pub fn outbound(&self, flags: u8, seq: u32, ack: u32) -> Segment {
        let ack = if flags & ACK == 0 { 0 } else { self.gateway_isn.wrapping_add(ack) };
        Segment::new(self.rip, self.lip, flags, self.server_isn.wrapping_add(seq), ack)
    }

    /// Sends a segment of the client's and gives what the real server saw.
    #[track_caller]
    pub fn send(&self, rig: &mut Rig, flags: u8, seq: u32, ack: u32) -> Seen {
        let seen = one(rig.client(&self.inbound(flags, seq, ack).packet()));
        assert_eq!(seen.ends(), (self.lip, self.rip));
        assert_eq!(seen.seq(), self.gateway_isn.wrapping_add(seq));
        seen
    }

    /// Sends a segment of the real server's and gives what the client saw.
    #[track_caller]
    pub fn reply(&self, rig: &mut Rig, flags: u8, seq: u32, ack: u32) -> Seen {
        let seen = one(rig.server(&self.outbound(flags, seq, ack).packet()));
        assert_eq!(seen.ends(), (self.vip, self.client));
        if flags & ACK != 0 {
            assert_eq!(seen.ack(), self.client_isn.wrapping_add(ack));
        }
        seen
    }

    /// The session's state; `None` if it is no more.
    pub fn state(&self, rig: &Rig) -> Option<State> {
        rig.state(self.client, self.vip)
    }
}
