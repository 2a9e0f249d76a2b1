//! The TCP states of IPVS and how packets move a session between them.

/// The state of a session, by the names of the kernel's `ip_vs_proto_tcp.c`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
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
