//! In which order a worker looks at what has reached it.

use std::net::{IpAddr, Ipv4Addr};

use fullnat::id::WorkerId;
use fullnat::path::drop_reason::DropReason;
use fullnat::path::packet::HandOff;
use fullnat::wire::{Protocol, Tuple};

use crate::rig::{MAC, Poll, Rig, Way};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);

/// A TCP segment of the client with the ACK flag alone.
fn third_ack(cport: u16) -> Vec<u8> {
    let mut frame = [MAC, [2, 0, 0, 0, 0, 1]].concat();
    frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend(CLIENT.octets().iter().chain(&VIP.octets()));
    let words = frame[14..34].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum = words.sum::<u32>();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(cport.to_be_bytes().iter().chain(&80u16.to_be_bytes()));
    frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}

fn tuple(cport: u16) -> Tuple {
    Tuple {
        src: IpAddr::V4(CLIENT).into(),
        dst: IpAddr::V4(VIP).into(),
        sport: cport,
        dport: 80,
        protocol: Protocol::Tcp,
    }
}

/// The host of a session tells its home of it and sends the SYN on; the client's ACK, a consequence of that, reaches the
/// home after the note. Both may come between two polls, and the note must be read first all the same.
#[test]
fn a_note_is_read_before_the_packet_that_came_after_it() {
    let rig = Rig::new(0);
    let cport = (1024..).find(|port| rig.steering.home(&tuple(*port)) == WorkerId(0)).unwrap();
    let told = vec![HandOff::GuestBegan { inbound: tuple(cport), host: WorkerId(1) }];
    let outcome = rig.run(Way::Device(usize::MAX), [Poll { told, frames: vec![third_ack(cport)] }]);
    assert_eq!(outcome.published.drops[DropReason::NoSession as usize], 0);
    let handed = outcome.ring.iter().filter(|item| matches!(item, HandOff::Packet { .. })).count();
    assert_eq!(handed, 1, "the ACK goes to the host");
}
