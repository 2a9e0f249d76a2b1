//! What the attached programs did, and for whom: read from what is pinned.

use std::fs;
use std::io::ErrorKind;

use aya::maps::{LpmTrie, Map, MapData, PerCpuArray};
use aya::programs::loaded_programs;
use serde::Serialize;

use super::object::{CONNECTIONS, COUNTERS, ESTABLISHED, HOOKS, TRUSTED};
use super::place::{self, Place};
use super::sys::Link;
use super::{Connection, Counts, ReceiverError, Trust};

/// The receiver as it stands.
#[derive(Debug, Serialize)]
pub struct Status {
    /// path of the cgroup whose sockets it serves
    pub cgroup: String,
    /// the programs that are attached
    pub programs: Vec<&'static str>,
    /// whose option is taken; empty: everybody's
    pub trusted: Vec<String>,
    /// what happened since it was attached
    pub counts: Counts,
    /// what the programs took of the processors while `kernel.bpf_stats_enabled` was 1; empty if it never was
    pub costs: Vec<Cost>,
}

/// What the kernel measured of a program since it was loaded.
#[derive(Debug, Serialize)]
pub struct Cost {
    /// its name
    pub program: &'static str,
    /// how often it ran
    pub runs: u64,
    /// for how long in all
    pub nanoseconds: u64,
}

/// Asks the programs.
pub fn status(place: &Place) -> Result<Status, ReceiverError> {
    let link = match Link::open(&place.pin(ESTABLISHED)) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(ReceiverError::NotAttached(place.directory().into()));
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            place::check_capabilities()?;
            return Err(ReceiverError::at("cannot open what is pinned")(error));
        }
        link => link.map_err(ReceiverError::at("cannot open what is pinned"))?,
    };
    let id = link.cgroup_id().map_err(ReceiverError::at("cannot ask for the link's cgroup"))?;
    let names = HOOKS.iter().map(|(name, _, _)| *name).chain([CONNECTIONS]);
    let trust = Trust::read(&trusted(place)?)?;
    Ok(Status {
        cgroup: place::cgroup_name(id),
        programs: names.filter(|name| place.pin(name).exists()).collect(),
        trusted: if trust.is_everybody() { Vec::new() } else { trust.names() },
        counts: counts(place)?,
        costs: costs(place),
    })
}

/// Only CAP_SYS_ADMIN is told; to others there is nothing to say.
fn costs(place: &Place) -> Vec<Cost> {
    let ids = HOOKS.iter().filter_map(|(name, ..)| {
        let link = Link::open(&place.pin(name)).ok()?;
        Some((*name, link.program_id().ok()?))
    });
    let loaded: Vec<_> = loaded_programs().filter_map(Result::ok).collect();
    ids.filter_map(|(program, id)| {
        let info = loaded.iter().find(|info| info.id() == id && info.run_count() > 0)?;
        Some(Cost { program, runs: info.run_count(), nanoseconds: info.run_time().as_nanos() as u64 })
    })
    .collect()
}

fn pinned(place: &Place, name: &str) -> Result<Map, ReceiverError> {
    let data = MapData::from_pin(place.pin(name));
    data.and_then(Map::from_map_data).map_err(ReceiverError::at(format!("cannot open the pinned map {name}")))
}

fn trusted(place: &Place) -> Result<LpmTrie<MapData, [u8; 16], u8>, ReceiverError> {
    LpmTrie::try_from(pinned(place, TRUSTED)?).map_err(ReceiverError::at("the pinned map of trusted senders"))
}

fn counts(place: &Place) -> Result<Counts, ReceiverError> {
    let failed = || ReceiverError::at("cannot read the counters");
    let map: PerCpuArray<MapData, u64> = pinned(place, COUNTERS)?.try_into().map_err(failed())?;
    let mut counters = [0; Counts::LEN as usize];
    for (index, counter) in (0..).zip(&mut counters) {
        *counter = map.get(&index, 0).map_err(failed())?.iter().sum();
    }
    Ok(Counts::from_array(counters))
}

/// Every live connection whose client is known, in order of the client.
pub fn connections(place: &Place) -> Result<Vec<Connection>, ReceiverError> {
    // Says first whether it is attached at all.
    status(place)?;
    let lines = match fs::read(place.pin(CONNECTIONS)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(ReceiverError::NoListing),
        lines => lines.map_err(ReceiverError::at("cannot list the connections"))?,
    };
    let (whole, _) = lines.as_chunks::<{ Connection::LEN }>();
    let mut found: Vec<Connection> = whole.iter().map(Connection::from_bytes).collect();
    found.sort_unstable();
    Ok(found)
}
