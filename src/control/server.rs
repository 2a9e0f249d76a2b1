//! The socket's server: accepts, bounds and serves connections on one thread.
//!
//! A client that is slow, silent or half gone costs one connection and no one else's time:
//! * at most [`CONNECTIONS_MAX`] connections are open; when one more comes, the oldest whose client is not just being
//!   worked for makes room, so a newcomer is served at once however many idle ones there are;
//! * a request's header and its body may each take [`REQUEST_TIME`];
//! * metrics for Prometheus may be had over TCP too; there nothing else is served, and its connections are counted apart;
//! * a connection on which nothing moves for [`REQUEST_TIME`] is closed, be it idle or because the client does not read.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tower::ServiceExt;
use tracing::{info, warn};

use super::api;
use super::listener::{ListenError, Listener, ListenerConfig, Peer};
use super::plane::ControlPlane;
use super::refusal::{AuditDetail, Refusal};

/// Open connections at most.
pub const CONNECTIONS_MAX: usize = 128;
/// Time for a request's header, for its body, and without progress.
pub const REQUEST_TIME: Duration =
    if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(10) };
/// Time between two looks for what control has to do unasked.
const HOUSE_KEEPING: Duration = Duration::from_secs(2);
/// How long requests that are being worked on may take after the end was asked for.
const FAREWELL: Duration = Duration::from_millis(500);

/// The running control thread; ends when dropped.
#[derive(Debug)]
pub struct ControlThread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Opens the socket and serves it on a thread of its own, which inherits the caller's CPU affinity.
///
/// # Errors
/// The socket cannot be made, see [`ListenError`].
pub fn start(config: &ListenerConfig, plane: Arc<ControlPlane>) -> Result<ControlThread, ListenError> {
    let metrics = match config.metrics {
        Some(address) => Some(metrics_socket(address)?),
        None => None,
    };
    let os = |error| ListenError::Os { action: "serve", path: config.path.clone(), error };
    let listener = Listener::bind(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(os)?;
    let (stop, stopped) = oneshot::channel();
    let serve = move || {
        let end = async move { drop(stopped.await) };
        if let Err(error) = runtime.block_on(serve(listener, metrics, plane, end)) {
            warn!(%error, "the control socket broke down");
        }
        // A change in the middle of its preparation need not be waited for.
        runtime.shutdown_background();
    };
    let thread = thread::Builder::new().name("fullnat-control".to_owned()).spawn(serve);
    Ok(ControlThread { stop: Some(stop), thread: Some(thread.map_err(os)?) })
}

fn metrics_socket(address: SocketAddr) -> Result<std::net::TcpListener, ListenError> {
    let bound = std::net::TcpListener::bind(address);
    let ready = bound.and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
    ready.map_err(|error| ListenError::Metrics { address, error })
}

impl ControlThread {
    /// Ends serving: requests under way get half a second, the socket file goes away.
    pub fn shut_down(self) {
        drop(self);
    }
}

impl Drop for ControlThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves the control socket, and metrics over TCP if `metrics` is given, until `shutdown` is ready. Must run in a
/// tokio runtime with I/O and time.
///
/// # Errors
/// A socket cannot be given to the runtime.
pub async fn serve(
    listener: Listener,
    metrics: Option<std::net::TcpListener>,
    plane: Arc<ControlPlane>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let socket = UnixListener::from_std(listener.socket()?)?;
    let metrics = metrics.map(TcpListener::from_std).transpose()?;
    let scraped = Scraped { router: api::metrics_router(plane.clone()), open: Arc::default() };
    let house = tokio::spawn(keep_house(plane.clone()));
    let router = api::router(plane);
    let open = Arc::new(Connections::default());
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = socket.accept() => accepted.map(|(stream, _)| accept(&listener, stream, &router, &open)),
            accepted = scraped.accept(metrics.as_ref()) => accepted,
        };
        if let Err(error) = accepted {
            // Out of file descriptors, as a rule.
            warn!(%error, "cannot accept a control connection");
            open.make_room();
            sleep(Duration::from_millis(50)).await;
        }
    }
    house.abort();
    drop((socket, metrics, listener));
    let until = Instant::now() + FAREWELL;
    loop {
        open.close_idle();
        scraped.open.close_idle();
        if open.lock().live.is_empty() || Instant::now() >= until {
            return Ok(());
        }
        sleep(Duration::from_millis(5)).await;
    }
}

async fn keep_house(plane: Arc<ControlPlane>) {
    loop {
        sleep(HOUSE_KEEPING).await;
        plane.keep_house().await;
    }
}

fn accept(listener: &Listener, stream: UnixStream, router: &Router, open: &Arc<Connections>) {
    // The kernel forgets nobody: a peer without credentials does not exist on a UNIX stream socket.
    let Ok(credentials) = stream.peer_cred() else { return };
    let peer = Peer { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() };
    let admitted = listener.admits(peer);
    if !admitted {
        warn!(uid = peer.uid, gid = peer.gid, pid = peer.pid, "a stranger connected to the control socket");
    }
    open.start(stream, admitted.then(|| router.clone()), Some(peer));
}

/// Metrics over TCP.
struct Scraped {
    router: Router,
    open: Arc<Connections>,
}

impl Scraped {
    /// Takes one connection; never ready without a socket.
    async fn accept(&self, socket: Option<&TcpListener>) -> io::Result<()> {
        match socket {
            Some(socket) => {
                let (stream, _) = socket.accept().await?;
                self.open.start(stream, Some(self.router.clone()), None);
                Ok(())
            }
            None => std::future::pending().await,
        }
    }
}

/// Serves one connection to its end.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: Option<Peer>,
    router: Option<Router>,
    state: Arc<Connection>,
) {
    let io = TokioIo::new(Watched { stream, state: state.clone() });
    let serve = {
        let state = state.clone();
        service_fn(move |request| respond(request, peer, router.clone(), state.clone()))
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        // Who has sent a request and closes that half still wants the answer.
        .half_close(true)
        .header_read_timeout(REQUEST_TIME)
        .serve_connection(io, serve);
    tokio::select! {
        // A client that breaks off is its own business.
        _ = connection => {}
        () = state.close.notified() => {}
        () = state.stalled() => {}
    }
}

async fn respond(
    request: Request<Incoming>,
    peer: Option<Peer>,
    router: Option<Router>,
    state: Arc<Connection>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let (parts, body) = request.into_parts();
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    let response = match (router, api::collect(&parts.headers, Body::new(body)).await) {
        (None, _) => Refusal::Forbidden(peer.map_or(u32::MAX, |peer| peer.uid)).into_response(),
        (Some(_), Err(refusal)) => refusal.into_response(),
        (Some(router), Ok(body)) => {
            let _busy = state.work();
            router.oneshot(Request::from_parts(parts, Body::from(body))).await.into_response()
        }
    };
    if let Some(Peer { uid, gid, pid }) = peer
        && !matches!(method, Method::GET | Method::HEAD)
    {
        let detail = response.extensions().get::<AuditDetail>().map_or("", |detail| &detail.0);
        let status = response.status().as_u16();
        info!(target: "fullnat::audit", uid, gid, pid, %method, ?path, status, ?detail, "control request");
    }
    Ok(response)
}

/// The open connections by age.
#[derive(Default)]
struct Connections(Mutex<Live>);

#[derive(Default)]
struct Live {
    next: u64,
    live: BTreeMap<u64, Arc<Connection>>,
}

/// What is known of one connection.
struct Connection {
    started: Instant,
    /// milliseconds from `started` to when something last moved
    progress_millis: AtomicU64,
    /// a complete request is being answered
    busy: AtomicBool,
    close: Notify,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Live> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> Option<(u64, Arc<Connection>)> {
        if self.lock().live.len() >= CONNECTIONS_MAX {
            self.make_room();
        }
        let mut open = self.lock();
        if open.live.len() >= CONNECTIONS_MAX {
            return None;
        }
        let id = open.next;
        open.next += 1;
        let connection = Arc::new(Connection {
            started: Instant::now(),
            progress_millis: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            close: Notify::new(),
        });
        open.live.insert(id, connection.clone());
        Some((id, connection))
    }

    /// Serves a new connection, or closes it at once if every other is being worked for.
    fn start<S>(self: &Arc<Self>, stream: S, router: Option<Router>, peer: Option<Peer>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some((id, state)) = self.enter() else { return };
        let open = self.clone();
        tokio::spawn(async move {
            converse(stream, peer, router, state).await;
            open.lock().live.remove(&id);
        });
    }

    /// Closes the oldest connection whose client is not being worked for.
    fn make_room(&self) {
        let mut open = self.lock();
        let oldest = open.live.iter().find(|(_, connection)| !connection.busy.load(Ordering::Relaxed));
        if let Some(id) = oldest.map(|(&id, _)| id)
            && let Some(connection) = open.live.remove(&id)
        {
            connection.close.notify_one();
        }
    }

    fn close_idle(&self) {
        for connection in self.lock().live.values() {
            if !connection.busy.load(Ordering::Relaxed) {
                connection.close.notify_one();
            }
        }
    }
}

impl Connection {
    fn moved(&self) {
        self.progress_millis.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn work(&self) -> Busy<'_> {
        self.busy.store(true, Ordering::Relaxed);
        Busy(self)
    }

    /// Ready when nothing has moved for [`REQUEST_TIME`] although the client could have moved it.
    async fn stalled(&self) {
        loop {
            let progress = Duration::from_millis(self.progress_millis.load(Ordering::Relaxed));
            let deadline = self.started + progress + REQUEST_TIME;
            if Instant::now() < deadline {
                sleep_until(deadline).await;
            } else if self.busy.load(Ordering::Relaxed) {
                sleep(REQUEST_TIME).await;
            } else {
                return;
            }
        }
    }
}

/// Marks a connection as worked for.
struct Busy<'a>(&'a Connection);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.moved();
        self.0.busy.store(false, Ordering::Relaxed);
    }
}

/// A stream that notes when something moves.
struct Watched<S> {
    stream: S,
    state: Arc<Connection>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        if read.is_ready() {
            self.state.moved();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if written.is_ready() {
            self.state.moved();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// A connection to a router that answers every request with a megabyte.
    fn connected(open: &Arc<Connections>) -> DuplexStream {
        let (client, server) = tokio::io::duplex(1024);
        let router = Router::new().fallback(async || vec![0; 1 << 20]);
        open.start(server, Some(router), None);
        client
    }

    #[test]
    fn conformance_n5_who_stalls_is_closed() {
        runtime().block_on(async {
            let open = Arc::default();
            let silent: &[u8] = b"";
            let half_a_header = b"GET / HTTP/1.1\r\nHo";
            let never_reads = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
            let idle = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n";
            let mut clients = Vec::new();
            for part in [silent, half_a_header, never_reads, idle] {
                let mut client = connected(&open);
                client.write_all(part).await.unwrap();
                clients.push(client);
            }
            assert_eq!(open.lock().live.len(), 4);
            // Each is closed by the gateway, whatever was answered before.
            for client in &mut clients {
                let closed = sleep(3 * REQUEST_TIME);
                closed.await;
                assert!(client.read_to_end(&mut Vec::new()).await.is_ok());
            }
            assert!(open.lock().live.is_empty());
        });
    }

    #[test]
    fn conformance_n6_connections_are_bounded_and_the_oldest_idle_one_goes() {
        runtime().block_on(async {
            let open: Arc<Connections> = Arc::default();
            let mut clients: Vec<_> = (0..CONNECTIONS_MAX).map(|_| connected(&open)).collect();
            let busiest = open.lock().live[&0].clone();
            let busy = busiest.work();
            let _newcomer = connected(&open);
            assert_eq!(open.lock().live.len(), CONNECTIONS_MAX);
            assert!(open.lock().live.contains_key(&0), "it is being worked for");
            assert!(!open.lock().live.contains_key(&1), "the oldest of the others");
            assert_eq!(clients[1].read(&mut [0]).await.unwrap(), 0);
            drop(busy);
            let all: Vec<_> = open.lock().live.values().cloned().collect();
            let _all_busy: Vec<_> = all.iter().map(|connection| connection.work()).collect();
            assert!(open.enter().is_none());
        });
    }
}
