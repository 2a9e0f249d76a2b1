//! `GET /v1/sessions`: a walk over the workers' tables, page by page, that never makes a worker scan more than a
//! bounded part of its table at a time.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;

use super::plane::ControlPlane;
use super::post::PAGE_RECORDS;
use super::query::{endpoint, protocol, seconds};
use super::refusal::Refusal;
use super::view::{Fault, Session, SessionPage};
use crate::service::snapshot::Snapshot;
use crate::session::State;
use crate::wire::{Address, Protocol};
use crate::worker::mailbox::Page;
use crate::worker::records::{SessionFilter, SessionRecord};

/// Sessions in one answer unless the request says otherwise.
const LIMIT_DEFAULT: usize = 100;
/// Sessions in one answer at most.
const LIMIT_MAX: usize = 1000;
/// How long one request may search before it answers with what it has and a cursor.
const SEARCH_TIME: Duration = Duration::from_millis(500);

/// The query of `GET /v1/sessions`.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SessionQuery {
    /// only sessions of this client: `address` or `address:port`
    pub client: Option<String>,
    /// only sessions to this virtual address: `address` or `address:port`
    pub vip: Option<String>,
    /// only sessions at this real server: `address` or `address:port`
    pub rip: Option<String>,
    /// only `tcp` or `udp`
    pub protocol: Option<String>,
    /// only sessions in this state, by its IPVS name
    pub state: Option<String>,
    /// up to 1000 sessions, 100 by default
    pub limit: Option<usize>,
    /// where a page before said to go on
    pub cursor: Option<String>,
}

/// Names of the states, as the kernel's `ip_vs_proto_tcp.c` has them.
const STATES: [(State, &str); 11] = [
    (State::None, "NONE"),
    (State::Established, "ESTABLISHED"),
    (State::SynSent, "SYN_SENT"),
    (State::SynRecv, "SYN_RECV"),
    (State::FinWait, "FIN_WAIT"),
    (State::TimeWait, "TIME_WAIT"),
    (State::Close, "CLOSE"),
    (State::CloseWait, "CLOSE_WAIT"),
    (State::LastAck, "LAST_ACK"),
    (State::Listen, "LISTEN"),
    (State::SynAck, "SYNACK"),
];

fn state_name(state: State) -> &'static str {
    STATES.iter().find(|(known, _)| *known == state).map_or("?", |(_, name)| name)
}

/// Answers the query.
pub async fn sessions(plane: &ControlPlane, query: &SessionQuery) -> Result<SessionPage, Refusal> {
    let filter = filter(query)?;
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(wrong("limit", format!("write a number from 1 to {LIMIT_MAX}")));
    }
    let (mut worker, mut position) = cursor(query.cursor.as_deref())?;
    let snapshot = plane.running().snapshot;
    let until = Instant::now() + SEARCH_TIME;
    let mut sessions = Vec::with_capacity(limit);
    while let Some(post) = plane.post(worker) {
        let room = (limit - sessions.len()).min(PAGE_RECORDS);
        if room == 0 || (Instant::now() >= until && !sessions.is_empty()) {
            break;
        }
        let page = post.sessions(filter, Page::new(position, room)).await?;
        let next = page.next();
        sessions.extend(page.records().iter().map(|record| view(post.worker.0, record, &snapshot)));
        (worker, position) = match next {
            Some(next) => (worker, next),
            None => (worker + 1, 0),
        };
        if Instant::now() >= until {
            break;
        }
    }
    let next = (worker < plane.posts().len()).then(|| format!("{worker}.{position}"));
    Ok(SessionPage { sessions, next })
}

fn view(worker: u16, record: &SessionRecord, snapshot: &Snapshot) -> Session {
    let service = snapshot.services.get(record.service.index()).and_then(Option::as_ref);
    Session {
        worker,
        protocol: protocol(record.protocol).to_owned(),
        client: endpoint(record.cip, record.cport),
        named_client: record.named.map(|(address, port)| endpoint(address, port)),
        virtual_address: endpoint(record.vip, record.vport),
        local: endpoint(record.lip, record.lport),
        real_server: endpoint(record.rip, record.rport),
        service: service.map(|service| service.name.clone()),
        state: state_name(record.state).to_owned(),
        packets: record.packets,
        age_secs: seconds(record.age),
        idle_secs: seconds(record.idle),
    }
}

fn wrong(parameter: &str, advice: impl Into<String>) -> Refusal {
    Refusal::BadRequest {
        detail: format!("The query parameter {parameter} cannot be read."),
        errors: vec![Fault::new(parameter, advice)],
    }
}

fn filter(query: &SessionQuery) -> Result<SessionFilter, Refusal> {
    let (client, client_port) = address("client", query.client.as_deref())?;
    let (vip, vport) = address("vip", query.vip.as_deref())?;
    let (rip, rport) = address("rip", query.rip.as_deref())?;
    let protocol = match query.protocol.as_deref() {
        None => None,
        Some("tcp") => Some(Protocol::Tcp),
        Some("udp") => Some(Protocol::Udp),
        Some(_) => return Err(wrong("protocol", "write tcp or udp")),
    };
    let state = match query.state.as_deref() {
        None => None,
        Some(text) => match STATES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text)) {
            Some((state, _)) => Some(*state),
            None => {
                return Err(wrong(
                    "state",
                    format!("write one of {}", STATES.map(|(_, name)| name).join(", ")),
                ));
            }
        },
    };
    Ok(SessionFilter { client, client_port, vip, vport, rip, rport, protocol, state })
}

type AddressAndPort = (Option<Address>, Option<u16>);

fn address(parameter: &str, text: Option<&str>) -> Result<AddressAndPort, Refusal> {
    let Some(text) = text else { return Ok((None, None)) };
    if let Ok(both) = text.parse::<SocketAddr>() {
        return Ok((Some(both.ip().into()), Some(both.port())));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(address) => Ok((Some(address.into()), None)),
        Err(_) => {
            Err(wrong(parameter, "write an address with or without a port: 10.1.0.7, [2001:db8::7]:40000"))
        }
    }
}

fn cursor(text: Option<&str>) -> Result<(usize, u32), Refusal> {
    let Some(text) = text else { return Ok((0, 0)) };
    let read = || {
        let (worker, position) = text.split_once('.')?;
        Some((worker.parse().ok()?, position.parse().ok()?))
    };
    read().ok_or_else(|| wrong("cursor", "give back the `next` of the page before, unchanged"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_name_at_its_place() {
        for (index, (state, _)) in STATES.iter().enumerate() {
            assert_eq!(*state as usize, index);
        }
    }

    #[test]
    fn a_filter_reads_what_people_write() {
        let query = SessionQuery {
            client: Some("[2001:db8::7]:40000".to_owned()),
            vip: Some("10.1.0.100".to_owned()),
            state: Some("syn_recv".to_owned()),
            ..SessionQuery::default()
        };
        let filter = filter(&query).unwrap();
        assert_eq!(
            (filter.client_port, filter.vport, filter.state),
            (Some(40000), None, Some(State::SynRecv))
        );
        assert!(
            super::filter(&SessionQuery { rip: Some("ten".to_owned()), ..SessionQuery::default() }).is_err()
        );
        assert!(
            super::filter(&SessionQuery { state: Some("OPEN".to_owned()), ..SessionQuery::default() })
                .is_err()
        );
    }

    #[test]
    fn a_cursor_is_read_or_refused() {
        assert_eq!(cursor(Some("3.4096")).unwrap(), (3, 4096));
        for wrong in ["", "3", "3.", ".1", "-1.0", "1.2.3", "1.99999999999"] {
            assert!(cursor(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
