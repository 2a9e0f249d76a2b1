//! How long a session lives without packets. Read when a session's state changes or its timer comes round,
//! never per packet.

use super::tcp_state::State;
use crate::clock::Tick;
use crate::wire::Protocol;

/// Seconds without a packet after which a session ends, by state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// TCP, indexed by [`State`]
    pub tcp_secs: [u32; State::COUNT],
    /// UDP
    pub udp_secs: u32,
}

impl Timeouts {
    /// The longest time-out that sessions can have: 30 days. More is cut to it, so that times stay comparable
    /// in [`Tick`]s.
    pub const SECS_MAX: u32 = 30 * 24 * 3600;

    /// The time-outs of IPVS: `tcp_timeouts` of the kernel's `ip_vs_proto_tcp.c`, `udp_timeouts` of
    /// `ip_vs_proto_udp.c`.
    pub const IPVS: Timeouts = Timeouts {
        //          none  est  ss   sr  fw   tw  cl  cw  la   li   sa
        tcp_secs: [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120],
        udp_secs: 300,
    };

    /// What the RFCs ask of a NAT: established connections live 2 h 4 min, transitory ones 4 min (RFC 5382
    /// REQ-5, RFC 7857 §2.1), UDP 5 min (RFC 4787 REQ-5). A RST ends a session in 10 s all the same (RFC 7857
    /// §2.2 lets a NAT keep it for 4 min; IPVS does not).
    pub const fn rfc5382() -> Timeouts {
        let mut timeouts = Timeouts { tcp_secs: [240; State::COUNT], udp_secs: 300 };
        timeouts.tcp_secs[State::None as usize] = Timeouts::IPVS.tcp_secs[State::None as usize];
        timeouts.tcp_secs[State::Close as usize] = Timeouts::IPVS.tcp_secs[State::Close as usize];
        timeouts.tcp_secs[State::Established as usize] = 7440;
        timeouts
    }

    /// The time-out of a session in ticks.
    #[inline(always)]
    pub const fn ticks(&self, protocol: Protocol, state: State) -> u32 {
        let secs = match protocol {
            Protocol::Tcp => self.tcp_secs[state as usize],
            Protocol::Udp => self.udp_secs,
        };
        (if secs < Timeouts::SECS_MAX { secs } else { Timeouts::SECS_MAX }) * Tick::PER_SECOND
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts::IPVS
    }
}

const _: () = assert!(Timeouts::SECS_MAX * Tick::PER_SECOND < u32::MAX / 4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conformance_i2_the_defaults_are_those_of_ipvs() {
        let documented = [
            (State::None, 2),
            (State::Established, 900),
            (State::SynSent, 120),
            (State::SynRecv, 60),
            (State::FinWait, 120),
            (State::TimeWait, 120),
            (State::Close, 10),
            (State::CloseWait, 60),
            (State::LastAck, 30),
            (State::Listen, 120),
            (State::SynAck, 120),
        ];
        let timeouts = Timeouts::default();
        assert_eq!(documented.len(), State::COUNT);
        for (state, secs) in documented {
            assert_eq!(timeouts.ticks(Protocol::Tcp, state), secs * Tick::PER_SECOND, "{}", state.name());
            assert_eq!(timeouts.ticks(Protocol::Udp, state), 300 * Tick::PER_SECOND);
        }
    }

    #[test]
    fn conformance_i3_the_rfc_profile_keeps_what_the_rfcs_ask() {
        let timeouts = Timeouts::rfc5382();
        for state in State::ALL {
            let secs = timeouts.tcp_secs[state as usize];
            match state {
                State::Established => assert!(secs >= 7440),
                State::None | State::Close => assert_eq!(secs, Timeouts::IPVS.tcp_secs[state as usize]),
                _ => assert!(secs >= 240, "{}", state.name()),
            }
        }
        assert!(timeouts.udp_secs >= 300);
    }

    #[test]
    fn a_time_out_beyond_the_longest_is_cut() {
        let timeouts = Timeouts { udp_secs: u32::MAX, ..Timeouts::IPVS };
        assert_eq!(timeouts.ticks(Protocol::Udp, State::Established), Timeouts::SECS_MAX * Tick::PER_SECOND);
    }
}
