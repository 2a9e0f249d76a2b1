//! The gateway as a whole: from a checked configuration to running workers, and back to nothing.
//!
//! ```text
//!  config ──> EAL ──> devices, pool ──> ports ──> first snapshot ──> workers ──> control socket ──> ready
//!                                                                       │
//!  stop: control socket closed, workers joined, ports closed, EAL cleaned up, in this order
//! ```
//! The one place that knows DPDK, the workers and control at the same time.

mod cores;
mod memory;
mod ports;
mod runtime;

use std::hash::Hasher;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use crossbeam_queue::ArrayQueue;
use rand::TryRng;
use rand::rngs::SysRng;
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::clock::Tick;
use crate::config::buffers::HELD_MAX;
use crate::config::{BuildError, Config, HugePages, Idle, PortFacts, Requirements};
use crate::control::{self, ControlPlane, ControlThread, ListenerConfig, RunningConfiguration, WorkerHandle};
use crate::dpdk::{
    self, Clock, DeviceError, Eal, EalError, LcoreError, Mempool, PoolError, PortError, WorkerThread,
};
use crate::id::{PortId, WorkerId};
use crate::path::neighbour::NeighbourConfig;
use crate::path::{Engine, ShardConfig, ShardError};
use crate::service::snapshot::Snapshot;
use crate::steering::{Steering, SteeringError};
use crate::worker::mailbox::{WorkerEnd, mailbox};
use crate::worker::published::Published;
use crate::worker::{IdlePolicy, Outlet, Ring, Worker};

pub use cores::Cores;
use ports::{DeviceLinks, Queues};
use runtime::{Buffers, Dpdk};

/// Entries of the table that spreads flows over workers; the size that most NICs have at least.
const RETA_LEN: usize = 128;
/// ARP and ND messages that a worker acts on per second.
const NEIGHBOUR_MESSAGES_PER_SECOND: u32 = 2_000;

/// Why the gateway did not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// see [`EalError`]
    #[error(transparent)]
    Eal(#[from] EalError),
    /// see [`DeviceError`]
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// see [`PoolError`]
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// see [`PortError`]
    #[error(transparent)]
    Port(#[from] PortError),
    /// see [`LcoreError`]
    #[error(transparent)]
    Lcore(#[from] LcoreError),
    /// see [`ShardError`]
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// see [`SteeringError`]
    #[error(transparent)]
    Steering(#[from] SteeringError),
    /// see [`BuildError`]
    #[error(transparent)]
    Build(#[from] BuildError),
    /// see [`control::ListenError`]
    #[error(transparent)]
    Listen(#[from] control::ListenError),
    /// see [`control::Refusal`]
    #[error("{0}")]
    Control(control::Refusal),
    /// It would fit no more when all sessions are there.
    #[error(
        "the configuration needs {needed} MiB of memory and the machine has {left} MiB to give; lower dataplane.sessions_max (`--check` says what takes how much)"
    )]
    Memory {
        /// MiB
        needed: u64,
        /// MiB
        left: u64,
    },
    /// The kernel refused something that always works.
    #[error("{what} failed: {error}")]
    System {
        /// what was tried
        what: &'static str,
        /// what came of it
        error: String,
    },
}

/// A running gateway; stops when dropped.
pub struct Gateway {
    // Fields drop in this order.
    control: Option<ControlThread>,
    _workers: Workers,
    plane: Arc<ControlPlane>,
    ports: Vec<Arc<dpdk::Port>>,
    links_up: Vec<bool>,
    _pool: Mempool,
    _eal: Eal,
}

/// The workers' threads; told to stop and joined when dropped.
struct Workers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Gateway {
    /// Starts everything. What was started already is undone if a later step fails.
    pub fn start(path: &Path, config: Config) -> Result<Gateway, StartError> {
        memory::check(&config)?;
        let cores = Cores::choose(&config.dataplane, &dpdk::allowed_cores());
        if cores.crowded {
            tracing::warn!(
                "workers or control share a CPU; expect half the speed, or give the machine more cores"
            );
        }
        let names: Vec<&str> = config.ports.iter().map(|port| port.device.as_str()).collect();
        let eal = Eal::init(&memory::eal_arguments(&config), cores.control, &names)?;
        let (devices, pool) = ports::open(&eal, &config)?;
        let steering = Arc::new(steering(&config)?);

        let workers = usize::from(config.dataplane.workers);
        let mut queues: Vec<Queues> = (0..workers).map(|_| Queues::default()).collect();
        let mut started = Vec::new();
        for (device, port) in devices.into_iter().zip(&config.ports) {
            let running = ports::start(device, &config, port, &steering, &pool, &mut queues)?;
            tracing::info!(
                port = port.name,
                driver = running.capabilities().driver,
                queues = running.features().rx_queues,
                rss = running.features().rss,
                "port is up"
            );
            started.push(Arc::new(running));
        }
        let facts =
            started.iter().zip(&config.ports).map(|(port, wanted)| facts(port, wanted.checksum_offload));
        let (running, snapshot) =
            RunningConfiguration::new(path.to_owned(), config.clone(), facts.collect(), steering)?;

        let (workers, handles) = start_workers(&eal, &config, &cores, &pool, queues, &snapshot)?;
        let links = DeviceLinks {
            ports: started.clone(),
            devices: config.ports.iter().map(|port| port.device.as_str().to_owned()).collect(),
        };
        let plane = ControlPlane::new(Box::new(running), snapshot, handles, Box::new(links))
            .map_err(StartError::Control)?;
        let listener = ListenerConfig {
            path: config.control.socket.clone(),
            group: config.control.group.clone(),
            metrics: config.control.metrics_listen,
        };
        let control = control::start(&listener, plane.clone())?;
        let links_up = started.iter().map(|port| port.link().up).collect();
        Ok(Gateway {
            control: Some(control),
            _workers: workers,
            plane,
            ports: started,
            links_up,
            _pool: pool,
            _eal: eal,
        })
    }

    /// Reads the configuration file again and applies it. What it says is told in the log.
    pub fn reload(&self) {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        let wanted = control::Wanted::Whole(control::Desired::File);
        match runtime.block_on(self.plane.change(wanted, false)) {
            Ok(applied) => {
                for warning in &applied.warnings {
                    tracing::warn!("{}: {}", warning.path, warning.message);
                }
                tracing::info!(generation = applied.generation, "configuration reloaded");
            }
            Err(refusal) => tracing::error!("configuration not reloaded: {}", refusal),
        }
    }

    /// To be called a few times per second: announces the addresses of a port whose link has come up again (RFC 5227
    /// §2.3 for ARP, RFC 4861 §7.2.6 for ND).
    pub fn keep_house(&mut self) {
        for (number, port) in self.ports.iter().enumerate() {
            let up = port.link().up;
            if up && !self.links_up[number] {
                tracing::info!(port = port.name(), "link is up");
                self.announce(PortId(number as u16));
            } else if !up && self.links_up[number] {
                tracing::warn!(port = port.name(), "link is down");
            }
            self.links_up[number] = up;
        }
    }

    fn announce(&self, port: PortId) {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        for post in self.plane.posts() {
            if let Err(refusal) = runtime.block_on(post.link_up(port)) {
                tracing::warn!(%refusal, "addresses not announced");
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(control) = self.control.take() {
            control.shut_down();
        }
    }
}

fn steering(config: &Config) -> Result<Steering, StartError> {
    let workers = usize::from(config.dataplane.workers);
    Ok(match config.dataplane.rss_key {
        Some(key) => Steering::with_key(workers, reta_len(workers), key)?,
        None => Steering::random(workers, reta_len(workers), entropy()?)?,
    })
}

/// At least four entries per worker, so that the shares differ little.
fn reta_len(workers: usize) -> usize {
    (workers * 4).next_power_of_two().clamp(RETA_LEN, 512)
}

fn entropy<const N: usize>() -> Result<[u8; N], StartError> {
    let mut bytes = [0; N];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| StartError::System { what: "drawing random numbers", error: error.to_string() })?;
    Ok(bytes)
}

/// The secret behind the sequence numbers toward real servers (RFC 6528 §3): the same for every start since the machine
/// booted, so that a restarted gateway continues the numbers that real servers in TIME_WAIT remember; different after
/// each boot and on each machine, and nothing that a remote host could know.
///
/// Where the kernel does not name the boot, the secret is drawn: a restart then begins the numbers anew.
fn isn_secret() -> Result<[u8; 16], StartError> {
    let read = |path| std::fs::read(path).unwrap_or_default();
    match isn_secret_of(&read("/proc/sys/kernel/random/boot_id"), &read("/etc/machine-id")) {
        Some(secret) => Ok(secret),
        None => entropy(),
    }
}

/// `None` if the boot has no name: that of the machine alone is the same for ever, and may be nothing too.
fn isn_secret_of(boot: &[u8], machine: &[u8]) -> Option<[u8; 16]> {
    let mut hasher = SipHasher24::new();
    hasher.write(boot);
    hasher.write(machine);
    (!boot.is_empty()).then(|| hasher.finish128().as_bytes())
}

fn facts(port: &dpdk::Port, checksum_offload: bool) -> PortFacts {
    let features = port.features();
    PortFacts {
        mac: port.mac(),
        mtu: port.mtu(),
        checksum_offload: checksum_offload && features.tx_checksum,
        partial_checksums: features.partial_checksums,
    }
}

/// Starts one thread per worker; each allocates its shard on its own core.
fn start_workers(
    eal: &Eal,
    config: &Config,
    cores: &Cores,
    pool: &Mempool,
    queues: Vec<Queues>,
    snapshot: &Arc<Snapshot>,
) -> Result<(Workers, Vec<WorkerHandle>), StartError> {
    let count = queues.len();
    let rings: Vec<Ring<dpdk::Mbuf>> =
        (0..count).map(|_| Arc::new(ArrayQueue::new(config.dataplane.hand_off_ring as usize))).collect();
    let clock = Clock::calibrate();
    let isn_secret = isn_secret()?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut workers = Workers { stop: stop.clone(), threads: Vec::new() };
    let mut handles = Vec::new();
    let (tell, told) = mpsc::channel();
    for (number, queues) in queues.into_iter().enumerate() {
        let (control_end, worker_end) = mailbox();
        let published = Arc::new(Published::new(config.ports.len()));
        handles.push(WorkerHandle { mailbox: control_end, published: published.clone() });
        let seat = Seat {
            eal: eal.clone(),
            core: cores.workers[number],
            shard: shard_config(config, number as u16, isn_secret)?,
            snapshot: snapshot.clone(),
            queues,
            rings: rings.clone(),
            pool: pool.clone(),
            mailbox: worker_end,
            published,
            clock,
            idle: match config.dataplane.idle {
                Idle::Poll => IdlePolicy::Poll,
                Idle::Adaptive => IdlePolicy::Adaptive,
            },
        };
        let (tell, stop) = (tell.clone(), stop.clone());
        let thread = thread::Builder::new()
            .name(format!("fullnat-w{number}"))
            .spawn(move || seat.take(&tell, &stop))
            .map_err(|error| StartError::System { what: "starting a thread", error: error.to_string() })?;
        workers.threads.push(thread);
    }
    for _ in 0..count {
        told.recv().unwrap_or_else(|_| {
            Err(StartError::System { what: "starting a worker", error: "it ended".to_owned() })
        })?;
    }
    Ok((workers, handles))
}

fn shard_config(config: &Config, worker: u16, isn_secret: [u8; 16]) -> Result<ShardConfig, StartError> {
    let (dataplane, requirements) = (&config.dataplane, Requirements::of(config));
    let seed: [u8; 32] = entropy()?;
    let neighbours = &config.neighbours;
    Ok(ShardConfig {
        worker: WorkerId(worker),
        workers: dataplane.workers,
        sessions_max: dataplane.sessions_per_worker(),
        huge_pages: dataplane.huge_pages != HugePages::Off,
        lease_books_max: requirements.lease_books_max as usize,
        destinations_max: requirements.lease_destinations_max as usize,
        guests_max: requirements.guests_max as usize,
        neighbours: NeighbourConfig {
            capacity: neighbours.entries_max,
            reachable_ticks: neighbours.reachable_secs * Tick::PER_SECOND,
            retry_ticks: (neighbours.retransmit_millis * Tick::PER_SECOND).div_ceil(1000),
            attempts: neighbours.probes,
            queue_len: neighbours.queue_len,
            queue_total: HELD_MAX,
            messages_per_second: NEIGHBOUR_MESSAGES_PER_SECOND,
            worker: WorkerId(worker),
            workers: dataplane.workers,
            seed: u64::from_ne_bytes(*seed.first_chunk().expect("32 bytes")),
        },
        seed,
        isn_secret,
    })
}

/// Everything a worker takes with it to its core.
struct Seat {
    eal: Eal,
    core: usize,
    shard: ShardConfig,
    snapshot: Arc<Snapshot>,
    queues: Queues,
    rings: Vec<Ring<dpdk::Mbuf>>,
    pool: Mempool,
    mailbox: WorkerEnd,
    published: Arc<Published>,
    clock: Clock,
    idle: IdlePolicy,
}

impl Seat {
    fn take(self, tell: &mpsc::Sender<Result<(), StartError>>, stop: &AtomicBool) {
        let entered = WorkerThread::enter(&self.eal, self.core);
        let engine = Engine::new(&self.shard, self.snapshot, self.clock.now());
        let (thread, engine) = match (entered, engine) {
            (Ok(thread), Ok(engine)) => (thread, engine),
            (Err(error), _) => return drop(tell.send(Err(error.into()))),
            (_, Err(error)) => return drop(tell.send(Err(error.into()))),
        };
        let inbox = self.rings[self.shard.worker.index()].clone();
        let worker = Worker::<Dpdk> {
            engine,
            rx: self.queues.rx,
            outlet: Outlet::new(self.queues.tx, self.rings, Buffers(self.pool)),
            inbox,
            mailbox: self.mailbox,
            published: self.published,
            clock: self.clock,
            idle: self.idle,
        };
        let _ = tell.send(Ok(()));
        worker.run(stop);
        drop(thread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_name_of_the_boot_no_secret_is_made_of_it() {
        assert_eq!(isn_secret_of(b"", b"machine"), None);
        assert_eq!(isn_secret_of(b"", b""), None);
        let secret = isn_secret_of(b"boot", b"machine").unwrap();
        assert_eq!(isn_secret_of(b"boot", b"machine"), Some(secret), "the same after a restart");
        assert_ne!(isn_secret_of(b"boat", b"machine"), Some(secret));
        assert!(isn_secret_of(b"boot", b"").is_some_and(|alone| alone != secret));
        assert_ne!(entropy::<16>().unwrap(), entropy::<16>().unwrap());
    }
}
