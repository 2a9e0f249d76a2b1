//! The running configuration of a gateway, joined from `config`: its checked form, the numbers its parts have, the file
//! it came from.
//!
//! Owned by the control plane's lock. A change is checked against what runs, numbered and built into a snapshot; only
//! when it is committed do the numbers count.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::configuration::{Configuration, Desired, InUse};
use super::refusal::Refusal;
use super::view::{Fault, Route};
use crate::config::{self, BuildError, Config, ConfigError, Mistake, PortFacts, Slots};
use crate::id::PortId;
use crate::service::snapshot::Snapshot;
use crate::steering::Steering;

/// See the module.
pub struct RunningConfiguration {
    file: PathBuf,
    config: Config,
    slots: Slots,
    prepared: Option<(Config, Slots)>,
    facts: Vec<PortFacts>,
    steering: Arc<Steering>,
}

impl RunningConfiguration {
    /// The configuration a gateway starts with, and its first snapshot. `facts` are those of the ports, in order;
    /// `file` is what reload reads and save writes.
    ///
    /// # Errors
    /// The snapshot cannot be built.
    pub fn new(
        file: PathBuf,
        config: Config,
        facts: Vec<PortFacts>,
        steering: Arc<Steering>,
    ) -> Result<(Self, Arc<Snapshot>), BuildError> {
        let (snapshot, slots) = Slots::new().apply(&config, &facts, steering.clone())?;
        let running = RunningConfiguration { file, config, slots, prepared: None, facts, steering };
        Ok((running, Arc::new(snapshot)))
    }

    fn port_name(&self, id: PortId) -> String {
        self.config.ports.get(id.index()).map_or_else(String::new, |port| port.name.clone())
    }
}

impl Configuration for RunningConfiguration {
    fn running(&self) -> serde_json::Value {
        // The document has no map with other keys than text: this cannot fail.
        serde_json::to_value(&self.config.document).unwrap_or_default()
    }

    fn running_toml(&self) -> Result<String, Refusal> {
        config::to_toml(&self.config.document).map_err(|error| {
            Refusal::File(format!("The running configuration cannot be written as TOML: {error}."))
        })
    }

    fn routes(&self) -> Vec<Route> {
        let connected = self.config.routes().count() - self.config.static_routes.len();
        let view = |(index, route): (usize, crate::service::route::Route)| Route {
            to: format!("{}/{}", route.prefix, route.prefix_len),
            via: route.next_hop.via.map(|via| via.to_string()),
            port: self.port_name(route.next_hop.port),
            connected: index < connected,
        };
        self.config.routes().enumerate().map(view).collect()
    }

    fn prepare(&mut self, desired: Desired) -> Result<Arc<Snapshot>, Refusal> {
        self.prepared = None;
        let config = match desired {
            Desired::Toml(text) => config::parse(&text),
            Desired::Json(value) => config::parse_value(value),
            Desired::File => config::load(&self.file),
        };
        let config = config.map_err(refusal)?;
        config::diff(&self.config, &config).map_err(|needed| {
            let advice = "it cannot change while the gateway runs: leave it as it is, or restart fullnatd";
            Refusal::NeedsRestart(needed.paths.into_iter().map(|path| Fault::new(path, advice)).collect())
        })?;
        let (snapshot, slots) = self
            .slots
            .apply(&config, &self.facts, self.steering.clone())
            .map_err(|error| Refusal::Conflict(format!("Nothing was changed: {error}.")))?;
        self.prepared = Some((config, slots));
        Ok(Arc::new(snapshot))
    }

    fn warnings(&self) -> Vec<Fault> {
        let config = self.prepared.as_ref().map_or(&self.config, |(config, _)| config);
        config.warnings.iter().map(fault).collect()
    }

    fn commit(&mut self) {
        if let Some((config, slots)) = self.prepared.take() {
            (self.config, self.slots) = (config, slots);
        }
    }

    fn has_removed(&self) -> bool {
        self.slots.has_removed()
    }

    fn retire(&mut self, in_use: &InUse) -> usize {
        self.slots.retire(
            |real_server| in_use.real_servers.contains(&real_server),
            |_, address| in_use.local_addresses.contains(address),
        )
    }

    fn again(&self) -> Result<Arc<Snapshot>, Refusal> {
        let snapshot = self.slots.again(&self.config, &self.facts, self.steering.clone());
        snapshot.map(Arc::new).map_err(|error| Refusal::Conflict(format!("Nothing was changed: {error}.")))
    }

    fn save(&mut self) -> Result<PathBuf, Refusal> {
        replace_file(&self.file, &self.running_toml()?).map_err(|error| {
            Refusal::File(format!("{} cannot be written: {error}. Nothing was changed.", self.file.display()))
        })?;
        Ok(self.file.clone())
    }
}

fn fault(mistake: &Mistake) -> Fault {
    Fault::new(&*mistake.path, format!("{}; {}", mistake.problem, mistake.hint))
}

fn refusal(error: ConfigError) -> Refusal {
    match error {
        ConfigError::Mistakes(mistakes) => Refusal::Invalid(mistakes.0.iter().map(fault).collect()),
        error @ ConfigError::Read { .. } => Refusal::File(format!("{error}.")),
    }
}

/// Writes a file whole or not at all, with the mode of the one it replaces. That one stays as `NAME.before`, since
/// its comments are not in the running configuration.
fn replace_file(path: &Path, text: &str) -> io::Result<()> {
    // A link stays a link: what it points to is replaced.
    let path = fs::canonicalize(path)?;
    let beside = |suffix: &str| {
        let mut name = path.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    };
    let (new, before) = (beside(".new"), beside(".before"));
    let write = || {
        let mut file = File::create(&new)?;
        file.set_permissions(fs::metadata(&path)?.permissions())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        match fs::remove_file(&before) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::hard_link(&path, &before)?,
        }
        fs::rename(&new, &path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&new)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Address;
    use serde_json::json;

    const TEXT: &str = r#"
# kept as gateway.toml.before
[[port]]
name = "wan"
device = "net_af_packet0,iface=gw-wan"
addresses = ["10.1.0.254/24"]

[[port]]
name = "lan"
device = "net_af_packet1,iface=gw-lan"
addresses = ["10.2.0.254/24"]

[[route]]
to = "0.0.0.0/0"
via = "10.1.0.1"

[[local_pool]]
name = "lan-pool"
port = "lan"
addresses = ["10.2.0.100-10.2.0.115"]

[[service]]
name = "web"
listen = "10.1.0.100:80"
protocol = "tcp"
local_pool = "lan-pool"

[[service.real_server]]
address = "10.2.0.11:8080"
weight = 100
"#;

    fn running() -> (tempfile::TempDir, RunningConfiguration) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("gateway.toml");
        fs::write(&file, TEXT).unwrap();
        let config = config::load(&file).unwrap();
        let facts = |n| PortFacts {
            mac: [2, 0, 0, 0, 0, n],
            mtu: 1500,
            checksum_offload: false,
            partial_checksums: false,
        };
        let steering = Arc::new(Steering::default());
        let (running, snapshot) =
            RunningConfiguration::new(file, config, vec![facts(1), facts(2)], steering).unwrap();
        assert_eq!(snapshot.generation, 1);
        (directory, running)
    }

    #[test]
    fn edits_of_the_document_become_snapshots() {
        let (_directory, mut running) = running();
        let mut document = running.running();
        assert_eq!(
            document["service"][0]["real_server"][0],
            json!({"address": "10.2.0.11:8080", "weight": 100})
        );
        document["service"][0]["real_server"][0]["weight"] = json!(0);
        let snapshot = running.prepare(Desired::Json(document.clone())).unwrap();
        assert_eq!((snapshot.generation, snapshot.real_servers[0].as_ref().unwrap().weight), (2, 0));
        assert_ne!(running.running(), document, "prepared, not committed");
        running.commit();
        assert_eq!(running.running(), document);
        assert_eq!(running.prepare(Desired::Toml(running.running_toml().unwrap())).unwrap().generation, 3);
    }

    #[test]
    fn refusals_are_of_their_kind() {
        let (_directory, mut running) = running();
        let invalid = running.prepare(Desired::Toml(TEXT.replace("10.2.0.11:8080", "nowhere")));
        let Err(Refusal::Invalid(faults)) = invalid else { panic!() };
        assert_eq!(faults[0].path, "service[0].real_server[0].address");
        let restart = running.prepare(Desired::Toml(TEXT.replace("10.1.0.254/24", "10.1.0.253/24")));
        assert!(matches!(restart, Err(Refusal::NeedsRestart(faults)) if !faults.is_empty()));
        fs::remove_file(&running.file).unwrap();
        assert!(matches!(running.prepare(Desired::File), Err(Refusal::File(_))));
    }

    #[test]
    fn removed_real_servers_keep_their_number_until_they_are_not_in_use() {
        let (_directory, mut running) = running();
        let text = TEXT.replace("10.2.0.11:8080", "10.2.0.12:8080");
        let snapshot = running.prepare(Desired::Toml(text.clone())).unwrap();
        running.commit();
        assert!(running.has_removed());
        let removed = snapshot.real_servers.iter().flatten().find(|server| server.removed).unwrap().id;
        running.retire(&InUse { real_servers: [removed].into(), ..InUse::default() });
        assert!(running.has_removed());
        running.retire(&InUse::default());
        assert!(!running.has_removed());
    }

    #[test]
    fn a_local_address_is_given_back_when_nothing_leaves_from_it_any_more() {
        let (_directory, mut running) = running();
        let snapshot = running.prepare(Desired::Toml(TEXT.replace("-10.2.0.115", "-10.2.0.114"))).unwrap();
        running.commit();
        let gone: Address = "10.2.0.115".parse::<std::net::IpAddr>().unwrap().into();
        assert!(snapshot.owned.contains_key(&gone));
        assert_eq!(running.retire(&InUse { local_addresses: [gone].into(), ..InUse::default() }), 0);
        assert_eq!(running.retire(&InUse::default()), 1);
        let again = running.again().unwrap();
        assert!(!again.owned.contains_key(&gone));
        assert_eq!(again.generation, snapshot.generation, "the configuration is the same");
    }

    #[test]
    fn warnings_are_those_of_what_was_prepared() {
        let (_directory, mut running) = running();
        assert_eq!(running.warnings(), []);
        running.prepare(Desired::Toml(TEXT.replace("weight = 100", "weight = 0"))).unwrap();
        assert_eq!(running.warnings()[0].path, "service[0].real_server");
        assert!(running.warnings()[0].message.contains("drained"), "{:?}", running.warnings());
    }

    #[test]
    fn routes_are_told_by_port_and_kind() {
        let (_directory, running) = running();
        let routes: Vec<_> =
            running.routes().into_iter().map(|route| (route.to, route.port, route.connected)).collect();
        assert!(routes.contains(&("0.0.0.0/0".to_owned(), "wan".to_owned(), false)));
        assert!(routes.iter().filter(|(.., connected)| *connected).count() == 2);
    }

    #[test]
    fn saving_replaces_the_file_and_keeps_the_one_before() {
        let (directory, mut running) = running();
        let file = running.save().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), running.running_toml().unwrap());
        assert_eq!(fs::read_to_string(directory.path().join("gateway.toml.before")).unwrap(), TEXT);
        running.save().unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        assert_eq!(running.prepare(Desired::File).unwrap().generation, 2);
    }
}
