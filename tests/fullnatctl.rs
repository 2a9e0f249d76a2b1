//! `fullnatctl` as a process against a fake gateway: what it prints, and its exit status.

mod fake_gateway;

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use fake_gateway::{FakeGateway, document};
use serde_json::Value;

fn fullnatctl<I: IntoIterator<Item = A>, A: AsRef<OsStr>>(gateway: &FakeGateway, arguments: I) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fullnatctl"));
    command.env_clear().env("FULLNAT_SOCKET", &gateway.socket).args(arguments).output().unwrap()
}

/// Runs a command line that must succeed and gives back what it printed.
fn prints(gateway: &FakeGateway, line: &str) -> String {
    let output = fullnatctl(gateway, line.split(' '));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {:?}: {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn json(gateway: &FakeGateway, line: &str) -> Value {
    serde_json::from_str(&prints(gateway, line)).unwrap()
}

/// Runs a command line that must fail: its exit status and what it complained.
fn fails(gateway: &FakeGateway, line: &str) -> (i32, String) {
    let output = fullnatctl(gateway, line.split(' '));
    assert!(output.stdout.is_empty(), "{line} printed {:?}", String::from_utf8_lossy(&output.stdout));
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// The golden file reads like a terminal: each command line behind `$ fullnatctl `, then what it prints.
#[test]
fn tables_are_stable() {
    let gateway = FakeGateway::start();
    let golden = include_str!("golden/fullnatctl.txt");
    let lines = golden.lines().filter_map(|line| line.strip_prefix("$ fullnatctl "));
    let printed: String =
        lines.map(|line| format!("$ fullnatctl {line}\n{}", prints(&gateway, line))).collect();
    assert!(printed == golden, "tests/golden/fullnatctl.txt differs from what is printed:\n{printed}");
}

#[test]
fn everything_can_be_had_as_json() {
    let gateway = FakeGateway::start();
    for line in
        ["version", "ports", "workers", "services", "neighbours", "routes", "pools", "drops", "openapi"]
    {
        assert!(!json(&gateway, &format!("{line} --json")).is_null(), "{line}");
    }
    assert_eq!(json(&gateway, "services dns --json")["protocol"], "udp");
    assert_eq!(json(&gateway, "config show --json"), document());
    assert_eq!(json(&gateway, "drops --json"), json(&gateway, "drops --all --json"));
    assert_eq!(json(&gateway, "--json real-server drain web 10.2.0.11:8080")["generation"], 2);
    assert!(prints(&gateway, "metrics").ends_with("# EOF\n"));
    assert_eq!(json(&gateway, "openapi"), json(&gateway, "openapi --offline"));
}

/// The fake workers stand still: nothing is counted over any span, and nothing per packet is known.
#[test]
fn workers_are_shown_over_a_span() {
    let gateway = FakeGateway::start();
    let span = json(&gateway, "workers --seconds 1 --json");
    let whole = json(&gateway, "workers --json");
    assert_eq!((&span[0]["rx_packets"], &whole[0]["rx_packets"]), (&Value::from(0), &Value::from(1_000_000)));
    assert_eq!(span[0]["cycles_per_packet"], Value::Null);
    assert_eq!(span[0]["sessions_live"], whole[0]["sessions_live"]);
    let printed = prints(&gateway, "workers --seconds 1");
    let loads: Vec<&str> = printed.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(loads, [&["1"][..], &["-"; 11]].concat(), "{printed}");
}

#[test]
fn sessions_are_printed_as_they_come() {
    let gateway = FakeGateway::start();
    let all = json(&gateway, "sessions --all --json");
    assert_eq!(all["sessions"].as_array().unwrap().len(), 10_000);
    assert_eq!(prints(&gateway, "sessions --all").lines().count(), 10_001);
    assert_eq!(prints(&gateway, "sessions --limit 1500").lines().count(), 1501);
    assert_eq!(json(&gateway, "sessions --client 9.9.9.9 --json"), serde_json::json!({"sessions": []}));
    // One in each worker, found by the client that its front has named.
    let named = prints(&gateway, "sessions --client 203.0.113.7 --all");
    assert_eq!(named.lines().count(), 3);
    assert!(named.contains("203.0.113.7:40001 via 172.16.1.44:40000"), "{named}");
    let more = fullnatctl(&gateway, ["sessions"]);
    assert_eq!(String::from_utf8(more.stderr).unwrap(), "(there are more: --all shows them)\n");
}

#[test]
fn real_servers_are_managed() {
    let gateway = FakeGateway::start();
    for (line, printed) in [
        ("real-server add web 10.2.0.13:8080 --weight 9", "generation 2 is in force\n"),
        ("real-server drain web 10.2.0.11:8080", "generation 3 is in force\n"),
        ("real-server undrain web 10.2.0.11:8080", "generation 4 is in force\n"),
        ("real-server weight web 10.2.0.12:8080 3", "generation 5 is in force\n"),
        ("real-server remove web 10.2.0.13:8080", "generation 6 is in force\n"),
        ("real-server weight dns [2001:db8:2::53]:53 8", "generation 7 is in force\n"),
    ] {
        assert_eq!(prints(&gateway, line), printed);
    }
    let weights = |service: &str| {
        let service = json(&gateway, &format!("services {service} --json"));
        let servers = service["real_servers"].as_array().unwrap().iter();
        servers.map(|server| server["weight"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((weights("web"), weights("dns")), (vec![100, 3], vec![8]));
}

#[test]
fn configurations_are_shown_applied_and_saved() {
    let gateway = FakeGateway::start();
    let file = gateway.file.display().to_string();
    let shown = prints(&gateway, "config show");
    assert_eq!(toml::from_str::<Value>(&shown).unwrap(), document());
    let changed = shown.replace("weight = 100", "weight = 11");
    assert_ne!(shown, changed);
    std::fs::write(&gateway.file, &changed).unwrap();
    assert_eq!(prints(&gateway, &format!("config apply {file} --check")), "it can be applied\n");
    assert_eq!(prints(&gateway, "config show"), shown);
    assert_eq!(prints(&gateway, &format!("config apply {file}")), "generation 2 is in force\n");
    assert_eq!(prints(&gateway, "config show"), changed);
    assert_eq!(prints(&gateway, "real-server weight web 10.2.0.11:8080 12"), "generation 3 is in force\n");
    assert_eq!(prints(&gateway, "config save"), format!("saved to {file}\n"));
    assert!(std::fs::read_to_string(&gateway.file).unwrap().contains("weight = 12"));
    assert_eq!(prints(&gateway, "config reload --check"), "it can be applied\n");
    assert_eq!(prints(&gateway, "config reload"), "generation 4 is in force\n");

    let mut command = Command::new(env!("CARGO_BIN_EXE_fullnatctl"));
    command.args(["config", "apply", "-"]).env("FULLNAT_SOCKET", &gateway.socket);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(shown.as_bytes()).unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"generation 5 is in force\n");
    assert_eq!(prints(&gateway, "config show"), shown);
}

#[test]
fn refusals_have_status_1_and_name_every_place() {
    let gateway = FakeGateway::start();
    let (status, told) = fails(&gateway, "real-server weight web 10.2.0.11:8080 5000");
    assert_eq!(status, 1);
    let expected = "fullnatctl: refused: invalid configuration: The configuration is not valid; nothing was changed. \
                    Correct what is listed and send it again.\n  service[0].real_server[0].weight: write 0 to 1000\n";
    assert_eq!(told, expected);
    let (status, told) = fails(&gateway, "services none --json");
    assert_eq!((status, serde_json::from_str::<Value>(&told).unwrap()["status"].as_u64()), (1, Some(404)));
    // What a file says reaches the terminal without its escapes.
    let output = fullnatctl(&gateway, ["services", "a\n\u{1b}[2J"]);
    assert!(!String::from_utf8(output.stderr).unwrap().contains('\u{1b}'));
}

#[test]
fn wrong_usage_has_status_2() {
    let gateway = FakeGateway::start();
    for line in [
        "nonsense",
        "real-server weight web 10.2.0.11:8080 70000",
        "real-server drain web",
        "sessions --limit 0",
        "workers --seconds 0",
        "sessions --limit 5 --all",
        "config apply /nonexistent/file.toml",
    ] {
        assert_eq!(fails(&gateway, line).0, 2, "{line}");
    }
}

#[test]
fn an_unreachable_gateway_has_status_3_and_advice() {
    let gateway = FakeGateway::start();
    let (status, told) = fails(&gateway, "version --socket /nonexistent/control.sock");
    assert_eq!(status, 3);
    assert!(told.contains("/nonexistent/control.sock") && told.contains("is fullnatd running"), "{told}");
    let stale = gateway.file.with_extension("sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let (status, told) = fails(&gateway, &format!("version --socket {}", stale.display()));
    assert_eq!(status, 3);
    assert!(told.contains("start it again"), "{told}");
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let gateway = FakeGateway::start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fullnatctl"));
    command.args(["sessions", "--all"]).env("FULLNAT_SOCKET", &gateway.socket);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(output.stderr.is_empty(), "{:?}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_committed_openapi_document_is_current() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fullnatctl"));
    let built_in = command.args(["openapi", "--offline"]).output().unwrap().stdout;
    let committed = include_str!("../docs/openapi.json");
    assert!(
        committed.as_bytes() == built_in,
        "docs/openapi.json is out of date: run `cargo run --no-default-features --bin fullnatctl -- openapi --offline > docs/openapi.json`"
    );
}
