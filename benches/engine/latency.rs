//! `latency`: round trips of UDP datagrams through whatever stands between two network namespaces.
//!
//! Open loop (RFC 2544 §26.2): datagrams leave at the times of a schedule, each carrying its own, so that a delay
//! counts against every datagram that it holds up. Both ends are ordinary sockets, and one thread serves them in turn
//! without ever sleeping: two programs on one core would wait for the scheduler's slices, milliseconds that no middle
//! has made. What the kernel's stacks cost is in every figure, the reference's too.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::json;

/// Bytes of a datagram: a frame of 64 bytes.
const PAYLOAD_LEN: usize = 18;
/// What comes back later than this after the last datagram is lost.
const PATIENCE: Duration = Duration::from_millis(300);

/// The far end: a bound socket of another network namespace, which is where a socket stays, as the standard input.
pub fn far_end() -> std::io::Result<UdpSocket> {
    Ok(std::io::stdin().as_fd().try_clone_to_owned()?.into())
}

/// Sends `rate` datagrams per second for `duration`, sends them back from the `far` end, and prints what became of them.
pub fn measure(far: &UdpSocket, to: SocketAddr, rate: u32, duration: Duration) -> std::io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 10_000_000_000, 3).expect("sound bounds");
    let interval = 1e9 / f64::from(rate);
    let total = (duration.as_secs_f64() * f64::from(rate)) as u64;
    let (mut sent, mut refused) = (0u64, 0u64);
    let began = Instant::now();
    let mut last_sent = began;
    while sent < total || last_sent.elapsed() < PATIENCE {
        let now = began.elapsed().as_nanos() as u64;
        let due = (sent as f64 * interval) as u64;
        if sent < total && now >= due {
            let mut payload = [0; PAYLOAD_LEN];
            payload[..8].copy_from_slice(&due.to_le_bytes());
            refused += u64::from(socket.send(&payload).is_err());
            sent += 1;
            last_sent = Instant::now();
        }
        send_back(far)?;
        receive(&socket, began, &mut histogram)?;
        if sent == total && histogram.len() + refused == total {
            break;
        }
    }
    print(&histogram, rate, sent);
    Ok(())
}

/// Sends back one datagram, if there is one. A full queue loses the answer, which is counted.
fn send_back(far: &UdpSocket) -> std::io::Result<()> {
    let mut payload = [0; PAYLOAD_LEN];
    if let Some((len, from)) = arrived(far.recv_from(&mut payload))? {
        let _ = far.send_to(&payload[..len], from);
    }
    Ok(())
}

/// Takes in one answer, if there is one.
fn receive(socket: &UdpSocket, began: Instant, histogram: &mut Histogram<u64>) -> std::io::Result<()> {
    let mut payload = [0; PAYLOAD_LEN];
    if arrived(socket.recv(&mut payload))? == Some(PAYLOAD_LEN) {
        let due = u64::from_le_bytes(*payload.first_chunk().expect("8 of 18 bytes"));
        histogram.saturating_record((began.elapsed().as_nanos() as u64).saturating_sub(due).max(1));
    }
    Ok(())
}

/// What a socket gave that does not wait.
fn arrived<T>(received: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match received {
        Ok(received) => Ok(Some(received)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn print(histogram: &Histogram<u64>, rate: u32, sent: u64) {
    let micros = |nanos: u64| nanos as f64 / 1000.0;
    let at = |quantile: f64| micros(histogram.value_at_quantile(quantile));
    let distribution: Vec<(f64, f64)> = histogram
        .iter_quantiles(2)
        .map(|step| (step.quantile_iterated_to(), micros(step.value_iterated_to())))
        .collect();
    println!(
        "{}",
        json!({
            "rate": rate, "sent": sent, "received": histogram.len(), "lost": sent - histogram.len().min(sent),
            "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": micros(histogram.max()),
            "distribution": distribution,
        })
    );
}
