//! The PROXY protocol header of a UDP session: in front of the first datagram's payload, or of every one's.
//!
//! Nobody acknowledges a datagram. A real server that has to know of every one whose it is, or that serves a session from
//! several processes, is sent the header with each.

use super::drop_reason::DropReason;
use super::forward::Verdict;
use super::packet::{Io, Packet};
use super::parsed::Parsed;
use super::rewrite::Layout;
use super::shard::{Shard, Turn};
use crate::service::snapshot::{ClientAddress, PortView, ProxySettings};
use crate::session::{Flags, SessionIndex};
use crate::wire::checksum::{self, Delta};
use crate::wire::proxy_protocol::{self, Version};
use crate::wire::udp;

impl<P: Packet> Shard<P> {
    /// The settings by which this inbound datagram of a session shall carry the header; `None` if it shall not.
    #[cold]
    pub(super) fn proxy_header_due<I: Io>(
        &mut self,
        turn: &Turn<'_, I>,
        index: SessionIndex,
    ) -> Option<ProxySettings> {
        let settings = proxy_settings(turn, self.sessions.cold(index).service);
        if let Some(named) = self.sessions.named(index) {
            return settings.filter(|settings| settings.each_datagram || !named.is_told);
        }
        if settings.is_none() {
            // The service, or its saying so, has gone since.
            self.sessions.hot_mut(index).flags.clear(Flags::PROXY_HEADER);
        }
        settings
    }

    /// Puts the header into an inbound datagram of `out_len` bytes behind the gateway. Returns where things stand and
    /// what the UDP checksum changes by; `Err` if the datagram has no room for it.
    #[cold]
    pub(super) fn insert_proxy_header(
        &mut self,
        packet: &mut P,
        parsed: &Parsed,
        layout: Layout,
        index: SessionIndex,
        (out_len, egress): (usize, &PortView),
        settings: ProxySettings,
    ) -> Result<(Layout, Delta), Verdict> {
        let header = proxy_protocol::write(Version::V2, &self.sessions.client_flow(index));
        let mtu = usize::from(egress.mtu);
        if out_len + header.len() > mtu {
            return Err(Verdict::TooBig((mtu + parsed.ip_len()).saturating_sub(out_len + header.len())));
        }
        let head = packet.grow_front(header.len()).ok_or(Verdict::Drop(DropReason::Headroom))?;
        let at = layout.l4 + udp::HEADER_LEN;
        head.copy_within(header.len()..header.len() + at, 0);
        head[at..at + header.len()].copy_from_slice(&header);
        let datagram = &mut head[layout.l4..];
        let (old, new) = (udp::len(datagram) as u16, (udp::len(datagram) + header.len()) as u16);
        udp::set_len(datagram, new);
        // Where there is no checksum (RFC 768), either none is needed or the whole will be summed up toward IPv6.
        let delta = if udp::checksum(datagram) == 0 {
            Delta::default()
        } else {
            // The length stands in the pseudo header as well.
            let of_lengths = Delta::default().replace_u16(old, new).replace_u16(old, new);
            of_lengths.add_delta(checksum::fold(checksum::sum(&header)))
        };
        if let Some(named) = self.sessions.named_mut(index) {
            named.is_told = true;
        } else if !settings.each_datagram {
            self.sessions.hot_mut(index).flags.clear(Flags::PROXY_HEADER);
        }
        self.counters.proxy_sent += 1;
        Ok((Layout { end: layout.end + header.len(), ..layout }, delta))
    }
}

fn proxy_settings<I: Io>(turn: &Turn<'_, I>, service: u16) -> Option<ProxySettings> {
    match turn.snapshot.service(service)?.client_address {
        ClientAddress::Proxy(settings) => Some(settings),
        _ => None,
    }
}
