//! From the model to checked types, with every mistake found on the way.
//!
//! Each part checks what it can on its own and hands on what is sound; what depends on several parts (who owns an
//! address, which way a real server is reached) is checked where they meet. A part that is not sound is left out of
//! later checks, so that one mistake is not reported as many.

mod gateway;
mod network;
mod ownership;
mod services;
#[cfg(test)]
mod tests;

use hashbrown::HashMap;
use std::fmt::Display;

use super::checked::Config;
use super::mistake::{Findings, Mistake};
use super::model::Document;
use super::text;
use crate::session::Timeouts;

/// Checks a document.
///
/// # Errors
/// Every mistake found, in the order of the document's tables.
pub(super) fn validate(document: Document) -> Result<Config, Vec<Mistake>> {
    let mut findings = Findings::default();
    let found = &mut findings;

    let ports = network::ports(&document.ports, found);
    let dataplane = gateway::dataplane(&document.dataplane, &ports, found);
    let control = gateway::control(&document.control, found);
    let timeouts = services::timeouts("timeouts", &document.timeouts, Timeouts::IPVS, found);
    let refusal = gateway::refusal(&document.refusal, found);
    let neighbours = gateway::neighbours(&document.neighbours, found);
    gateway::queues(&document, found);
    let routes = network::routes(&document.routes, &document.ports, &ports, found);
    let table = network::route_table(&ports, &routes);
    let pools = network::pools(&document.local_pools, &document.ports, &ports, found);
    let drafts = services::services(
        &document.services,
        services::Pools { written: &document.local_pools, checked: &pools },
        &timeouts,
        &table,
        found,
    );
    ownership::check(&ports, &pools, &drafts, found);

    let Findings { mistakes, warnings } = findings;
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    // Without mistakes nothing was left out; the gaps are only in the types.
    let complete = || {
        Some(Config {
            warnings,
            dataplane: dataplane?,
            control: control?,
            refusal: refusal?,
            neighbours: neighbours?,
            ports: ports.into_iter().collect::<Option<_>>()?,
            static_routes: routes,
            pools: pools.into_iter().collect::<Option<_>>()?,
            services: drafts.into_iter().map(|draft| draft.service).collect(),
            document,
        })
    };
    complete().ok_or_else(|| {
        vec![Mistake {
            path: String::new(),
            problem: "a part was refused without a reason, which is a bug of fullnat".to_owned(),
            hint: "report it with this configuration".to_owned(),
        }]
    })
}

/// Checks a name and that nothing else of its kind has it.
fn unique_name(
    path: impl Display,
    written: &str,
    kind: &str,
    seen: &mut HashMap<String, String>,
    found: &mut Findings,
) -> Option<String> {
    let name = found.take(&path, text::name(written))?;
    let here = path.to_string();
    if let Some(first) = seen.get(&name) {
        found.mistake(
            path,
            format!("{name:?} is the name of another {kind}, {first}"),
            format!("write a name that no other {kind} has"),
        );
        return None;
    }
    seen.insert(name.clone(), here);
    Some(name)
}

/// Notes a list that is longer than it may be.
fn at_most(path: &str, len: usize, max: usize, what: &str, found: &mut Findings) {
    if len > max {
        found.mistake(path, format!("{len} {what} are too many"), format!("write at most {max}"));
    }
}

/// The names there are, for the hint about one that there is not.
fn known<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.take(8).map(|name| format!("{name:?}")).collect();
    if names.is_empty() {
        format!("add a [[{what}]] of that name")
    } else {
        format!("write one of {}", names.join(", "))
    }
}
