//! The tables about traffic: `[[service]]` and what hangs below it, `[[local_pool]]`, `[timeouts]`.

use std::fmt;

use serde::de::{SeqAccess, Visitor, value::SeqAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use super::is_default;

/// `[[local_pool]]`: addresses and ports from which sessions toward real servers leave.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = config::LocalPool)]
pub struct LocalPool {
    /// What services call it.
    pub name: String,
    /// The port behind which the addresses lie.
    pub port: String,
    /// The local addresses: single ones, ranges (`10.2.0.100-10.2.0.115`), prefixes (`10.2.0.96/28`, all of it).
    pub addresses: Vec<String>,
    /// The L4 ports of each address.
    #[serde(default = "LocalPool::default_l4_ports")]
    pub l4_ports: String,
}

impl LocalPool {
    fn default_l4_ports() -> String {
        "1024-65535".to_owned()
    }
}

/// `[[service]]`: a virtual service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = config::Service)]
pub struct Service {
    /// What the control socket, the counters and the logs call it.
    pub name: String,
    /// Where clients connect to: `10.1.0.100:80`, `10.1.0.100:1000-1010`, `[2001:db8::100]:80`; one or a list.
    #[schema(value_type = OneOrMany)]
    pub listen: Listen,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Which real server takes a new session.
    #[serde(default)]
    pub scheduler: Scheduler,
    /// How `sh` and `mh` hash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scheduler_flags: Vec<SchedulerFlag>,
    /// The pool that local addresses and ports come from.
    pub local_pool: String,
    /// How the real servers learn the client's address.
    #[serde(default)]
    pub client_address: ClientAddress,
    /// The fronts (another gateway, HAProxy, nginx) that say by PROXY protocol whose connection it is: addresses and
    /// prefixes. What comes from there without a header is refused; a header from anywhere else is the client's data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxy_protocol_from: Vec<String>,
    /// What becomes of the sessions of a real server that is removed.
    #[serde(default)]
    pub on_remove: OnRemove,
    /// Details of `client_address = "toa"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toa: Option<Toa>,
    /// Details of `client_address = "uoa"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uoa: Option<Uoa>,
    /// Details of `client_address = "proxy-v2"` where `protocol = "udp"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// Time-outs that differ from the global `[timeouts]`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeouts: Timeouts,
    /// The real servers.
    #[serde(default, rename = "real_server")]
    pub real_servers: Vec<RealServer>,
}

/// `[[service.real_server]]`: a real server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = config::RealServer)]
pub struct RealServer {
    /// Its address and port (`10.2.0.11:8080`, `[2001:db8::11]:8080`); without a port, the one the client dialled.
    pub address: String,
    /// Its share of new sessions, 0 to 65535; 0: drained, it keeps its sessions and gets no new ones.
    #[serde(default = "RealServer::default_weight")]
    pub weight: i64,
}

impl RealServer {
    fn default_weight() -> i64 {
        1
    }
}

/// The layer-4 protocol of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = config::Protocol)]
pub enum Protocol {
    /// RFC 9293
    Tcp,
    /// RFC 768
    Udp,
}

/// Which real server takes a new session; the names of `ipvsadm`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = config::Scheduler)]
pub enum Scheduler {
    /// One after the other.
    Rr,
    /// In proportion to the weights.
    Wrr,
    /// The one with the fewest sessions; each worker compares those it has itself.
    Lc,
    /// The one with the fewest sessions per weight, as each worker has them; `ipvsadm`'s default, and ours.
    #[default]
    Wlc,
    /// By the client's address.
    Sh,
    /// By the client's address, Maglev: few clients move when real servers come or go.
    Mh,
}

/// How `sh` and `mh` hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = config::SchedulerFlag)]
pub enum SchedulerFlag {
    /// `sh`: a drained real server keeps its place, only its clients go elsewhere.
    ShFallback,
    /// `sh`: the client's port counts too.
    ShPort,
    /// `mh`: a drained real server keeps its place, only its clients go elsewhere.
    MhFallback,
    /// `mh`: the client's port counts too.
    MhPort,
}

/// How real servers learn the client's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = config::ClientAddress)]
pub enum ClientAddress {
    /// Not at all.
    #[default]
    None,
    /// By a TCP option; TCP only.
    Toa,
    /// By an IPv4 option on the first datagrams of a session; UDP only, and IPv4 real servers only.
    Uoa,
    /// By the text form of the PROXY protocol, ahead of a TCP connection's first byte.
    ProxyV1,
    /// By the binary form of the PROXY protocol, which UDP has, too.
    ProxyV2,
}

/// What becomes of the sessions of a real server that is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = config::OnRemove)]
pub enum OnRemove {
    /// They live on until they end.
    #[default]
    Drain,
    /// Their next packet is answered by RST and they end.
    Reset,
}

/// `[service.toa]`: the TCP option that names the client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = config::Toa)]
pub struct Toa {
    /// Option kind for IPv4 clients: 254, or 200, 253, 28 for receivers that want those.
    #[serde(default = "Toa::default_kind")]
    pub kind: i64,
    /// Option kind for IPv6 clients: 254, or 253.
    #[serde(default = "Toa::default_kind")]
    pub kind_v6: i64,
    /// Whether the SYN carries it too.
    #[serde(default = "super::yes")]
    pub on_syn: bool,
    /// What becomes of a segment that has no room for it.
    #[serde(default)]
    pub no_room: NoRoom,
}

impl Toa {
    fn default_kind() -> i64 {
        254
    }
}

impl Default for Toa {
    fn default() -> Self {
        Toa {
            kind: Self::default_kind(),
            kind_v6: Self::default_kind(),
            on_syn: true,
            no_room: NoRoom::Forward,
        }
    }
}

/// `[service.proxy]`: the PROXY protocol header of UDP sessions.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = config::Proxy)]
pub struct Proxy {
    /// Whether each datagram carries the header, as dnsdist and PowerDNS want it; else the first of a session alone.
    pub each_datagram: bool,
}

/// What becomes of a segment that has no room for TOA.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = config::NoRoom)]
pub enum NoRoom {
    /// It goes without.
    #[default]
    Forward,
    /// A bare ACK with TOA goes ahead of it.
    BareAck,
    /// The session is reset.
    Reset,
}

/// `[service.uoa]`: the IPv4 option that names the client of a UDP session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = config::Uoa)]
pub struct Uoa {
    /// How many datagrams of a session carry it at most, 1 to 255; once the real server has answered, none does.
    #[serde(default = "Uoa::default_datagrams_max")]
    pub datagrams_max: i64,
}

impl Uoa {
    fn default_datagrams_max() -> i64 {
        3
    }
}

impl Default for Uoa {
    fn default() -> Self {
        Uoa { datagrams_max: Self::default_datagrams_max() }
    }
}

/// `[timeouts]` and `[service.timeouts]`: seconds without a packet after which a session ends, by its state. Left out:
/// in a service, the global value; there, the one of IPVS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = config::Timeouts)]
pub struct Timeouts {
    /// no packet yet; 2
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_none_secs: Option<i64>,
    /// both sides agreed; 900
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_established_secs: Option<i64>,
    /// a SYN came from the real server; 120
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_syn_sent_secs: Option<i64>,
    /// a SYN came from the client; 60
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_syn_recv_secs: Option<i64>,
    /// a FIN came from the real server first; 120
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_fin_wait_secs: Option<i64>,
    /// both FINs came; 120
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_time_wait_secs: Option<i64>,
    /// ended by RST; 10
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_close_secs: Option<i64>,
    /// a FIN came from the client first; 60
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_close_wait_secs: Option<i64>,
    /// the real server answered the client's FIN with its own; 30
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_last_ack_secs: Option<i64>,
    /// as in IPVS's table; 120
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_listen_secs: Option<i64>,
    /// half open under attack; 120
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_synack_secs: Option<i64>,
    /// UDP; 300
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_secs: Option<i64>,
}

/// One listener or a list of them; written as it is shortest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listen(pub Vec<String>);

/// How [`Listen`] looks in a document, for its description.
#[derive(ToSchema)]
#[schema(as = config::OneOrMany)]
#[expect(dead_code, reason = "describes a form, is never made")]
enum OneOrMany {
    #[schema(title = "one")]
    One(String),
    #[schema(title = "many")]
    Many(Vec<String>),
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = Listen;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address with a port such as \"10.1.0.100:80\", or a list of them")
            }

            fn visit_str<E>(self, one: &str) -> Result<Listen, E> {
                Ok(Listen(vec![one.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, many: A) -> Result<Listen, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(many)).map(Listen)
            }
        }

        deserializer.deserialize_any(Form)
    }
}
