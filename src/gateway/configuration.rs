//! The running configuration, as control changes it: the file it came from, who has which slot, what comes next.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{self, BuildError, Config, ConfigError, Mistake, PortFacts, Slots};
use crate::control::view::{Fault, Route};
use crate::control::{Configuration, Desired, Refusal};
use crate::service::snapshot::Snapshot;
use crate::steering::Steering;

/// What runs, and what was prepared to run next.
pub(super) struct Running {
    path: PathBuf,
    facts: Vec<PortFacts>,
    steering: Arc<Steering>,
    now: State,
    next: Option<State>,
}

struct State {
    config: Config,
    slots: Slots,
}

impl Running {
    /// The first snapshot of a configuration whose ports are open.
    pub fn start(
        path: &Path,
        config: Config,
        facts: Vec<PortFacts>,
        steering: Arc<Steering>,
    ) -> Result<(Running, Arc<Snapshot>), BuildError> {
        let (snapshot, slots) = Slots::new().apply(&config, &facts, steering.clone())?;
        let now = State { config, slots };
        Ok((Running { path: path.to_owned(), facts, steering, now, next: None }, Arc::new(snapshot)))
    }
}

impl Configuration for Running {
    fn running(&self) -> serde_json::Value {
        serde_json::to_value(&self.now.config.document).unwrap_or_default()
    }

    fn running_toml(&self) -> Result<String, Refusal> {
        config::to_toml(&self.now.config.document).map_err(|error| Refusal::File(error.to_string()))
    }

    fn routes(&self) -> Vec<Route> {
        let config = &self.now.config;
        let connected = config.routes().count() - config.static_routes.len();
        let view = |(at, route): (usize, crate::service::route::Route)| Route {
            to: format!("{}/{}", route.prefix, route.prefix_len),
            via: route.next_hop.via.map(|via| via.to_string()),
            port: config.ports[route.next_hop.port.index()].name.clone(),
            connected: at < connected,
        };
        config.routes().enumerate().map(view).collect()
    }

    fn prepare(&mut self, desired: Desired) -> Result<Arc<Snapshot>, Refusal> {
        self.next = None;
        let parsed = match desired {
            Desired::Toml(text) => config::parse(&text),
            Desired::Json(value) => config::parse_value(value),
            Desired::File => config::load(&self.path),
        };
        let config = parsed.map_err(refusal)?;
        config::diff(&self.now.config, &config).map_err(|needed| {
            let fault = |path: &String| Fault { path: path.clone(), message: needed.to_string() };
            Refusal::NeedsRestart(needed.paths.iter().map(fault).collect())
        })?;
        let built = self.now.slots.apply(&config, &self.facts, self.steering.clone());
        let (snapshot, slots) = built.map_err(|error| Refusal::Conflict(error.to_string()))?;
        self.next = Some(State { config, slots });
        Ok(Arc::new(snapshot))
    }

    fn commit(&mut self) {
        if let Some(next) = self.next.take() {
            self.now = next;
        }
    }

    fn save(&mut self) -> Result<PathBuf, Refusal> {
        let text = self.running_toml()?;
        let failed = |error: std::io::Error| {
            Refusal::File(format!("{} cannot be written: {error}; the file is as it was", self.path.display()))
        };
        let aside = self.path.with_extension("toml.new");
        std::fs::write(&aside, text).map_err(failed)?;
        std::fs::rename(&aside, &self.path).map_err(failed)?;
        Ok(self.path.clone())
    }
}

fn refusal(error: ConfigError) -> Refusal {
    match error {
        ConfigError::Read { .. } => Refusal::File(error.to_string()),
        ConfigError::Mistakes(mistakes) => Refusal::Invalid(mistakes.0.iter().map(fault).collect()),
    }
}

fn fault(mistake: &Mistake) -> Fault {
    Fault { path: mistake.path.clone(), message: format!("{}; {}", mistake.problem, mistake.hint) }
}
