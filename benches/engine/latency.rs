//! `latency`: round trips of UDP datagrams through whatever stands between two network namespaces.
//!
//! Open loop (RFC 2544 §26.2): datagrams leave at the times of a schedule, each carrying its own, so that a delay
//! counts against every datagram that it holds up. The echo sends back what it gets. Both are ordinary sockets; what
//! the kernel's stacks cost is in every figure, the reference's too.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::json;

/// Bytes of a datagram: a frame of 64 bytes.
const PAYLOAD_LEN: usize = 18;
/// What comes back later than this after the last datagram is lost.
const PATIENCE: Duration = Duration::from_millis(300);

/// Sends back every datagram for ever.
pub fn echo(listen: SocketAddr) -> std::io::Result<()> {
    let socket = UdpSocket::bind(listen)?;
    println!("listening");
    let mut buffer = [0; 2048];
    loop {
        let (len, from) = socket.recv_from(&mut buffer)?;
        // A full queue loses the answer, which the client counts.
        let _ = socket.send_to(&buffer[..len], from);
    }
}

/// Sends `rate` datagrams per second for `duration` and prints what became of them.
pub fn measure(to: SocketAddr, rate: u32, duration: Duration) -> std::io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
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
        receive(&socket, began, &mut histogram)?;
        if sent == total && histogram.len() + refused == total {
            break;
        }
    }
    print(&histogram, rate, sent);
    Ok(())
}

/// Takes in what has come back.
fn receive(socket: &UdpSocket, began: Instant, histogram: &mut Histogram<u64>) -> std::io::Result<()> {
    let mut payload = [0; PAYLOAD_LEN];
    match socket.recv(&mut payload) {
        Ok(PAYLOAD_LEN) => {
            let due = u64::from_le_bytes(*payload.first_chunk().expect("8 of 18 bytes"));
            histogram.saturating_record((began.elapsed().as_nanos() as u64).saturating_sub(due).max(1));
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => Ok(()),
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
