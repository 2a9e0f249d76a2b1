//! The tables about the machine: `[dataplane]`, `[control]`, `[refusal]`, `[neighbours]`, `[[port]]`, `[[route]]`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::yes;

/// `[dataplane]`: cores, memory and DPDK. Nothing of it can change while the gateway runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = config::Dataplane)]
pub struct Dataplane {
    /// Lcores that forward, 1 to 512; control keeps its own.
    #[serde(default = "Dataplane::default_workers")]
    pub workers: i64,
    /// The cores of the workers, one each. Left out: chosen from those the process may run on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub worker_cores: Vec<i64>,
    /// The core of control, metrics and everything else that is not a worker. Left out: one that no worker has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_core: Option<i64>,
    /// Arguments passed to DPDK's EAL as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub eal: Vec<String>,
    /// What a worker does when no packets come. Left out: `poll` if all ports are PCI devices, else `adaptive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
    /// Sessions of all workers together; a machine without memory for them is told so at start.
    #[serde(default = "Dataplane::default_sessions_max")]
    pub sessions_max: i64,
    /// Whether memory comes from huge pages.
    #[serde(default)]
    pub huge_pages: HugePages,
    /// Packet buffers of all ports together. Left out: derived from queues, rings and workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mbufs: Option<i64>,
    /// Descriptors of each receive queue, a power of two.
    #[serde(default = "Dataplane::default_ring")]
    pub rx_ring: i64,
    /// Descriptors of each transmit queue, a power of two.
    #[serde(default = "Dataplane::default_ring")]
    pub tx_ring: i64,
    /// Packets that may wait in each ring between two workers, a power of two.
    #[serde(default = "Dataplane::default_hand_off_ring")]
    pub hand_off_ring: i64,
    /// Who spreads packets over the workers.
    #[serde(default)]
    pub steering: Steering,
    /// Toeplitz key in hexadecimal, 40 or 52 bytes. Left out: random at every start, which is safer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss_key: Option<String>,
}

impl Dataplane {
    fn default_workers() -> i64 {
        1
    }

    fn default_sessions_max() -> i64 {
        1_000_000
    }

    fn default_ring() -> i64 {
        1024
    }

    fn default_hand_off_ring() -> i64 {
        2048
    }
}

impl Default for Dataplane {
    fn default() -> Self {
        Dataplane {
            workers: Self::default_workers(),
            worker_cores: Vec::new(),
            control_core: None,
            eal: Vec::new(),
            idle: None,
            sessions_max: Self::default_sessions_max(),
            huge_pages: HugePages::Auto,
            mbufs: None,
            rx_ring: Self::default_ring(),
            tx_ring: Self::default_ring(),
            hand_off_ring: Self::default_hand_off_ring(),
            steering: Steering::Auto,
            rss_key: None,
        }
    }
}

/// What a worker does when no packets come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = config::Idle)]
pub enum Idle {
    /// It keeps asking: least latency, a whole core.
    Poll,
    /// It sleeps when idle, so that a laptop stays usable.
    Adaptive,
}

/// Whether memory comes from huge pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = config::HugePages)]
pub enum HugePages {
    /// From huge pages if enough are free, else from ordinary ones.
    #[default]
    Auto,
    /// From huge pages, or the gateway does not start.
    On,
    /// From ordinary pages.
    Off,
}

/// Who spreads packets over the workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = config::Steering)]
pub enum Steering {
    /// The NIC where it can hash as the gateway does, the software hand-off where not.
    #[default]
    Auto,
    /// Always the software hand-off; RSS of the NIC is left as it is.
    Software,
}

/// `[control]`: the control socket and the metrics.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = config::Control)]
pub struct Control {
    /// Path of the UNIX socket, mode 0660.
    #[serde(default = "Control::default_socket")]
    pub socket: String,
    /// Group that may use the socket. Left out: the group the gateway runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Address and port where Prometheus finds `/metrics`, such as `127.0.0.1:9105`. Left out: on the socket only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_listen: Option<String>,
}

impl Control {
    fn default_socket() -> String {
        "/run/fullnat/control.sock".to_owned()
    }
}

impl Default for Control {
    fn default() -> Self {
        Control { socket: Self::default_socket(), group: None, metrics_listen: None }
    }
}

/// `[refusal]`: what clients are told whom the gateway does not serve.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = config::Refusal)]
pub struct Refusal {
    /// Whether they get a RST or an ICMP error; `false`: silence.
    #[serde(default = "yes")]
    pub answer: bool,
    /// Own RSTs and ICMP errors per second and worker, 1 to 1000000.
    #[serde(default = "Refusal::default_per_second")]
    pub per_second: i64,
}

impl Refusal {
    fn default_per_second() -> i64 {
        1000
    }
}

impl Default for Refusal {
    fn default() -> Self {
        Refusal { answer: true, per_second: Self::default_per_second() }
    }
}

/// `[neighbours]`: ARP and neighbour discovery, per worker (RFC 4861 §10 names the constants).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = config::Neighbours)]
pub struct Neighbours {
    /// Neighbours a worker knows at most.
    #[serde(default = "Neighbours::default_entries_max")]
    pub entries_max: i64,
    /// Packets that wait for one unresolved neighbour at most.
    #[serde(default = "Neighbours::default_queue_len")]
    pub queue_len: i64,
    /// Seconds for which a confirmed neighbour is not asked again.
    #[serde(default = "Neighbours::default_reachable_secs")]
    pub reachable_secs: i64,
    /// Milliseconds between two questions.
    #[serde(default = "Neighbours::default_retransmit_millis")]
    pub retransmit_millis: i64,
    /// Questions without an answer after which a neighbour is unreachable.
    #[serde(default = "Neighbours::default_probes")]
    pub probes: i64,
}

impl Neighbours {
    fn default_entries_max() -> i64 {
        4096
    }

    fn default_queue_len() -> i64 {
        32
    }

    fn default_reachable_secs() -> i64 {
        30
    }

    fn default_retransmit_millis() -> i64 {
        1000
    }

    fn default_probes() -> i64 {
        3
    }
}

impl Default for Neighbours {
    fn default() -> Self {
        Neighbours {
            entries_max: Self::default_entries_max(),
            queue_len: Self::default_queue_len(),
            reachable_secs: Self::default_reachable_secs(),
            retransmit_millis: Self::default_retransmit_millis(),
            probes: Self::default_probes(),
        }
    }
}

/// `[[port]]`: a NIC port. Nothing of it can change while the gateway runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = config::Port)]
pub struct Port {
    /// What pools and routes call it.
    pub name: String,
    /// A PCI address (`0000:3b:00.0`), or a DPDK vdev with its arguments (`net_af_packet0,iface=gw-wan`).
    pub device: String,
    /// The gateway's addresses on it, with prefix lengths; each makes its subnet reachable through the port.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Bytes an IP packet on it may have.
    #[serde(default = "Port::default_mtu")]
    pub mtu: i64,
    /// Receive and transmit queues. Left out: one per worker, as far as the device has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<i64>,
    /// Whether the device computes layer-4 checksums.
    #[serde(default)]
    pub checksum_offload: ChecksumOffload,
    /// Whether packets are refused whose source is not reached through this port (RFC 3704 strict).
    #[serde(default = "yes")]
    pub reverse_path_filter: bool,
    /// Whether ARP and ND for addresses that lie behind other ports are answered here too.
    #[serde(default)]
    pub answer_for_other_ports: bool,
    /// Whether the device receives frames to other MAC addresses too (they are dropped and counted).
    #[serde(default)]
    pub promiscuous: bool,
    /// Whether `net_af_packet` keeps the kernel behind a veth pair from sending frames larger than the MTU, as it does
    /// for segmentation offload. Without effect on other devices.
    #[serde(default = "yes")]
    pub wire_frames: bool,
    /// Whether `net_af_packet` keeps from the kernel what arrives at its interface. Else the kernel routes every frame a
    /// second time, only to drop it: between veth pairs that costs a tenth of the rate. Not for an interface that the
    /// kernel uses too, for addresses, VLANs or a bridge. Linux 6.6 or newer; without effect on other devices.
    #[serde(default)]
    pub exclusive: bool,
}

impl Port {
    fn default_mtu() -> i64 {
        1500
    }
}

/// Whether a device computes layer-4 checksums.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = config::ChecksumOffload)]
pub enum ChecksumOffload {
    /// Where it can.
    #[default]
    Auto,
    /// Never: the gateway computes them.
    Off,
}

/// `[[route]]`: a static route.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = config::Route)]
pub struct Route {
    /// The prefix, `0.0.0.0/0` or `::/0` for the default route.
    pub to: String,
    /// The router's address. Left out: every address of the prefix is on the link of `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// The port. Needed without `via` and where `via` is link-local; else found by the router's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}
