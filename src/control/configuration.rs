//! What control needs of the configuration, and nothing more: a narrow trait, so that the socket runs in tests
//! against a configuration of a few lines.
//!
//! A change goes retire (if anything was removed), prepare, then (workers agree) commit. Until then the running
//! configuration is the old one.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::refusal::Refusal;
use super::view::{Fault, Route};
use crate::id::RealServerId;
use crate::service::snapshot::Snapshot;
use crate::wire::Address;

/// The running configuration and the way to the next one. One task at a time holds it.
pub trait Configuration: Send {
    /// The running configuration with the key names of the file.
    fn running(&self) -> serde_json::Value;

    /// The running configuration as the text of a file.
    fn running_toml(&self) -> Result<String, Refusal>;

    /// The routes that follow from the running configuration, connected ones included.
    fn routes(&self) -> Vec<Route>;

    /// Checks a configuration, compares it with the running one and builds its snapshot, which has a generation
    /// greater than the running one's. May take long. Nothing is changed yet; a preparation before is forgotten.
    fn prepare(&mut self, desired: Desired) -> Result<Arc<Snapshot>, Refusal>;

    /// What is probably not meant in what was prepared last; in the running configuration if nothing is prepared.
    fn warnings(&self) -> Vec<Fault>;

    /// What was prepared last now runs.
    fn commit(&mut self);

    /// Whether something was removed whose number is kept for the sessions that still use it.
    fn has_removed(&self) -> bool;

    /// Gives numbers and addresses free whose owners are removed and not in use; how many. The next snapshot is without
    /// them. Called only while every worker runs the snapshot committed last.
    fn retire(&mut self, in_use: &InUse) -> usize;

    /// The snapshot of the running configuration once more, without what was retired. The generation stays.
    fn again(&self) -> Result<Arc<Snapshot>, Refusal>;

    /// Writes the running configuration into the file it came from, whole or not at all.
    fn save(&mut self) -> Result<PathBuf, Refusal>;
}

/// What the workers' sessions and leases refer to.
#[derive(Clone, Debug, Default)]
pub struct InUse {
    /// real servers with sessions
    pub real_servers: HashSet<RealServerId>,
    /// local addresses with leases
    pub local_addresses: HashSet<Address>,
}

/// A configuration asked for.
#[derive(Clone, Debug)]
pub enum Desired {
    /// the text of a file
    Toml(String),
    /// the same as JSON
    Json(serde_json::Value),
    /// what the file says now
    File,
}
