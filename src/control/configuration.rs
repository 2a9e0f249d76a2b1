//! What control needs of the configuration, and nothing more: a narrow trait, so that the socket runs in tests
//! against a configuration of a few lines.
//!
//! A change goes prepare, then (workers agree) commit. Between the two the running configuration is the old one.

use std::path::PathBuf;
use std::sync::Arc;

use super::refusal::Refusal;
use super::view::Route;
use crate::service::snapshot::Snapshot;

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

    /// What was prepared last now runs.
    fn commit(&mut self);

    /// Writes the running configuration into the file it came from, whole or not at all.
    fn save(&mut self) -> Result<PathBuf, Refusal>;
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
