//! Why a packet was not forwarded: the one table that counters, metrics and documentation are made of.

/// How much a drop should worry an operator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    /// The packet ended here on purpose: it was for the gateway itself.
    Consumed,
    /// Refused by rule or policy; expected on any network.
    Policy,
    /// The packet was malformed.
    Malformed,
    /// A limit of the gateway was reached: look here first.
    Capacity,
}

macro_rules! drop_reasons {
    ($($variant:ident $name:literal $severity:ident $sentence:literal)*) => {
        /// The one named cause for which a packet was not forwarded.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason { $(#[doc = $sentence] $variant),* }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant),*];
            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();
            /// The name in counters, metrics and the control socket.
            pub const fn name(self) -> &'static str { match self { $(DropReason::$variant => $name),* } }
            /// One sentence for people.
            pub const fn sentence(self) -> &'static str { match self { $(DropReason::$variant => $sentence),* } }
            /// How much it should worry an operator.
            pub const fn severity(self) -> Severity { match self { $(DropReason::$variant => Severity::$severity),* } }
        }
    };
}

drop_reasons! {
    // for the gateway itself
    NeighbourMessage "neighbour_message" Consumed "An ARP or ND message was learned from or answered."
    EchoAnswered "echo_answered" Consumed "An ICMP echo request to an address of the gateway was answered."
    // Ethernet
    EthernetRunt "ethernet_runt" Malformed "The frame is shorter than its headers."
    EthernetOversize "ethernet_oversize" Malformed "The frame is longer than the port's MTU allows."
    SuperFrame "super_frame" Capacity "A kernel on this machine sent more than the MTU in one frame, as only hardware with segmentation offload could take it."
    EthernetNotForUs "ethernet_not_for_us" Policy "The destination MAC address is another host's."
    EthernetGroupDestination "ethernet_group_destination" Policy "An IP packet that is no neighbour discovery came in a broadcast or multicast frame."
    EthernetGroupSource "ethernet_group_source" Malformed "The source MAC address has the group bit."
    EthernetVlan "ethernet_vlan" Policy "The frame carries a VLAN tag that the port is not configured for."
    EthernetUnknownType "ethernet_unknown_type" Policy "The EtherType is not one the gateway forwards."
    // neighbours
    ArpMalformed "arp_malformed" Malformed "The ARP message is malformed."
    ArpNotForUs "arp_not_for_us" Policy "The ARP message asks for or tells of nothing the gateway holds or needs."
    NdMalformed "nd_malformed" Malformed "The neighbour discovery message is malformed."
    NdNotForUs "nd_not_for_us" Policy "The neighbour discovery message asks for or tells of nothing the gateway holds or needs."
    NeighbourQueueFull "neighbour_queue_full" Capacity "The next hop is not resolved and its waiting queue is full."
    NeighbourUnreachable "neighbour_unreachable" Policy "The next hop did not answer."
    NeighbourTableFull "neighbour_table_full" Capacity "The neighbour table is full."
    NeighbourLimited "neighbour_limited" Capacity "More ARP or ND messages came than the limit allows."
    // IP
    Ipv4Header "ipv4_header" Malformed "The IPv4 version, header length or total length is wrong."
    Ipv4Checksum "ipv4_checksum" Malformed "The IPv4 header checksum is wrong."
    Ipv4SourceRoute "ipv4_source_route" Policy "The packet carries a source route option."
    Ipv4Options "ipv4_options" Malformed "The IPv4 options are malformed."
    Ipv6Header "ipv6_header" Malformed "The IPv6 version or payload length is wrong."
    Ipv6Extension "ipv6_extension" Malformed "The IPv6 extension header chain is truncated or longer than the gateway walks."
    Ipv6RoutingHeader "ipv6_routing_header" Policy "The packet carries a type 0 routing header or one with segments left."
    IpFragment "ip_fragment" Policy "The packet is a fragment; fragments are not supported yet."
    IpTtlExceeded "ip_ttl_exceeded" Policy "The TTL or hop limit ran out here."
    IpMartianSource "ip_martian_source" Policy "The source address cannot be a host's."
    IpSpoofedSource "ip_spoofed_source" Policy "The source address is the gateway's own or does not belong behind the port."
    IpNotForUs "ip_not_for_us" Policy "The destination is neither a VIP, a LIP nor a port address."
    IpUnknownProtocol "ip_unknown_protocol" Policy "The protocol above IP is not one the gateway forwards."
    IpTooBig "ip_too_big" Policy "The packet is larger than the MTU of the way out."
    NoRoute "no_route" Policy "No route leads to the destination."
    // layer 4
    TcpHeader "tcp_header" Malformed "The TCP header is truncated or its length is wrong."
    TcpFlags "tcp_flags" Malformed "The TCP flags are a combination that no stack sends."
    UdpHeader "udp_header" Malformed "The UDP header is truncated, its length is wrong or its destination port is 0."
    UdpChecksumMissing "udp_checksum_missing" Malformed "A UDP datagram over IPv6 has no checksum."
    L4Checksum "l4_checksum" Malformed "The device found the layer-4 checksum wrong where the gateway would have had to renew it."
    Land "land" Policy "Source and destination are the same."
    // sessions
    NoService "no_service" Policy "No virtual service listens there."
    NoSession "no_session" Policy "A TCP segment other than a SYN came for which there is no session."
    NoSessionOutbound "no_session_outbound" Policy "A packet to a local address has no session."
    NoRealServer "no_real_server" Capacity "The service has no real server to take a new session."
    NoLocalPort "no_local_port" Capacity "The local pool has no free port toward the real server."
    SessionTableFull "session_table_full" Capacity "The session table is full."
    SessionReset "session_reset" Policy "The session's real server was removed and the service resets such sessions."
    RstOutsideWindow "rst_outside_window" Policy "A RST lies far outside the session's window."
    ProxyHeaderFirst "proxy_header_first" Policy "The client's data would have reached the real server before the PROXY protocol header, or in its place."
    ProxyHeaderAwaited "proxy_header_awaited" Consumed "A front's segment came before its PROXY protocol header: the handshake's last ACK, which goes on with the header, or data that overtook it."
    ProxyHeaderMalformed "proxy_header_malformed" Malformed "A front's connection or datagram begins with no PROXY protocol header, or with one that is malformed, longer than 536 bytes or not in one piece."
    // ICMP
    IcmpMalformed "icmp_malformed" Malformed "The ICMP message is truncated or what it quotes is."
    IcmpChecksum "icmp_checksum" Malformed "The ICMP checksum is wrong."
    IcmpUnhandled "icmp_unhandled" Policy "The ICMP type is not forwarded and not answered."
    IcmpNoSession "icmp_no_session" Policy "The ICMP error concerns no session."
    // between workers and out
    HandOffRingFull "hand_off_ring_full" Capacity "The home worker's ring is full."
    PacketPoolEmpty "packet_pool_empty" Capacity "No packet buffer was left."
    Headroom "headroom" Capacity "The packet buffer has no room to make the packet larger."
    TxQueueFull "tx_queue_full" Capacity "The device did not take the packet."
    PortUnknown "port_unknown" Capacity "The way out names a port that does not run."
}

/// A counter per drop reason, owned by one worker.
#[derive(Clone, Debug)]
pub struct DropCounters([u64; DropReason::COUNT]);

impl Default for DropCounters {
    fn default() -> Self {
        DropCounters([0; DropReason::COUNT])
    }
}

impl DropCounters {
    /// Counts one packet.
    #[inline(always)]
    pub fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &DropCounters) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, others)| *mine += others);
    }

    /// Packets dropped for `reason`.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// All counters in the order of [`DropReason::ALL`].
    pub fn as_array(&self) -> &[u64; DropReason::COUNT] {
        &self.0
    }

    /// Packets dropped for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}
