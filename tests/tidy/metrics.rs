//! The metrics as a scrape shows them: a gateway with one of everything is asked, and its answer made into a table.

use std::collections::BTreeSet;
use std::fmt::Write;

use fullnat::metrics::Scrape;
use fullnat::worker::published::Published;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// One row per metric: name, kind, labels, what it is.
pub fn table() -> String {
    let text = one_of_everything().encode();
    let mut out = String::from("| name | kind | labels | what |\n|---|---|---|---|\n");
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let kind = lines.next().and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
        let mut labels = BTreeSet::new();
        while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
            labels.extend(label_names(sample));
        }
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let total = if kind == "counter" { "_total" } else { "" };
        let _ = writeln!(out, "| `{name}{total}` | {kind} | {} | {help} |", labels.join(", "));
    }
    out
}

fn label_names(sample: &str) -> Vec<String> {
    let Some((_, rest)) = sample.split_once('{') else { return Vec::new() };
    rest.split("\",").filter_map(|pair| pair.split_once("=\"")).map(|(name, _)| name.to_owned()).collect()
}

fn one_of_everything() -> Scrape {
    Scrape {
        version: view(
            json!({"name": "", "version": "", "pid": 1, "uptime_secs": 0, "workers": 1, "generation": 1}),
        ),
        workers: vec![Published::new(1).read()],
        ports: vec![view(json!({
            "name": "wan", "id": 0, "mac": "", "mtu": 1500, "addresses": [],
            "rx_packets": 0, "rx_bytes": 0, "tx_packets": 0, "tx_bytes": 0,
            "link": {
                "device": "", "driver": "", "up": true, "speed_mbps": null, "rx_queues": 1, "tx_queues": 1,
                "rx_missed": 0, "rx_errors": 0, "rx_no_buffer": 0, "tx_errors": 0,
            },
        }))],
        services: vec![view(json!({
            "name": "web", "protocol": "tcp", "listen": [], "scheduler": "wlc", "local_pool": "lan-pool",
            "client_address": "none",
            "real_servers": [{
                "address": "10.2.0.11:80", "weight": 1, "state": "active", "sessions_active": 0, "sessions_inactive": 0,
                "sessions_created": 0, "refused_no_port": 0, "inbound_packets": 0, "inbound_bytes": 0,
                "outbound_packets": 0, "outbound_bytes": 0,
            }],
        }))],
        pools: vec![view(json!({
            "name": "lan-pool", "port": "lan", "addresses": 1, "l4_ports": "1024-65535", "leased": 0, "resting": 0,
            "by_address": [{"address": "10.2.0.100", "leased": 0, "resting": 0}],
            "by_real_server": [{
                "address": "10.2.0.11:80", "protocol": "tcp", "leased": 0, "resting": 0, "refused": 0, "ports": 1,
            }],
        }))],
    }
}

/// A view of the control socket from its JSON, so that a field that may be absent need not be named here.
fn view<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a view of the control socket")
}
