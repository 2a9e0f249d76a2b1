//! Packet buffers: how many a configuration needs, and how large; the one place that counts them.

use super::checked::Config;

/// Packets that may wait for neighbours, per worker.
pub const HELD_MAX: u16 = 1024;
/// Packets of one burst.
pub const BURST: u32 = 32;
/// Buffers that a thread's cache in the pool takes at once; it holds one and a half times as many.
pub const CACHE: u32 = 256;
/// `RTE_PKTMBUF_HEADROOM`.
pub const HEADROOM_BYTES: u16 = 128;
/// `struct rte_mbuf` and the mempool's header of an object.
pub const HEADER_BYTES: u64 = 128 + 64;
/// Ethernet header, two VLAN tags and the FCS.
const ETHERNET_BYTES: u16 = 14 + 8 + 4;
/// The data room that most PMDs expect at least (`RTE_MBUF_DEFAULT_DATAROOM`).
const DATA_ROOM_MIN: u16 = 2048;

/// Every place where a packet buffer can be at one time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BufferDemand {
    /// what the devices hold, all together
    pub devices: u32,
    /// workers
    pub workers: u32,
    /// ports, each of which every worker has a transmit buffer for
    pub ports: u32,
    /// packets that may wait in hand-off rings: one full ring per worker, for full ones drop
    pub hand_off: u32,
    /// packets that may wait for neighbours, all workers together
    pub held: u32,
}

impl BufferDemand {
    /// What `config` needs beside what its `devices` hold.
    pub fn of(config: &Config, devices: u32) -> BufferDemand {
        let workers = u32::from(config.dataplane.workers);
        BufferDemand {
            devices,
            workers,
            ports: config.ports.len() as u32,
            hand_off: if workers > 1 { workers * config.dataplane.hand_off_ring } else { 0 },
            held: workers * u32::from(HELD_MAX),
        }
    }

    /// Buffers that are enough in the worst case, caches included.
    pub fn buffers(&self) -> u32 {
        // A burst in work, one per transmit buffer, and a cache; control's thread has a cache too.
        let per_worker = BURST + self.ports * BURST + CACHE * 3 / 2;
        self.devices + self.workers * per_worker + CACHE * 3 / 2 + self.hand_off + self.held
    }
}

/// The data room, headroom included, of buffers that carry a frame of an MTU in one piece.
pub fn data_room(mtu: u16) -> u16 {
    let frame = mtu.saturating_add(ETHERNET_BYTES).max(DATA_ROOM_MIN);
    frame.saturating_add(HEADROOM_BYTES).checked_next_multiple_of(64).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demand_counts_every_place_a_packet_can_be() {
        let demand = BufferDemand { devices: 4096, workers: 2, ports: 2, hand_off: 2048, held: 128 };
        assert_eq!(demand.buffers(), 4096 + 2 * (32 + 64 + 384) + 384 + 2048 + 128);
    }

    #[test]
    fn data_rooms_hold_the_mtu_and_the_headroom() {
        assert_eq!(data_room(1500), 2048 + 128);
        assert_eq!(data_room(576), 2048 + 128);
        assert!(data_room(9000) >= 9000 + 18 + 8 + 128);
        assert_eq!(data_room(9000) % 64, 0);
        assert_eq!(data_room(u16::MAX), u16::MAX);
    }
}
