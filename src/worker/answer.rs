//! What a worker answers to control's letters: a bounded look at its shard.

use super::mailbox::{Answer, Request};
use super::records::{ConflictRecord, RealServerRecord, SessionRecord};
use crate::clock::Now;
use crate::id::RealServerId;
use crate::path::Engine;
use crate::path::neighbour::{Conflict, NeighbourIndex};
use crate::path::packet::Packet;
use crate::session::SessionIndex;

/// Does what a letter asks.
#[cold]
pub(super) fn answer<P: Packet>(engine: &mut Engine<P>, now: Now, request: Request) -> Answer {
    match request {
        Request::Apply(snapshot) => Answer::Applied(engine.apply(snapshot, now)),
        Request::Sessions(filter, mut page) => {
            let sessions = engine.sessions();
            page.fill(sessions.slots_used(), |position| {
                let index = SessionIndex(position);
                if !sessions.hot(index).is_live() {
                    return None;
                }
                let record = SessionRecord::read(sessions, index, now.tick());
                filter.admits(&record).then_some(record)
            });
            Answer::Sessions(page)
        }
        Request::Neighbours(mut page) => {
            let neighbours = engine.neighbours();
            page.fill(neighbours.slots_used(), |position| {
                neighbours.view(NeighbourIndex(position as u16), now)
            });
            Answer::Neighbours(page)
        }
        Request::Leases(mut page) => {
            let pools = engine.pools();
            page.fill(pools.destination_slots() as u32, |position| {
                let slot = position as usize;
                pools.destinations(slot..slot + 1).next()
            });
            Answer::Leases(page)
        }
        Request::LocalAddresses(mut page) => {
            let pools = engine.pools();
            page.fill(pools.lip_slots() as u32, |slot| pools.lip(slot as usize));
            Answer::LocalAddresses(page)
        }
        Request::LinkUp(port) => {
            engine.announce(port, now);
            Answer::Noted
        }
        Request::Conflicts(mut page) => {
            let conflicts = engine.neighbours().conflicts();
            page.fill(conflicts.len() as u32, |position| {
                let &Conflict { port, address, mac, .. } = conflicts.get(position as usize)?;
                Some(ConflictRecord { port, address, mac })
            });
            Answer::Conflicts(page)
        }
        Request::RealServers(mut page) => {
            let real_servers = engine.real_servers();
            page.fill(real_servers.len() as u32, |position| {
                let counters = &real_servers[position as usize];
                let [inbound, outbound] = counters.traffic;
                Some(RealServerRecord {
                    id: RealServerId(position),
                    sessions_active: counters.active,
                    sessions_inactive: counters.inactive,
                    sessions_created: counters.sessions,
                    refused_no_port: counters.no_local_port,
                    inbound_packets: inbound.packets,
                    inbound_bytes: inbound.bytes,
                    outbound_packets: outbound.packets,
                    outbound_bytes: outbound.bytes,
                })
            });
            Answer::RealServers(page)
        }
    }
}
