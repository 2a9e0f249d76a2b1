//! What a wrong start is answered with: one sentence that names what is wrong, and nothing left behind. DPDK starts
//! once per process, so each case is a child of this test's own executable.
#![cfg(feature = "dpdk")]

use std::process::Command;

use fullnat::config::buffers::data_room;
use fullnat::dpdk::{Device, Eal, Mempool, allowed_cores};

const CHILD: &str = "FULLNAT_TEST_REFUSAL";
const SEPARATOR: char = '\u{1f}';

/// The child of the other tests, which are nothing without it: starts DPDK with the words before the separator `|`, then
/// the devices behind it. By itself it has nothing to do.
#[test]
fn child() {
    let Ok(words) = std::env::var(CHILD) else { return };
    let (words, devices) = words.split_once('|').expect("two parts");
    let split =
        |list: &str| list.split(SEPARATOR).filter(|w| !w.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let devices = split(devices);
    let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
    match start(&split(words), &devices) {
        Ok(()) => eprintln!("started"),
        Err(sentence) => eprintln!("refused: {sentence}"),
    }
}

fn start(words: &[String], devices: &[&str]) -> Result<(), String> {
    let eal = Eal::init(words, allowed_cores()[0], devices).map_err(|error| error.to_string())?;
    let _devices: Vec<Device> = devices
        .iter()
        .map(|device| Device::probe(&eal, device))
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    Mempool::create(&eal, "packets", 4096, data_room(1500), None).map_err(|error| error.to_string())?;
    Ok(())
}

/// What the child printed on stderr after its test harness's own lines, and its process id's traces.
fn refusal(words: &[&str], devices: &[&str]) -> String {
    let separator = SEPARATOR.to_string();
    let child = Command::new(std::env::current_exe().expect("this executable"))
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{}|{}", words.join(&separator), devices.join(&separator)))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("started");
    let id = child.id();
    let output = child.wait_with_output().expect("ended");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{stderr}");
    // The test harness's frame is all that stdout holds: no usage, no log.
    assert!(!stdout.contains("EAL"), "{stdout}");
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 1, "one sentence: {stderr}");
    for parent in ["/var/run/dpdk", "/tmp/dpdk"] {
        let left = std::path::Path::new(parent).join(format!("fullnatd-{id}"));
        assert!(!left.exists(), "{} was left behind", left.display());
    }
    lines[0].to_owned()
}

const SMALL: [&str; 3] = ["--no-huge", "-m", "64"];

#[test]
fn a_start_without_hugepages_is_quiet_and_leaves_nothing() {
    // What a killed gateway left: no process has an id above 2^22.
    let stale = std::path::Path::new("/var/run/dpdk/fullnatd-4194305");
    let root = nix::unistd::geteuid().is_root();
    if root {
        std::fs::create_dir_all(stale).expect("made");
    }
    assert_eq!(refusal(&SMALL, &["net_ring0"]), "started");
    assert!(!root || !stale.exists(), "it is still there");
}

#[test]
fn arguments_that_dpdk_does_not_know_are_named() {
    for (words, named) in [
        (&["--no-huge", "--foo"][..], "--foo"),
        (&["--no-huge", "-m"], "-- 'm'"),
        (&["--no-huge", "--iova-mode=sideways"], "iova-mode"),
        (&["--no-huge", "-h"], "`-h`"),
        (&["--no-huge", "--in-memory"], "--in-memory"),
    ] {
        let sentence = refusal(words, &[]);
        assert!(sentence.starts_with("refused: dataplane.eal") && sentence.contains(named), "{sentence}");
    }
}

#[test]
fn devices_that_are_not_there_are_named() {
    for (device, named) in [
        ("net_af_packet0,iface=no-such-iface0", "no-such-iface0"),
        ("net_af_xdp0,iface=no-such-iface0", "no-such-iface0"),
        ("net_pcap0,rx_pcap=/no/such/file", "/no/such/file"),
        ("ffff:ff:1f.7", "dpdk-devbind.py"),
        ("net_nothing0", "net_nothing"),
        ("two words", "PCI address"),
    ] {
        let sentence = refusal(&SMALL, &[device]);
        assert!(sentence.starts_with("refused: device") && sentence.contains(named), "{sentence}");
    }
    let sentence = refusal(&SMALL, &["net_ring0", "net_ring0"]);
    assert!(sentence.contains("already in use"), "{sentence}");
}

#[test]
fn too_little_memory_says_how_much_is_needed() {
    let sentence = refusal(&["--no-huge", "-m", "4"], &[]);
    assert!(sentence.contains("4096 packet buffers") && sentence.contains("\"-m\""), "{sentence}");
}
