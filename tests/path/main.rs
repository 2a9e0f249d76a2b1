//! The packet path without DPDK: gateways made from configuration text, frames in, frames out, every counter.
//!
//! Only the public API is used. [`rig`] holds a gateway of any number of workers, answers its ARP and ND questions, moves
//! hand-offs between the workers and holds every frame that leaves against the invariants: checksums right by a parser
//! that is not ours, no inner address outside and no client's inside, books that balance, buffers that return. The
//! modules are named after the groups of `tests/conformance.tsv`.

mod accounting;
mod believed;
mod checksums;
mod configuration;
mod damage;
mod ethernet;
mod expiry;
mod fragments;
mod front;
mod front_datagram;
mod guests;
mod icmp;
mod ip;
mod lanes;
mod mtu;
mod pools;
mod proxy;
mod proxy_datagram;
mod proxy_loss;
mod random_walk;
mod reasons;
mod refused;
mod rig;
mod segments;
mod steering;
mod tcp;
mod tcp_end;
mod toa;
mod udp;
mod uoa;
