//! The control socket over its real UNIX socket, with fake workers behind it.

mod fake_gateway;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use axum::http::Method;
use fake_gateway::{FakeGateway, SESSIONS_PER_WORKER, document};
use fullnat::control::client::{Client, ClientError, Content};
use fullnat::control::view;
use serde_json::{Value, json};

/// Sends raw bytes and reads until the gateway closes: status and body.
fn raw(gateway: &FakeGateway, request: &[u8]) -> (u16, String) {
    let mut stream = UnixStream::connect(&gateway.socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // A gateway that has heard enough closes before the end of the request.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, body.to_owned())
}

fn put(gateway: &FakeGateway, path: &str, media: &str, body: &[u8]) -> (u16, String) {
    let method = if path.ends_with("config") { "PUT" } else { "POST" };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {media}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    raw(gateway, &[head.as_bytes(), body].concat())
}

fn problem(body: &str) -> view::Problem {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{body:?} is no problem object: {error}"))
}

/// One request over a connection of its own.
fn send(
    gateway: &FakeGateway,
    method: Method,
    path: &str,
    content: Option<Content>,
) -> Result<Vec<u8>, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = Client::connect(&gateway.socket).await?;
        client.send(method, path, content).await.map(|body| body.to_vec())
    })
}

fn get<T: serde::de::DeserializeOwned>(gateway: &FakeGateway, path: &str) -> T {
    serde_json::from_slice(&send(gateway, Method::GET, path, None).unwrap()).unwrap()
}

fn change(
    gateway: &FakeGateway,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Result<u64, view::Problem> {
    let content = body.map(|body| ("application/json", body.to_string().into_bytes()));
    match send(gateway, method, path, content) {
        Ok(body) => Ok(serde_json::from_slice::<view::Applied>(&body).unwrap().generation),
        Err(ClientError::Refused(problem)) => Err(problem),
        Err(other) => panic!("{other}"),
    }
}

const SERVER: &str = "/v1/services/web/real-servers/10.2.0.11:8080";

#[test]
fn every_question_has_an_answer() {
    let gateway = FakeGateway::start();
    assert_eq!(get::<view::Version>(&gateway, "/v1/version").workers, 2);
    let ports: Vec<view::Port> = get(&gateway, "/v1/ports");
    assert_eq!((ports[0].rx_packets, ports[0].mac.as_str()), (3_000_000, "02:00:00:00:00:01"));
    let workers: Vec<view::Worker> = get(&gateway, "/v1/workers");
    assert_eq!((workers[1].rx_packets, workers[1].burst_fill, workers[0].busy), (2_000_000, 32.0, 0.25));
    assert_eq!([0, 1].map(|id| workers[id].cycles_per_packet), [Some(160.0), Some(80.0)]);
    let classify = [0, 1].map(|id| workers[id].phases[1].clone());
    assert_eq!((classify[0].phase.as_str(), classify[0].cycles), ("classify", 414_273));
    let per_packet = classify.map(|phase| phase.cycles_per_packet);
    assert_eq!(per_packet, [Some(414_273.0 / 8000.0), None], "one was timed");
    let services: Vec<view::Service> = get(&gateway, "/v1/services");
    assert_eq!(services[0].listen, ["10.1.0.100:80-89"]);
    assert_eq!(services[0].real_servers[1].sessions_active, 5000, "the sum of both workers");
    assert_eq!(get::<view::Service>(&gateway, "/v1/services/dns"), services[1]);
    let drops: Vec<view::Drop> = get(&gateway, "/v1/drops");
    let no_service = drops.iter().find(|drop| drop.reason == "no_service").unwrap();
    assert_eq!((no_service.total, no_service.workers.as_slice()), (6, [2, 4].as_slice()));
    assert_eq!(get::<Vec<view::Neighbour>>(&gateway, "/v1/neighbours").len(), 4);
    assert_eq!(get::<Vec<view::Route>>(&gateway, "/v1/routes").len(), 2);
    let pools: Vec<view::Pool> = get(&gateway, "/v1/pools");
    assert_eq!((pools[0].leased, pools[0].by_real_server[0].ports), (10_000, 64_512));
    assert_eq!(get::<Value>(&gateway, "/v1/config"), document());
    assert!(get::<Value>(&gateway, "/v1/openapi.json")["paths"]["/v1/sessions"].is_object());
}

#[test]
fn metrics_are_well_formed_and_complete() {
    let gateway = FakeGateway::start();
    let text = String::from_utf8(send(&gateway, Method::GET, "/metrics", None).unwrap()).unwrap();
    for line in [
        "fullnat_build_info{version=\"0.1.0\"} 1",
        "fullnat_worker_rx_packets_total{worker=\"1\"} 2000000",
        "fullnat_worker_sessions_live{worker=\"0\"} 5000",
        "fullnat_worker_sampled_cycles_total{worker=\"0\",phase=\"forward\"} 503626",
        "fullnat_worker_sampled_cycles_total{worker=\"1\",phase=\"tx\"} 0",
        "fullnat_dropped_packets_total{worker=\"1\",reason=\"no_service\",severity=\"policy\"} 4",
        "fullnat_port_rx_packets_total{port=\"wan\",worker=\"0\"} 1000000",
        "fullnat_port_device_rx_missed_total{port=\"wan\"} 0",
        "fullnat_real_server_weight{service=\"web\",real_server=\"10.2.0.12:8080\"} 50",
        "fullnat_real_server_bytes_total{service=\"web\",real_server=\"10.2.0.11:8080\",direction=\"outbound\"} 6000000000",
        "fullnat_pool_leased{pool=\"lan-pool\",address=\"10.2.0.101\"} 0",
        "fullnat_pool_destination_leased{pool=\"lan-pool\",real_server=\"10.2.0.11:8080\",protocol=\"tcp\"} 5000",
        "# TYPE fullnat_worker_held_packets gauge",
        "# EOF",
    ] {
        assert!(text.lines().any(|there| there == line), "{line} is missing in\n{text}");
    }
}

#[test]
fn metrics_are_served_over_tcp_and_nothing_else_is() {
    let gateway = FakeGateway::start();
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(gateway.metrics).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = ask("/metrics");
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer:.300}");
    assert!(answer.ends_with("# EOF\n"));
    assert!(ask("/v1/version").starts_with("HTTP/1.1 404"));
}

#[test]
fn conformance_n8_sessions_come_page_by_page_each_once() {
    let gateway = FakeGateway::start();
    let (mut seen, mut path) = (std::collections::HashSet::new(), "/v1/sessions?limit=777".to_owned());
    let mut pages = 0;
    loop {
        let page: view::SessionPage = get(&gateway, &path);
        assert!(page.sessions.len() <= 777);
        for session in page.sessions {
            assert!(seen.insert(session.client.clone()), "{} came twice", session.client);
        }
        pages += 1;
        let Some(next) = page.next else { break };
        path = format!("/v1/sessions?limit=777&cursor={next}");
    }
    assert_eq!(seen.len() as u32, 2 * SESSIONS_PER_WORKER);
    assert!(pages <= 20, "{pages} pages");
    let one: view::SessionPage = get(&gateway, "/v1/sessions?client=172.17.1.2:40000&rip=10.2.0.11");
    assert_eq!(one.sessions.len(), 1);
    assert_eq!((one.sessions[0].worker, one.sessions[0].packets), (1, 258));
    assert_eq!(get::<view::SessionPage>(&gateway, "/v1/sessions?state=CLOSE").sessions, []);
    for wrong in
        ["client=x", "limit=0", "limit=1001", "limit=-1", "cursor=x", "state=OPEN", "nothing=1", "vip=%ff"]
    {
        let (status, body) = raw(
            &gateway,
            format!("GET /v1/sessions?{wrong} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
        );
        assert_eq!((status, problem(&body).status), (400, 400), "{wrong}");
    }
}

#[test]
fn real_servers_are_added_weighed_drained_and_removed() {
    let gateway = FakeGateway::start();
    let weights = |gateway: &FakeGateway| {
        let service: view::Service = get(gateway, "/v1/services/web");
        service.real_servers.iter().map(|server| (server.address.clone(), server.weight)).collect::<Vec<_>>()
    };
    let all = "/v1/services/web/real-servers";
    let new = json!({"address": "10.2.0.13:8080", "weight": 7});
    assert_eq!(change(&gateway, Method::POST, all, Some(new.clone())), Ok(2));
    assert_eq!(change(&gateway, Method::POST, all, Some(new)).unwrap_err().status, 409);
    assert_eq!(change(&gateway, Method::POST, &format!("{SERVER}/drain"), None), Ok(3));
    let service: view::Service = get(&gateway, "/v1/services/web");
    assert_eq!(service.real_servers[0].state, view::RealServerState::Draining);
    assert_eq!(change(&gateway, Method::POST, &format!("{SERVER}/undrain"), None), Ok(4));
    assert_eq!(
        change(&gateway, Method::POST, &format!("{SERVER}/weight"), Some(json!({"weight": 33}))),
        Ok(5)
    );
    assert_eq!(
        change(&gateway, Method::DELETE, "/v1/services/web/real-servers/10.2.0.12%3A8080", None),
        Ok(6)
    );
    let left = [("10.2.0.11:8080".to_owned(), 33), ("10.2.0.13:8080".to_owned(), 7)];
    assert_eq!(weights(&gateway), left);
    for (method, path) in [
        (Method::DELETE, "/v1/services/web/real-servers/10.2.0.12:8080"),
        (Method::DELETE, "/v1/services/none/real-servers/10.2.0.11:8080"),
        (Method::POST, "/v1/services/web/real-servers/10.9.9.9:1/drain"),
        (Method::GET, "/v1/services/none"),
        (Method::GET, "/v2"),
    ] {
        let refused = send(&gateway, method, path, None).unwrap_err();
        assert!(matches!(refused, ClientError::Refused(problem) if problem.status == 404), "{path}");
    }
    let refused = change(&gateway, Method::POST, &format!("{SERVER}/weight"), Some(json!({"weight": 2000})));
    let refused = refused.unwrap_err();
    assert_eq!((refused.status, refused.errors[0].path.as_str()), (422, "service[0].real_server[0].weight"));
    assert_eq!(weights(&gateway), left, "a refused change changes nothing");
}

#[test]
fn a_configuration_is_replaced_whole_or_not_at_all() {
    let gateway = FakeGateway::start();
    let mut wanted = document();
    wanted["service"].as_array_mut().unwrap().pop();
    let toml = toml::to_string(&wanted).unwrap();
    let checked = change(&gateway, Method::PUT, "/v1/config?check=true", Some(wanted.clone()));
    assert_eq!(checked, Ok(1), "a check changes nothing");
    let (status, _) = put(&gateway, "/v1/config", "application/toml; charset=utf-8", toml.as_bytes());
    assert_eq!((status, get::<Value>(&gateway, "/v1/config")), (200, wanted.clone()));
    let workers: Vec<view::Worker> = get(&gateway, "/v1/workers");
    assert!(workers.iter().all(|worker| worker.generation == 2), "in force before it is answered");

    wanted["dataplane"]["workers"] = json!(3);
    let refused = change(&gateway, Method::PUT, "/v1/config", Some(wanted.clone())).unwrap_err();
    assert_eq!((refused.status, refused.errors[0].path.as_str()), (409, "dataplane.workers"));
    wanted["dataplane"]["workers"] = json!(2);
    wanted["service"][0]["real_server"][1]["address"] = json!("nowhere");
    wanted["service"][0]["real_server"][0]["weight"] = json!(5000);
    let refused = change(&gateway, Method::PUT, "/v1/config", Some(wanted)).unwrap_err();
    assert_eq!((refused.status, refused.errors.len()), (422, 2));

    let shown = send(&gateway, Method::GET, "/v1/config?format=toml", None).unwrap();
    assert_eq!(String::from_utf8(shown).unwrap(), toml);
    let (status, _) = put(&gateway, "/v1/config/save", "", b"");
    assert_eq!((status, std::fs::read_to_string(&gateway.file).unwrap()), (200, toml));
    std::fs::write(&gateway.file, toml::to_string(&document()).unwrap()).unwrap();
    assert_eq!(change(&gateway, Method::POST, "/v1/reload", None), Ok(3));
    assert_eq!(get::<Value>(&gateway, "/v1/config"), document());
}

/// What is probably not meant is told to whoever changes it, not only to the log.
#[test]
fn warnings_come_with_the_answer() {
    let gateway = FakeGateway::start();
    let mut wanted = document();
    wanted["service"][1]["real_server"] = json!([]);
    let body = wanted.to_string().into_bytes();
    for path in ["/v1/config?check=true", "/v1/config"] {
        let answer = send(&gateway, Method::PUT, path, Some(("application/json", body.clone()))).unwrap();
        let applied: view::Applied = serde_json::from_slice(&answer).unwrap();
        assert_eq!(applied.warnings, [view::Fault::new("service[1].real_server", "empty")], "{path}");
    }
    let answer = send(&gateway, Method::POST, "/v1/reload", None).unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), r#"{"generation":3}"#);
}

/// A local address that was removed and has no lease left is given up although nobody changes anything.
#[test]
fn what_is_used_no_more_is_given_up_unasked() {
    let gateway = FakeGateway::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let given = || gateway.snapshots.lock().unwrap().clone();
    runtime.block_on(gateway.plane.keep_house());
    assert!(given().is_empty(), "nothing to give up");
    gateway.unused.store(1, Ordering::Relaxed);
    runtime.block_on(gateway.plane.keep_house());
    runtime.block_on(gateway.plane.keep_house());
    let given = given();
    assert_eq!(given.len(), 1);
    // Both workers hold it and control shows it.
    assert_eq!(given[0].strong_count(), 3);
    assert_eq!(gateway.plane.running().snapshot.generation, 1, "the configuration is the same");
    assert!(std::ptr::eq(given[0].as_ptr(), &*gateway.plane.running().snapshot));
}

/// Something was given up while a change was only checked: the workers still hear of it.
#[test]
fn a_check_does_not_hide_what_is_used_no_more() {
    let gateway = FakeGateway::start();
    gateway.unused.store(1, Ordering::Relaxed);
    assert_eq!(change(&gateway, Method::PUT, "/v1/config?check=true", Some(document())), Ok(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(gateway.plane.keep_house());
    let given = gateway.snapshots.lock().unwrap().clone();
    assert_eq!(given.iter().filter(|snapshot| snapshot.strong_count() == 3).count(), 1);
}

#[test]
fn an_address_conflict_is_logged_once() {
    let gateway = FakeGateway::start();
    let log = Log::of_this_process();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for _ in 0..3 {
        runtime.block_on(gateway.plane.keep_house());
    }
    let text = log.text();
    let told: Vec<&str> =
        text.lines().filter(|line| line.contains("claims an address of the gateway")).collect();
    assert!(
        told.iter().any(|line| line.contains("address=10.1.0.100") && line.contains("02:00:00:00:00:cc")),
        "{text}"
    );
    // Two workers saw it; other tests of this process have gateways of their own.
    if std::env::var_os("NEXTEST").is_some() {
        assert_eq!(told.len(), 1, "{text}");
    }
}

#[test]
fn replaced_snapshots_are_freed() {
    let gateway = FakeGateway::start();
    for weight in 1..=20 {
        change(&gateway, Method::POST, &format!("{SERVER}/weight"), Some(json!({"weight": weight}))).unwrap();
    }
    let snapshots = gateway.snapshots.lock().unwrap();
    assert_eq!(snapshots.len(), 20);
    assert_eq!(snapshots.iter().filter(|snapshot| snapshot.strong_count() > 0).count(), 1);
}

#[test]
fn conformance_n3_bad_bodies_are_refused_and_the_socket_lives() {
    let gateway = FakeGateway::start();
    let good = document().to_string();
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let mut corpus: Vec<Vec<u8>> = [
        b"".as_slice(),
        b"{",
        b"[1,]",
        b"\xff\xfe{}",
        b"{\"service\": \"a\0b\"}",
        b"NaN",
        b"{\"a\": 1e999}",
        b"{\"a\": \"\\ud800\"}",
        br#"{"dataplane": {"workers": 2}, "dataplane": {"workers": 2}}"#,
        b"null null",
        &deep,
    ]
    .map(<[u8]>::to_vec)
    .into();
    corpus.extend((1..good.len()).step_by(7).map(|len| good.as_bytes()[..len].to_vec()));
    for body in &corpus {
        let (status, text) = put(&gateway, "/v1/config", "application/json", body);
        assert_eq!((status, problem(&text).status), (400, 400), "{:.60}", String::from_utf8_lossy(body));
    }
    // Well-formed, but no configuration.
    for body in ["null", "[]", "\"a\"", "1"] {
        assert_eq!(put(&gateway, "/v1/config", "application/json", body.as_bytes()).0, 422, "{body}");
    }
    let weight = format!("{SERVER}/weight");
    for body in
        [r#"{"weight": -1}"#, r#"{"weight": 65536}"#, r#"{"weight": "1"}"#, "{}", r#"{"weight": 1, "x": 2}"#]
    {
        let (status, text) = put(&gateway, &weight, "application/json", body.as_bytes());
        assert_eq!((status, problem(&text).errors.len()), (400, 1), "{body}");
    }
    for body in [b"\xff".as_slice(), b"a = ", b"[[service]]\nname = \"a\"\nname = \"b\""] {
        let (status, text) = put(&gateway, "/v1/config", "application/toml", body);
        assert!(status == 400 || status == 422, "{status}");
        problem(&text);
    }
    assert_eq!(put(&gateway, "/v1/config", "text/html", good.as_bytes()).0, 415);
    assert_eq!(get::<Value>(&gateway, "/v1/config"), document());
    assert_eq!(get::<view::Version>(&gateway, "/v1/version").generation, 1);
}

#[test]
fn conformance_n4_huge_bodies_are_cut_off() {
    let gateway = FakeGateway::start();
    let (status, text) = put(&gateway, "/v1/config", "application/json", &vec![b' '; 5 << 20]);
    assert_eq!((status, problem(&text).status), (413, 413));
    // The same without an announced length: an endless stream of chunks.
    let mut stream = UnixStream::connect(&gateway.socket).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"PUT /v1/config HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let chunk = [b"10000\r\n".to_vec(), vec![b'['; 0x10000], b"\r\n".to_vec()].concat();
    let sent = (0..1024).take_while(|_| stream.write_all(&chunk).is_ok()).count();
    assert!(sent < 80, "the gateway took {sent} chunks of 64 KiB");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    // Endless headers.
    let endless = [b"GET /v1/version HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 1 << 20]].concat();
    assert_eq!(raw(&gateway, &endless).0, 431);
    assert_eq!(get::<view::Version>(&gateway, "/v1/version").generation, 1);
}

#[test]
fn http_mistakes_are_answered() {
    let gateway = FakeGateway::start();
    let request = |line: &str| {
        raw(&gateway, format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
    };
    let (status, body) = request("DELETE /v1/version");
    assert_eq!((status, problem(&body).status), (405, 405));
    let (status, body) = request("GET /v1/services/%ff");
    assert_eq!((status, problem(&body).status), (400, 400));
    let (status, body) = request("GET /v1/config?format=xml");
    assert_eq!((status, problem(&body).status), (400, 400));
    assert_eq!(raw(&gateway, b"nonsense\r\n\r\n").0, 400);
    assert_eq!(raw(&gateway, b"\0\0\0\0").0, 400);
}

#[test]
fn conformance_n5_slow_clients_delay_nobody() {
    let gateway = FakeGateway::start();
    // More than may be open: half of a header, half of a body, an answer that is never read, silence.
    let mut slow = Vec::new();
    for i in 0..600 {
        let mut stream = UnixStream::connect(&gateway.socket).unwrap();
        let part: &[u8] = match i % 4 {
            0 => b"GET /v1/version HT",
            1 => b"PUT /v1/config HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
            2 => b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
            _ => b"",
        };
        // The gateway may have made room by closing it already.
        let _ = stream.write_all(part);
        slow.push(stream);
    }
    for _ in 0..20 {
        let before = Instant::now();
        assert_eq!(get::<view::Version>(&gateway, "/v1/version").generation, 1);
        assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    }
    change(&gateway, Method::POST, &format!("{SERVER}/drain"), None).unwrap();
    drop(slow);
}

#[test]
fn conformance_n7_a_change_outlives_its_client() {
    let gateway = FakeGateway::start();
    let body = r#"{"weight": 42}"#;
    let request = format!(
        "POST {SERVER}/weight HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    // Broken off before its end: never applied.
    for len in (0..request.len()).step_by(5) {
        let mut stream = UnixStream::connect(&gateway.socket).unwrap();
        stream.write_all(&request.as_bytes()[..len]).unwrap();
    }
    assert_eq!(get::<view::Version>(&gateway, "/v1/version").generation, 1);
    // Gone while the workers are being told: applied all the same.
    gateway.asleep.store(true, Ordering::Relaxed);
    let mut stream = UnixStream::connect(&gateway.socket).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    while gateway.snapshots.lock().unwrap().is_empty() {
        thread::yield_now();
    }
    drop(stream);
    gateway.asleep.store(false, Ordering::Relaxed);
    while get::<view::Version>(&gateway, "/v1/version").generation == 1 {
        thread::yield_now();
    }
    assert_eq!(get::<view::Service>(&gateway, "/v1/services/web").real_servers[0].weight, 42);
}

/// What this process logs, all tests together.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn of_this_process() -> Log {
        static LOG: LazyLock<Log> = LazyLock::new(|| {
            let log = Log::default();
            let writer = log.clone();
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
            log
        });
        LOG.clone()
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn conformance_n10_every_change_is_audited_and_conformance_n9_on_one_line() {
    let log = Log::of_this_process();
    let gateway = FakeGateway::start();
    let marked = "/v1/services/audit%0Ame%1B/real-servers/10.2.0.11:8080/drain";
    assert_eq!(change(&gateway, Method::POST, marked, None).unwrap_err().status, 404);
    get::<view::Version>(&gateway, "/v1/version");
    // The line is written before the answer is sent.
    let log = log.text();
    let line = log.lines().find(|line| line.contains("audit%0Ame")).unwrap_or_else(|| panic!("{log}"));
    for part in [
        format!("uid={}", nix::unistd::geteuid()),
        format!("pid={}", std::process::id()),
        "method=POST".to_owned(),
        "status=404".to_owned(),
        "There is no service".to_owned(),
    ] {
        assert!(line.contains(&part), "{part} is not in {line}");
    }
    assert!(!log.contains('\u{1b}'));
    assert!(!log.contains("/v1/version"));
}

#[test]
fn a_stuck_worker_is_named() {
    let gateway = FakeGateway::start();
    gateway.asleep.store(true, Ordering::Relaxed);
    let refused = change(&gateway, Method::POST, &format!("{SERVER}/drain"), None).unwrap_err();
    assert_eq!(refused.status, 503);
    assert!(refused.detail.contains("worker 0, 1"), "{}", refused.detail);
    gateway.asleep.store(false, Ordering::Relaxed);
    assert_eq!(change(&gateway, Method::POST, &format!("{SERVER}/undrain"), None), Ok(3));
}
