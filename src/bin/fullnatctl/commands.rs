//! What each command asks of the gateway and how it shows the answer.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use axum::http::Method;
use fullnat::control::api;
use fullnat::control::client::{Client, Content, segment};
use fullnat::control::view;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::output::{Output, clean};
use crate::{Arguments, Command, Config, Failure, RealServer, Sessions, Whom, tables};

/// Carries out the command.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let output = Output { json: arguments.json };
    if let Command::Openapi { offline: true } = arguments.command {
        return output.text(&built_in_document());
    }
    // Read before connecting: a mistake in a file name is a mistake in usage.
    let content = match &arguments.command {
        Command::Config(Config::Apply { file, .. }) => Some(read(file)?),
        _ => None,
    };
    let gateway = Gateway { client: Client::connect(&arguments.socket).await?, output };
    gateway.run(arguments.command, content).await
}

fn built_in_document() -> String {
    api::openapi().unwrap_or_default()
}

fn read(file: &Path) -> Result<Content, Failure> {
    let failed = |error| Failure::Input { path: file.to_owned(), error };
    let mut content = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut content).map_err(failed)?;
    } else {
        content = std::fs::read(file).map_err(failed)?;
    }
    if content.len() > api::BODY_MAX {
        let text = format!("it is larger than the {} bytes a gateway takes", api::BODY_MAX);
        return Err(failed(std::io::Error::other(text)));
    }
    let json = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    Ok((if json { "application/json" } else { "application/toml" }, content))
}

/// A connected gateway.
struct Gateway {
    client: Client,
    output: Output,
}

impl Gateway {
    async fn run(mut self, command: Command, content: Option<Content>) -> Result<(), Failure> {
        match command {
            Command::Version => self.show("/v1/version", tables::version).await,
            Command::Ports => self.show("/v1/ports", |ports: &Vec<view::Port>| tables::ports(ports)).await,
            Command::Workers { seconds } => self.workers(seconds).await,
            Command::Services { name: None } => {
                self.show("/v1/services", |services: &Vec<view::Service>| tables::services(services)).await
            }
            Command::Services { name: Some(name) } => {
                let path = format!("/v1/services/{}", segment(&name));
                self.show(&path, |service: &view::Service| tables::services(std::slice::from_ref(service)))
                    .await
            }
            Command::Sessions(wanted) => self.sessions(wanted).await,
            Command::Neighbours => {
                self.show("/v1/neighbours", |all: &Vec<view::Neighbour>| tables::neighbours(all)).await
            }
            Command::Routes => {
                self.show("/v1/routes", |routes: &Vec<view::Route>| tables::routes(routes)).await
            }
            Command::Pools => self.show("/v1/pools", |pools: &Vec<view::Pool>| tables::pools(pools)).await,
            Command::Drops { all } => {
                self.show("/v1/drops", |drops: &Vec<view::Drop>| tables::drops(drops, all)).await
            }
            Command::Config(command) => self.config(command, content).await,
            Command::RealServer(command) => self.real_server(command).await,
            Command::Openapi { .. } => self.text("/v1/openapi.json").await,
            Command::Metrics => self.text("/metrics").await,
        }
    }

    /// Shows an answer as JSON or as a table.
    async fn show<T: DeserializeOwned + Serialize>(
        &mut self,
        path: &str,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let view: T = self.client.get(path).await?;
        self.output.view(&view, table)
    }

    /// Prints an answer that is text already.
    async fn text(&mut self, path: &str) -> Result<(), Failure> {
        let body = self.client.send(Method::GET, path, None).await?;
        self.output.text(&String::from_utf8_lossy(&body))
    }

    async fn change(&mut self, method: Method, path: &str, content: Option<Content>) -> Result<(), Failure> {
        let body = self.client.send(method, path, content).await?;
        let applied: view::Applied = decode(&body)?;
        self.output.view(&applied, |applied| {
            format!("{}generation {} is in force\n", warnings(applied), applied.generation)
        })
    }

    async fn config(&mut self, command: Config, content: Option<Content>) -> Result<(), Failure> {
        match command {
            Config::Show if self.output.json => {
                self.show("/v1/config", |_: &serde_json::Value| String::new()).await
            }
            Config::Show => self.text("/v1/config?format=toml").await,
            Config::Apply { check: false, .. } => self.change(Method::PUT, "/v1/config", content).await,
            Config::Apply { check: true, .. } => {
                self.check(Method::PUT, "/v1/config?check=true", content).await
            }
            Config::Reload { check: false } => self.change(Method::POST, "/v1/reload", None).await,
            Config::Reload { check: true } => self.check(Method::POST, "/v1/reload?check=true", None).await,
            Config::Save => {
                let body = self.client.send(Method::POST, "/v1/config/save", None).await?;
                let saved: view::Saved = decode(&body)?;
                self.output.view(&saved, |saved| format!("saved to {}\n", clean(&saved.path)))
            }
        }
    }

    async fn check(&mut self, method: Method, path: &str, content: Option<Content>) -> Result<(), Failure> {
        let body = self.client.send(method, path, content).await?;
        let applied: view::Applied = decode(&body)?;
        self.output.view(&applied, |applied| format!("{}it can be applied\n", warnings(applied)))
    }

    async fn real_server(&mut self, command: RealServer) -> Result<(), Failure> {
        let path = |whom: &Whom, rest: &str| {
            format!("/v1/services/{}/real-servers/{}{rest}", segment(&whom.service), segment(&whom.address))
        };
        match command {
            RealServer::Add { whom, weight } => {
                let all = format!("/v1/services/{}/real-servers", segment(&whom.service));
                let new = view::NewRealServer { address: whom.address, weight };
                self.change(Method::POST, &all, Some(json(&new))).await
            }
            RealServer::Remove { whom } => self.change(Method::DELETE, &path(&whom, ""), None).await,
            RealServer::Weight { whom, weight } => {
                let content = json(&view::NewWeight { weight });
                self.change(Method::POST, &path(&whom, "/weight"), Some(content)).await
            }
            RealServer::Drain { whom } => self.change(Method::POST, &path(&whom, "/drain"), None).await,
            RealServer::Undrain { whom, weight } => {
                let content = json(&view::Undrain { weight });
                self.change(Method::POST, &path(&whom, "/undrain"), Some(content)).await
            }
        }
    }

    /// The workers since start, or over so many seconds from now.
    async fn workers(&mut self, seconds: Option<u32>) -> Result<(), Failure> {
        let mut workers: Vec<view::Worker> = self.client.get("/v1/workers").await?;
        if let Some(seconds) = seconds {
            tokio::time::sleep(Duration::from_secs(seconds.into())).await;
            let later: Vec<view::Worker> = self.client.get("/v1/workers").await?;
            workers = later.iter().zip(&workers).map(|(later, earlier)| later.since(earlier)).collect();
        }
        self.output.view(&workers, |workers| tables::workers(workers))
    }

    /// Sessions page by page; printed as they come, so that a million of them need no memory here.
    async fn sessions(&mut self, wanted: Sessions) -> Result<(), Failure> {
        const PAGE: usize = 1000;
        let mut left = if wanted.all { usize::MAX } else { wanted.limit as usize };
        let mut cursor: Option<String> = None;
        let mut printer = tables::SessionPrinter::new(self.output);
        loop {
            let path = sessions_path(&wanted, left.min(PAGE), cursor.as_deref());
            let page: view::SessionPage = self.client.get(&path).await?;
            left = left.saturating_sub(page.sessions.len());
            cursor = page.next;
            printer.page(&page.sessions)?;
            if cursor.is_none() || left == 0 {
                return printer.end(cursor.is_some());
            }
        }
    }
}

fn sessions_path(wanted: &Sessions, limit: usize, cursor: Option<&str>) -> String {
    let mut path = format!("/v1/sessions?limit={limit}");
    for (name, value) in [
        ("client", wanted.client.as_deref()),
        ("vip", wanted.vip.as_deref()),
        ("rip", wanted.rip.as_deref()),
        ("protocol", wanted.protocol.as_deref()),
        ("state", wanted.state.as_deref()),
        ("cursor", cursor),
    ] {
        if let Some(value) = value {
            path += &format!("&{name}={}", segment(value));
        }
    }
    path
}

fn json(body: &impl Serialize) -> Content {
    // The request types have no maps with other keys than text: this cannot fail.
    ("application/json", serde_json::to_vec(body).unwrap_or_default())
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    let strange =
        |error: serde_json::Error| fullnat::control::client::ClientError::Strange(error.to_string());
    Ok(serde_json::from_slice(body).map_err(strange)?)
}

/// One line for each warning.
fn warnings(applied: &view::Applied) -> String {
    let line =
        |warning: &view::Fault| format!("warning: {}: {}\n", clean(&warning.path), clean(&warning.message));
    applied.warnings.iter().map(line).collect()
}
