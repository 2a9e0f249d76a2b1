//! Edits of single real servers, made on the running configuration's document (key names as in the file) and checked
//! afterwards like any other configuration.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::refusal::Refusal;
use super::view::Fault;

/// An edit of one service's real servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// the service's name
    pub service: String,
    /// the real server's address, with or without a port
    pub address: String,
    /// what becomes of it
    pub action: Action,
}

/// What becomes of a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// it is new; weight by the configuration's default if `None`
    Add(Option<u16>),
    /// it goes
    Remove,
    /// it gets a weight
    Weight(u16),
    /// weight 0, the present one is remembered
    Drain,
    /// the given weight, or the one remembered
    Undrain(Option<u16>),
}

type Key = (String, String);

/// Makes edits and remembers the weights of drained real servers while the program runs.
#[derive(Default)]
pub(super) struct Edits {
    remembered: HashMap<Key, u64>,
    prepared: Option<(Key, Option<u64>)>,
}

impl Edits {
    /// The document after the change.
    pub(super) fn make(&mut self, mut document: Value, change: Change) -> Result<Value, Refusal> {
        let Change { service, address, action } = change;
        let address = normal_address(&address)?;
        let real_servers = real_servers_of(&mut document, &service)?;
        let position = real_servers.iter().position(|entry| {
            let there = entry.get("address").and_then(Value::as_str).unwrap_or_default();
            normal_address(there).is_ok_and(|there| there == address)
        });
        let key = (service.clone(), address.clone());
        if let Action::Add(weight) = action {
            if position.is_some() {
                return Err(Refusal::Conflict(format!(
                    "Service {service:?} has a real server {address} already; set its weight instead."
                )));
            }
            real_servers.push(match weight {
                Some(weight) => json!({"address": address, "weight": weight}),
                None => json!({"address": address}),
            });
            self.prepared = Some((key, None));
            return Ok(document);
        }
        let Some(position) = position else {
            return Err(Refusal::NotFound(format!(
                "Service {service:?} has no real server {address}; GET /v1/services/{{name}} lists those it has."
            )));
        };
        let present = real_servers[position].get("weight").and_then(Value::as_u64);
        let mut remember = None;
        let weight = match action {
            Action::Remove => {
                real_servers.remove(position);
                self.prepared = Some((key, None));
                return Ok(document);
            }
            Action::Weight(weight) => u64::from(weight),
            Action::Drain => {
                remember = match present {
                    Some(0) => self.remembered.get(&key).copied(),
                    present => present,
                };
                0
            }
            Action::Undrain(Some(weight)) => u64::from(weight),
            Action::Undrain(None) if present != Some(0) => return Ok(document),
            Action::Undrain(None) => *self.remembered.get(&key).ok_or_else(|| {
                Refusal::Conflict(format!(
                    "The weight that {address} of service {service:?} had before it was drained is not known: say \
                     which it shall have."
                ))
            })?,
            Action::Add(_) => unreachable!("handled above"),
        };
        real_servers[position]["weight"] = json!(weight);
        self.prepared = Some((key, remember));
        Ok(document)
    }

    /// The change prepared last now runs.
    pub(super) fn commit(&mut self) {
        match self.prepared.take() {
            Some((key, Some(weight))) => drop(self.remembered.insert(key, weight)),
            Some((key, None)) => drop(self.remembered.remove(&key)),
            None => {}
        }
    }

    /// The change prepared last does not come.
    pub(super) fn forget(&mut self) {
        self.prepared = None;
    }
}

fn real_servers_of<'a>(document: &'a mut Value, service: &str) -> Result<&'a mut Vec<Value>, Refusal> {
    let found = document
        .get_mut("service")
        .and_then(Value::as_array_mut)
        .and_then(|all| all.iter_mut().find(|entry| entry["name"] == service))
        .and_then(Value::as_object_mut);
    let Some(service) = found else {
        return Err(Refusal::NotFound(format!(
            "There is no service {service:?}; GET /v1/services lists those there are."
        )));
    };
    let list = service.entry("real_server").or_insert_with(|| json!([]));
    list.as_array_mut()
        .ok_or_else(|| Refusal::bad_request("The running configuration has no list of real servers."))
}

/// The one way an address, with or without a port, is written: `10.2.0.11:8080`, `[2001:db8::1]:80`, `2001:db8::1`.
pub fn normal_address(text: &str) -> Result<String, Refusal> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address.to_string());
    }
    match text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => Err(Refusal::BadRequest {
            detail: format!("{text:?} is not the address of a real server."),
            errors: vec![Fault::new(
                "address",
                "write an address with or without a port: 10.2.0.11:8080, 10.2.0.11, [2001:db8::11]:8080",
            )],
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Value {
        json!({"service": [
            {"name": "dns"},
            {"name": "web", "real_server": [
                {"address": "10.2.0.11:8080", "weight": 70},
                {"address": "[2001:DB8::0011]:80", "weight": 1},
            ]},
        ]})
    }

    fn change(service: &str, address: &str, action: Action) -> Change {
        Change { service: service.to_owned(), address: address.to_owned(), action }
    }

    fn weight_of(document: &Value, position: usize) -> &Value {
        &document["service"][1]["real_server"][position]["weight"]
    }

    #[test]
    fn weights_come_back_after_a_drain_that_was_committed() {
        let mut edits = Edits::default();
        let drained = edits.make(document(), change("web", "10.2.0.11:8080", Action::Drain)).unwrap();
        assert_eq!(weight_of(&drained, 0), 0);
        edits.commit();
        // Draining twice does not forget the weight.
        let drained = edits.make(drained, change("web", "10.2.0.11:8080", Action::Drain)).unwrap();
        edits.commit();
        let back = edits.make(drained, change("web", "10.2.0.11:8080", Action::Undrain(None))).unwrap();
        assert_eq!(weight_of(&back, 0), 70);
    }

    #[test]
    fn a_drain_that_was_refused_is_not_remembered() {
        let mut edits = Edits::default();
        let drained = edits.make(document(), change("web", "10.2.0.11:8080", Action::Drain)).unwrap();
        edits.forget();
        let refusal = edits.make(drained, change("web", "10.2.0.11:8080", Action::Undrain(None)));
        assert!(matches!(refusal, Err(Refusal::Conflict(_))));
    }

    #[test]
    fn addresses_are_compared_by_value() {
        let mut edits = Edits::default();
        let edited = edits.make(document(), change("web", "[2001:db8:0::11]:80", Action::Weight(9))).unwrap();
        assert_eq!(weight_of(&edited, 1), 9);
        let twice = edits.make(document(), change("web", "[2001:db8::11]:80", Action::Add(None)));
        assert!(matches!(twice, Err(Refusal::Conflict(_))));
    }

    #[test]
    fn a_service_without_real_servers_gets_its_first() {
        let added =
            Edits::default().make(document(), change("dns", "10.2.0.53", Action::Add(Some(5)))).unwrap();
        assert_eq!(added["service"][0]["real_server"], json!([{"address": "10.2.0.53", "weight": 5}]));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let mut edits = Edits::default();
        for wrong in [
            change("none", "10.2.0.11:8080", Action::Remove),
            change("web", "10.2.0.12:8080", Action::Remove),
            change("web", "10.2.0.11:8081", Action::Weight(1)),
        ] {
            assert!(matches!(edits.make(document(), wrong), Err(Refusal::NotFound(_))));
        }
        let bad = edits.make(document(), change("web", "server", Action::Remove));
        assert!(matches!(bad, Err(Refusal::BadRequest { .. })));
    }
}
