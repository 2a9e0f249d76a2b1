//! The control plane: the one place where changes are made, and where questions find what they need.
//!
//! ```text
//!  change:  lock ─► retire what was removed and has no session left ─► prepare (checks, builds the snapshot; on a helper
//!                thread) ─► Apply to every worker ─► every worker has moved on ─► commit ─► generation to the caller
//!  house:   every few seconds, with the lock: retire; if anything was, the same configuration once more without it
//!  question: reads the published counters and the current snapshot, asks workers by letter; never takes the lock
//! ```
//! A change is refused as a whole before the first worker hears of it, or carried out as a whole: once begun it runs
//! in a task of its own, which a client that goes away cannot interrupt.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::change::{Change, Edits};
use super::configuration::{Configuration, Desired, InUse};
use super::post::{ANSWER_TIMEOUT, Post};
use super::refusal::Refusal;
use super::view::{Applied, Link, Route, Saved};
use crate::id::{PortId, WorkerId};
use crate::service::snapshot::Snapshot;
use crate::wire::Address;
use crate::worker::mailbox::{Answer, ControlEnd, Request};
use crate::worker::published::{Counter, Published, PublishedView};
use crate::worker::records::ConflictRecord;

/// How long a change may be held up by finding out what can be retired.
const RETIRE_TIMEOUT: Duration = Duration::from_millis(500);

/// What control holds of one worker.
pub struct WorkerHandle {
    /// control's end of its mailbox
    pub mailbox: ControlEnd,
    /// its counters
    pub published: Arc<Published>,
}

/// Tells what the devices say of themselves.
pub trait Links: Send + Sync {
    /// The state of a port's device right now. Called from the control thread; must not block.
    fn link(&self, port: PortId) -> Link;
}

/// Everything the control socket reaches.
pub struct ControlPlane {
    workers: Vec<Worker>,
    links: Box<dyn Links>,
    started: Instant,
    changes: Arc<Mutex<Changes>>,
    running: RwLock<Running>,
    contested: Mutex<Contested>,
}

/// Own addresses that other hosts claim, as far as the log tells of them.
#[derive(Default)]
struct Contested {
    claims: u64,
    told: HashSet<(PortId, Address)>,
}

struct Worker {
    post: Post,
    published: Arc<Published>,
}

/// What only the holder of the lock may touch.
struct Changes {
    configuration: Box<dyn Configuration>,
    edits: Edits,
    /// something was retired that the workers still have
    retired: bool,
}

/// What runs, as questions see it.
#[derive(Clone)]
pub struct Running {
    /// what the workers work by
    pub snapshot: Arc<Snapshot>,
    /// the configuration with the key names of the file
    pub document: Arc<serde_json::Value>,
    /// the same as the text of a file
    pub toml: Arc<str>,
    /// its routes
    pub routes: Arc<[Route]>,
}

impl Running {
    fn new(configuration: &dyn Configuration, snapshot: Arc<Snapshot>) -> Result<Self, Refusal> {
        Ok(Running {
            snapshot,
            document: Arc::new(configuration.running()),
            toml: configuration.running_toml()?.into(),
            routes: configuration.routes().into(),
        })
    }
}

/// A wanted change of the configuration.
pub enum Wanted {
    /// a whole new one
    Whole(Desired),
    /// an edit of the running one
    Edit(Change),
}

impl ControlPlane {
    /// A control plane over running workers, in the order of their ids. `snapshot` is what they work by now and
    /// belongs to what `configuration` says is running.
    ///
    /// # Errors
    /// The running configuration cannot be written as TOML.
    pub fn new(
        configuration: Box<dyn Configuration>,
        snapshot: Arc<Snapshot>,
        workers: Vec<WorkerHandle>,
        links: Box<dyn Links>,
    ) -> Result<Arc<Self>, Refusal> {
        let running = RwLock::new(Running::new(&*configuration, snapshot)?);
        let workers = workers
            .into_iter()
            .zip(0..)
            .map(|(handle, id)| Worker {
                post: Post::new(WorkerId(id), handle.mailbox),
                published: handle.published,
            })
            .collect();
        let changes =
            Arc::new(Mutex::new(Changes { configuration, edits: Edits::default(), retired: false }));
        let contested = Mutex::default();
        Ok(Arc::new(ControlPlane { workers, links, started: Instant::now(), changes, running, contested }))
    }

    /// What runs now.
    pub fn running(&self) -> Running {
        self.running.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What each worker has counted.
    pub fn published(&self) -> Vec<PublishedView> {
        self.workers.iter().map(|worker| worker.published.read()).collect()
    }

    /// The way to each worker.
    pub fn posts(&self) -> impl ExactSizeIterator<Item = &Post> {
        self.workers.iter().map(|worker| &worker.post)
    }

    /// The way to one worker.
    pub fn post(&self, worker: usize) -> Option<&Post> {
        self.workers.get(worker).map(|worker| &worker.post)
    }

    /// What a port's device says.
    pub fn link(&self, port: PortId) -> Link {
        self.links.link(port)
    }

    /// Seconds since start.
    pub fn uptime_secs(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// Makes a change, or only checks it. Runs to its end even if the caller goes away.
    pub async fn change(self: &Arc<Self>, wanted: Wanted, check_only: bool) -> Result<Applied, Refusal> {
        let plane = self.clone();
        tokio::spawn(async move { plane.change_whole(wanted, check_only).await }).await.map_err(died)?
    }

    async fn change_whole(&self, wanted: Wanted, check_only: bool) -> Result<Applied, Refusal> {
        let mut changes = self.changes.clone().lock_owned().await;
        self.retire(&mut changes).await;
        // Thousands of services take a while to build; other clients are served meanwhile.
        let (mut changes, snapshot) = tokio::task::spawn_blocking(move || {
            let snapshot = changes.prepare(wanted);
            (changes, snapshot)
        })
        .await
        .map_err(died)?;
        let snapshot = snapshot?;
        let warnings = changes.configuration.warnings();
        if check_only {
            return Ok(Applied { generation: self.running().snapshot.generation, warnings });
        }
        self.check_post()?;
        let told = self.apply(&snapshot).await;
        // From here on the change is in force: workers that did not answer will take it up with their next letter.
        changes.configuration.commit();
        changes.edits.commit();
        changes.retired = false;
        let running = Running::new(&*changes.configuration, snapshot)?;
        let generation = running.snapshot.generation;
        *self.running.write().unwrap_or_else(PoisonError::into_inner) = running;
        told.map(|()| Applied { generation, warnings })
    }

    /// Whether every worker can be given a snapshot.
    fn check_post(&self) -> Result<(), Refusal> {
        match self.posts().find(|post| !post.takes_snapshot()) {
            None => Ok(()),
            Some(full) => Err(Refusal::Workers(format!(
                "Worker {} has not yet taken the changes before this one; nothing was changed. Try again; if that \
                 lasts, restart fullnatd.",
                full.worker.0
            ))),
        }
    }

    /// To be called every few seconds. Frees what was removed and is used no more, and has the workers go on without it:
    /// a removed local address is no longer answered for. Tells the log of new address conflicts.
    pub async fn keep_house(self: &Arc<Self>) {
        let plane = self.clone();
        // As a change, it is not broken off in the middle.
        let kept =
            tokio::spawn(async move { plane.retire_removed().await.and(plane.tell_conflicts().await) });
        if let Err(refusal) = kept.await.map_err(died).flatten() {
            tracing::debug!(%refusal, "house-keeping waits for another time");
        }
    }

    async fn retire_removed(&self) -> Result<(), Refusal> {
        let mut changes = self.changes.clone().lock_owned().await;
        self.retire(&mut changes).await;
        if !changes.retired {
            return Ok(());
        }
        let (mut changes, snapshot) = tokio::task::spawn_blocking(move || {
            let snapshot = changes.configuration.again();
            (changes, snapshot)
        })
        .await
        .map_err(died)?;
        let snapshot = snapshot?;
        self.check_post()?;
        let told = self.apply(&snapshot).await;
        changes.retired = false;
        self.running.write().unwrap_or_else(PoisonError::into_inner).snapshot = snapshot;
        told
    }

    /// Each contested address is told of once, until it is no longer among those the workers remember.
    async fn tell_conflicts(&self) -> Result<(), Refusal> {
        let claims = self.published().iter().map(|worker| worker.get(Counter::AddressConflicts)).sum();
        let mut contested = self.contested.lock().await;
        if contested.claims == claims {
            return Ok(());
        }
        let snapshot = self.running().snapshot;
        let mut now = HashSet::new();
        for post in self.posts() {
            for ConflictRecord { port, address, mac } in post.conflicts().await? {
                if now.insert((port, address)) && !contested.told.contains(&(port, address)) {
                    let port = snapshot.ports.get(port.index()).map_or("", |port| &port.name);
                    tracing::warn!(
                        %address, port, mac = super::query::mac(mac),
                        "another host claims an address of the gateway: take the address from one of them"
                    );
                }
            }
        }
        *contested = Contested { claims, told: now };
        Ok(())
    }

    /// Frees the numbers of what was removed and no session uses any more. Waits for another time if a worker does not
    /// answer or has not yet taken the last change.
    async fn retire(&self, changes: &mut Changes) {
        let configuration = &mut changes.configuration;
        let generation = self.running().snapshot.generation;
        let behind = |view: PublishedView| view.get(Counter::Generation) != generation;
        if !configuration.has_removed() || self.published().into_iter().any(behind) {
            return;
        }
        if let Ok(Ok(in_use)) = tokio::time::timeout(RETIRE_TIMEOUT, self.in_use()).await {
            changes.retired |= configuration.retire(&in_use) > 0;
        }
    }

    async fn in_use(&self) -> Result<InUse, Refusal> {
        let mut in_use = InUse::default();
        for post in self.posts() {
            let servers = post.real_servers().await?;
            let used =
                servers.iter().filter(|server| server.sessions_active > 0 || server.sessions_inactive > 0);
            in_use.real_servers.extend(used.map(|server| server.id));
            let addresses = post.local_addresses().await?;
            let used = addresses.iter().filter(|address| address.leased > 0);
            in_use.local_addresses.extend(used.map(|address| address.address));
        }
        Ok(in_use)
    }

    /// Gives the snapshot to all workers and waits until all work by it. The replaced ones are dropped here.
    async fn apply(&self, snapshot: &Arc<Snapshot>) -> Result<(), Refusal> {
        let deadline = tokio::time::Instant::now() + ANSWER_TIMEOUT;
        let pending: Vec<_> =
            self.posts().map(|post| post.send(Request::Apply(snapshot.clone())).ok()).collect();
        let mut late = Vec::new();
        for (post, pending) in self.posts().zip(pending) {
            let answer = match pending {
                Some(pending) => pending.answer(deadline).await.ok(),
                None => None,
            };
            if !matches!(answer, Some(Answer::Applied(_))) {
                late.push(post.worker.0.to_string());
            }
        }
        if late.is_empty() {
            return Ok(());
        }
        Err(Refusal::Workers(format!(
            "Generation {} is in force, but worker {} has not taken it up within {} s: look at GET /v1/workers; if \
             its turns stand still, restart fullnatd.",
            snapshot.generation,
            late.join(", "),
            ANSWER_TIMEOUT.as_secs()
        )))
    }

    /// Writes the running configuration into its file.
    pub async fn save(&self) -> Result<Saved, Refusal> {
        let mut changes = self.changes.clone().lock_owned().await;
        let saved = tokio::task::spawn_blocking(move || changes.configuration.save()).await.map_err(died)?;
        Ok(Saved { path: saved?.display().to_string() })
    }
}

impl Changes {
    fn prepare(&mut self, wanted: Wanted) -> Result<Arc<Snapshot>, Refusal> {
        self.edits.forget();
        let desired = match wanted {
            Wanted::Whole(desired) => desired,
            Wanted::Edit(change) => Desired::Json(self.edits.make(self.configuration.running(), change)?),
        };
        self.configuration.prepare(desired)
    }
}

fn died(_: tokio::task::JoinError) -> Refusal {
    Refusal::Workers("The change was broken off by a defect of fullnatd; please report the log.".to_owned())
}
