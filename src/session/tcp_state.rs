//! The TCP states of IPVS and how packets move a session between them.
//!
//! The tables are those of the kernel's `net/netfilter/ipvs/ip_vs_proto_tcp.c`, without the INPUT-ONLY half,
//! which exists for forwarding methods whose answers bypass the director: FULLNAT sees both directions. What
//! the machine does not judge is whether a segment is genuine; the path keeps a RST or SYN outside the window
//! away from it (RFC 5961). One transition is one load from a table of 88 bytes.

use zerocopy::{FromZeros, Immutable, IntoBytes};

use super::entry::Direction;

/// The state of a session, by the names of the kernel's `ip_vs_proto_tcp.c`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromZeros, Immutable, IntoBytes)]
#[repr(u8)]
pub enum State {
    /// no packet yet
    None = 0,
    /// both sides agreed; also every UDP session
    Established,
    /// a SYN came from the real server
    SynSent,
    /// a SYN came from the client
    SynRecv,
    /// a FIN came from the real server first
    FinWait,
    /// both FINs came
    TimeWait,
    /// ended by RST
    Close,
    /// a FIN came from the client first
    CloseWait,
    /// the real server answered the client's FIN with its own
    LastAck,
    /// as in the kernel's table; not entered by FULLNAT sessions
    Listen,
    /// half open under attack
    SynAck,
}

impl State {
    /// How many states there are.
    pub const COUNT: usize = 11;

    /// Every state, in the order of the tables.
    pub const ALL: [State; State::COUNT] = [
        State::None,
        State::Established,
        State::SynSent,
        State::SynRecv,
        State::FinWait,
        State::TimeWait,
        State::Close,
        State::CloseWait,
        State::LastAck,
        State::Listen,
        State::SynAck,
    ];

    /// The name in the control socket and in `ipvsadm -Lc`, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            State::None => "none",
            State::Established => "established",
            State::SynSent => "syn_sent",
            State::SynRecv => "syn_recv",
            State::FinWait => "fin_wait",
            State::TimeWait => "time_wait",
            State::Close => "close",
            State::CloseWait => "close_wait",
            State::LastAck => "last_ack",
            State::Listen => "listen",
            State::SynAck => "synack",
        }
    }
}

/// What a segment's flags mean to the state machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Event {
    /// opens, or a SYN-ACK
    Syn = 0,
    /// a side has no more to send
    Fin,
    /// anything else that acknowledges
    Ack,
    /// ends
    Rst,
}

impl Event {
    /// The event of the flags byte of a TCP header (RFC 9293 §3.1); where several are set RST stands above
    /// SYN above FIN above ACK. A segment with none of the four changes nothing: `None` (the kernel closes
    /// the session instead).
    #[inline(always)]
    pub const fn from_flags(flags: u8) -> Option<Event> {
        EVENT_OF_FLAGS[(flags & 0x1f) as usize]
    }
}

const EVENT_OF_FLAGS: [Option<Event>; 32] = {
    const FIN: usize = 0x01;
    const SYN: usize = 0x02;
    const RST: usize = 0x04;
    const ACK: usize = 0x10;
    let mut table = [None; 32];
    let mut flags = 0;
    while flags < table.len() {
        table[flags] = if flags & RST != 0 {
            Some(Event::Rst)
        } else if flags & SYN != 0 {
            Some(Event::Syn)
        } else if flags & FIN != 0 {
            Some(Event::Fin)
        } else if flags & ACK != 0 {
            Some(Event::Ack)
        } else {
            None
        };
        flags += 1;
    }
    table
};

/// The state after `event` arrived from `direction`: the kernel's normal table.
#[inline(always)]
pub const fn next(state: State, direction: Direction, event: Event) -> State {
    TRANSITIONS[direction as usize][event as usize][state as usize]
}

/// As [`next`], by the table that the kernel takes under `secure_tcp`: an inbound ACK establishes nothing
/// before the real server has answered.
#[inline(always)]
pub const fn next_secure(state: State, direction: Direction, event: Event) -> State {
    TRANSITIONS_SECURE[direction as usize][event as usize][state as usize]
}

/// Whether a session in this state counts as active at its real server; in every other it counts as inactive.
#[inline(always)]
pub const fn is_active(state: State) -> bool {
    matches!(state, State::Established)
}

/// By direction, event, state.
type Transitions = [[[State; State::COUNT]; 4]; 2];

// the kernel's abbreviations, so that the tables can be held beside its source
const NO: State = State::None;
const ES: State = State::Established;
const SS: State = State::SynSent;
const SR: State = State::SynRecv;
const FW: State = State::FinWait;
const TW: State = State::TimeWait;
const CL: State = State::Close;
const CW: State = State::CloseWait;
const LA: State = State::LastAck;
const LI: State = State::Listen;
const SA: State = State::SynAck;

#[rustfmt::skip]
const TRANSITIONS: Transitions = [
    [ // inbound
        //        NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
        /* syn */ [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
        /* fin */ [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW],
        /* ack */ [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
        /* rst */ [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR],
    ],
    [ // outbound
        //        NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
        /* syn */ [SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR],
        /* fin */ [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
        /* ack */ [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
        /* rst */ [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL],
    ],
];

#[rustfmt::skip]
const TRANSITIONS_SECURE: Transitions = [
    [ // inbound
        //        NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
        /* syn */ [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA],
        /* fin */ [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA],
        /* ack */ [ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA],
        /* rst */ [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
    ],
    [ // outbound
        //        NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
        /* syn */ [SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA],
        /* fin */ [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
        /* ack */ [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
        /* rst */ [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL],
    ],
];

const _: () = assert!(NO as usize == 0 && SA as usize == State::COUNT - 1);

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's normal table once more, as text, written independently of the arrays above.
    const NORMAL_TEXT: &str = "
        dir event none established syn_sent syn_recv fin_wait time_wait close close_wait last_ack listen synack
        in syn syn_recv established established syn_recv syn_recv syn_recv syn_recv syn_recv syn_recv syn_recv syn_recv
        in fin close close_wait syn_sent time_wait time_wait time_wait close close_wait last_ack listen time_wait
        in ack established established syn_sent established fin_wait time_wait close close_wait close listen established
        in rst close close close syn_recv close close close close last_ack listen syn_recv
        out syn syn_sent established syn_sent syn_recv syn_sent syn_sent syn_sent syn_sent syn_sent listen syn_recv
        out fin time_wait fin_wait syn_sent time_wait fin_wait time_wait close time_wait last_ack listen time_wait
        out ack established established syn_sent established fin_wait time_wait close close_wait last_ack established established
        out rst close close syn_sent close close time_wait close close close close close
    ";

    /// Where the table of `secure_tcp` differs: direction, event, state, next.
    const SECURE_DIFFERENCES: &str = "
        in syn synack synack
        in fin synack synack
        in ack syn_recv syn_recv
        in ack synack synack
        in rst synack close
        out syn syn_recv synack
        out syn synack synack
    ";

    fn state(name: &str) -> State {
        *State::ALL.iter().find(|state| state.name() == name).unwrap_or_else(|| panic!("no state {name}"))
    }

    fn direction(name: &str) -> Direction {
        if name == "in" { Direction::Inbound } else { Direction::Outbound }
    }

    fn event(name: &str) -> Event {
        match name {
            "syn" => Event::Syn,
            "fin" => Event::Fin,
            "ack" => Event::Ack,
            "rst" => Event::Rst,
            other => panic!("no event {other}"),
        }
    }

    fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).filter(|words| !words.is_empty())
    }

    #[test]
    fn conformance_i1_every_transition_is_the_kernels() {
        let mut rows = rows(NORMAL_TEXT);
        let states: Vec<State> = rows.next().unwrap()[2..].iter().map(|name| state(name)).collect();
        assert_eq!(states, State::ALL);
        let mut checked = 0;
        for words in rows {
            for (&from, to) in states.iter().zip(&words[2..]) {
                let got = next(from, direction(words[0]), event(words[1]));
                assert_eq!(got, state(to), "{} {} in {}", words[0], words[1], from.name());
                checked += 1;
            }
        }
        assert_eq!(checked, 88);
    }

    #[test]
    fn conformance_i23_secure_tcp_differs_in_exactly_these_transitions() {
        let mut expected = TRANSITIONS;
        for words in rows(SECURE_DIFFERENCES) {
            expected[direction(words[0]) as usize][event(words[1]) as usize][state(words[2]) as usize] =
                state(words[3]);
        }
        for dir in [Direction::Inbound, Direction::Outbound] {
            for event in [Event::Syn, Event::Fin, Event::Ack, Event::Rst] {
                for from in State::ALL {
                    let want = expected[dir as usize][event as usize][from as usize];
                    assert_eq!(next_secure(from, dir, event), want, "{dir:?} {event:?} {}", from.name());
                }
            }
        }
    }

    #[test]
    fn conformance_i23_a_clients_ack_alone_does_not_establish_under_attack() {
        let half_open = next_secure(State::None, Direction::Inbound, Event::Syn);
        assert_eq!(next_secure(half_open, Direction::Inbound, Event::Ack), State::SynRecv);
        let answered = next_secure(half_open, Direction::Outbound, Event::Syn);
        assert_eq!(answered, State::SynAck);
        assert_eq!(next_secure(answered, Direction::Outbound, Event::Ack), State::Established);
    }

    #[test]
    fn rst_stands_above_syn_above_fin_above_ack() {
        for flags in 0..=u8::MAX {
            let set = |bit: u8| flags & bit != 0;
            let want = match (set(0x04), set(0x02), set(0x01), set(0x10)) {
                (true, ..) => Some(Event::Rst),
                (_, true, ..) => Some(Event::Syn),
                (_, _, true, _) => Some(Event::Fin),
                (_, _, _, true) => Some(Event::Ack),
                _ => None,
            };
            assert_eq!(Event::from_flags(flags), want, "flags {flags:#04x}");
        }
    }

    #[test]
    fn both_ways_of_closing_end_in_time_wait() {
        use Direction::{Inbound, Outbound};
        let walk = |steps: &[(Direction, Event)]| steps.iter().fold(State::None, |s, &(d, e)| next(s, d, e));
        let open = [(Inbound, Event::Syn), (Outbound, Event::Syn), (Inbound, Event::Ack)];
        assert_eq!(walk(&open), State::Established);
        let client_first = [&open[..], &[(Inbound, Event::Fin), (Outbound, Event::Fin)]].concat();
        let server_first = [&open[..], &[(Outbound, Event::Fin), (Inbound, Event::Fin)]].concat();
        assert_eq!(walk(&client_first), State::TimeWait);
        assert_eq!(walk(&server_first), State::TimeWait);
        assert!(State::ALL.iter().all(|&state| is_active(state) == (state == State::Established)));
    }
}
