"""Start, end, and everything that can be wrong with either."""

import os
import pathlib
import socket
import subprocess
import time

import pytest

from rig import gateway as gateways
from rig.capture import Capture
from rig.frames import ARP, IP, UDP, Ether
from rig.lab import CIP, LIPS, LIPS6, RAW_SERVER, RIPS, VIP, VIP6, WAN
from rig.netns import wait_until
from rig.wire import Wire

pytestmark = [pytest.mark.daemon, pytest.mark.usefixtures("spoil")]


def run_daemon(lab, *arguments, wrap=(), timeout=20):
    """Runs fullnatd to its own end."""
    return lab.gateway.run(*wrap, "ip", "netns", "exec", lab.gateway.name, gateways.binary("fullnatd"), *arguments,
                           check=False, timeout=timeout)


def write(lab, settings, name="other.toml"):
    path = lab.directory / name
    path.write_text(gateways.toml({**settings, "control": {"socket": str(lab.directory / "other.sock")}}))
    return path


def traces(lab):
    """What a gateway may leave on the machine."""
    found = {f"/run {p}" for root in ("/var/run/dpdk", "/run/dpdk") for p in pathlib.Path(root).glob(f"fn-{os.getpid()}*")}
    found |= {f"socket {p}" for p in lab.directory.glob("*.sock*")}
    found |= {f"file {p}" for p in pathlib.Path("/dev/shm").glob("*fn-*")}
    links = lab.gateway.run("ip", "-o", "link").stdout
    found |= {f"interface {line.split()[1]}" for line in links.splitlines()
              if line.split()[1].split("@")[0].rstrip(":") not in ("lo", "gw-wan", "gw-lan", "sit0", "ip6tnl0", "tunl0",
                                                                    "gre0", "gretap0", "erspan0", "ip_vti0",
                                                                    "ip6_vti0", "ip6gre0")}
    return found


def stopped(lab):
    """No gateway runs and nothing of an earlier one is left."""
    if lab.current and lab.current.running():
        lab.current.stop()


@pytest.mark.parametrize("loaded", [False, True], ids=["idle", "under-load"])
def test_conformance_M14_sigterm_ends_within_a_second_and_leaves_nothing(start, lab, workers, loaded):
    stopped(lab)
    before = traces(lab)
    gateway = start(gateways.config(workers), watch=False)
    load = None
    if loaded:
        load = lab.client.start("wrk", "-t1", "-c16", "-d10s", f"http://{VIP}/", stdout=subprocess.DEVNULL)
        wait_until(lambda: gateway.control.counter("sessions_live") > 10, 5, "load")
    status, took = gateway.stop()
    if load:
        load.terminate()
    assert status == 0, gateway.output()
    assert took < 1, f"{took:.2f} s"
    assert traces(lab) == before


def test_conformance_M13_killed_it_starts_again_without_cleaning_up(start, lab, workers):
    settings = gateways.config(workers)
    gateway = start(settings, watch=False)
    with lab.client.connect(VIP, 9000) as connection:
        connection.sendall(b"stay\n")
        assert connection.recv(100)
        gateway.kill()
        assert gateway.socket.exists(), "the stale socket is part of the test"
        start(settings, watch=False, forget=False)
        # A segment of a session nobody knows any more is answered, not swallowed.
        connection.settimeout(3)
        connection.sendall(b"anyone?")
        with pytest.raises(ConnectionResetError):
            connection.recv(100)
    with lab.client.connect(VIP, 9000) as connection:
        connection.sendall(b"who\n")
        assert connection.recv(100)


def one_sentence(done):
    """The program said what is wrong in one line and ended with a status other than 0."""
    said = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode not in (0, 101, -6, -11), (done.returncode, done.stderr)
    assert "panicked" not in done.stderr
    assert said, done.stdout
    return said


def test_conformance_M17_an_unknown_device_is_named(lab):
    stopped(lab)
    before = traces(lab)
    settings = gateways.config(devices=(gateways.af_packet(0, "no-such-if", 1), gateways.af_packet(1, "gw-lan", 1)))
    said = one_sentence(run_daemon(lab, "--config", write(lab, settings)))
    assert "no-such-if" in said[-1], said
    assert traces(lab) == before


def test_conformance_M17_hugepages_that_are_not_there(lab):
    stopped(lab)
    before = traces(lab)
    settings = gateways.config(eal=["--no-pci", f"--file-prefix=fn-{os.getpid()}"], huge_pages="on")
    if int(pathlib.Path("/proc/sys/vm/nr_hugepages").read_text()) > 0:
        pytest.skip("this machine has hugepages")
    said = one_sentence(run_daemon(lab, "--config", write(lab, settings)))
    assert "huge" in said[-1].lower(), said
    assert traces(lab) == before


def test_conformance_M17_privileges_that_are_missing(lab):
    stopped(lab)
    path = write(lab, gateways.config())
    # As the same user but without any capability: the packet sockets cannot be opened.
    done = lab.gateway.run("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "--clear-groups",
                           gateways.binary("fullnatd"), "--config", path, check=False)
    if "Permission denied" in done.stderr and "fullnatd" in done.stderr and done.returncode == 126:
        pytest.skip("the build directory is not readable by others")
    one_sentence(done)


def test_a_bad_argument_of_dpdk_is_reported(lab):
    stopped(lab)
    one_sentence(run_daemon(lab, "--config", write(lab, gateways.config(eal=["--no-such-option"]))))


def test_conformance_M7_mistakes_are_reported_with_their_place(lab):
    settings = gateways.config()
    settings["service"][0]["listen"] = "10.1.0.100:99999"
    settings["service"][1]["local_pool"] = "nowhere"
    settings["port"][0]["addresses"] = ["10.1.0.254/33"]
    path = write(lab, settings)
    for arguments in (("--config", path, "--check"), ("--config", path)):
        done = run_daemon(lab, *arguments)
        text = "\n".join(one_sentence(done))
        for place in ("service[0].listen", "service[1].local_pool", "port[0].addresses"):
            assert place in text, text
    missing = run_daemon(lab, "--config", lab.directory / "no-such-file.toml")
    assert "no-such-file.toml" in one_sentence(missing)[-1]


def test_check_says_what_a_configuration_needs_and_starts_nothing(lab):
    stopped(lab)
    before = traces(lab)
    done = run_daemon(lab, "--config", write(lab, gateways.config(2)), "--check")
    assert done.returncode == 0, done.stderr
    assert "memory" in done.stdout.lower() or "MiB" in done.stdout
    assert traces(lab) == before


def test_a_second_gateway_on_the_same_socket_is_refused(gateway, lab):
    settings = gateways.config(eal=["--no-pci", "--no-huge", "-m", "256", f"--file-prefix=fn-{os.getpid()}-b"])
    path = lab.directory / "second.toml"
    path.write_text(gateways.toml({**settings, "control": {"socket": str(gateway.socket)}}))
    one_sentence(run_daemon(lab, "--config", path))
    assert gateway.control.alive(), "the first one keeps its socket"
    with lab.client.connect(VIP, 9000) as connection:
        connection.sendall(b"who\n")
        assert connection.recv(100)


def test_conformance_B5_every_address_is_announced_at_start(start, lab, workers):
    stopped(lab)
    wan = Capture(lab.client, "eth0")
    lan = Capture(lab.servers["rs1"], "eth0")
    try:
        start(gateways.config(workers), watch=False)

        def announced(capture):
            v4 = {p[ARP].psrc for p in capture.received(lambda p: ARP in p and p[ARP].psrc == p[ARP].pdst)}
            from scapy.layers.inet6 import ICMPv6ND_NA
            return v4 | {p[ICMPv6ND_NA].tgt for p in capture.received(lambda p: ICMPv6ND_NA in p)}

        wait_until(lambda: {VIP, VIP6, WAN} <= announced(wan), 3, lambda: f"on the wan: {announced(wan)}")
        wait_until(lambda: {*LIPS, *LIPS6} <= announced(lan), 3, lambda: f"on the lan: {announced(lan)}")
    finally:
        wan.stop()
        lan.stop()


def test_conformance_B5_an_address_added_is_announced(gateway, lab):
    wan = Capture(lab.client, "eth0")
    try:
        changed = gateway.control.get("/v1/config")
        changed["service"].append(gateways.service("late", "10.1.0.101:80", 8080))
        gateway.control.put_config(changed)
        wan.wait_for(lambda p: ARP in p and p[ARP].psrc == p[ARP].pdst == "10.1.0.101", 2, "gratuitous ARP of 10.1.0.101")
    finally:
        wan.stop()


def test_conformance_B11_packets_wait_for_a_neighbour_in_order(start, lab, workers):
    """The first packets to a real server nobody knows yet: ARP is asked, the packets wait, then come in order."""
    stopped(lab)
    gateway = start(gateways.config(workers))
    wire = Wire(lab)
    try:
        asked = []
        answer = wire.server._answer
        wire.server._answer = lambda packet: asked.append(packet) if ARP in packet else answer(packet)
        for number in range(5):
            wire.client.send(wire.from_client() / UDP(sport=21000, dport=7000) / bytes([number]))
        wire.server.wait_for(lambda p: ARP in p and p[ARP].op == 1 and p[ARP].pdst == RAW_SERVER, 2, "who-has")
        wait_until(lambda: gateway.control.counter("held_packets") == 5, 2, "five held packets")
        wire.server._answer = answer
        for packet in asked:
            answer(packet)
        seen = [bytes(wire.at_server(UDP)[UDP].payload)[0] for _ in range(5)]
        assert seen == [0, 1, 2, 3, 4]
        assert gateway.control.counter("held_packets") == 0
    finally:
        wire.close()


def test_conformance_B11_a_neighbour_that_never_answers_is_reported(start, lab, workers):
    stopped(lab)
    services = [{**gateways.service("ghost", f"{VIP}:7000", 7000, protocol="udp", client_address="none"),
                 "real_server": [{"address": "10.2.0.200:7000"}]}]
    gateway = start({**gateways.config(workers, services), "neighbours": {"retransmit_millis": 100, "probes": 3}})
    wire = Wire(lab)
    try:
        wire.client.send(wire.from_client() / UDP(sport=21001, dport=7000) / b"anyone?")
        wait_until(lambda: gateway.control.drops().get("neighbour_unreachable", 0) == 1, 5, "the drop")
        from scapy.layers.inet import ICMP
        error = wire.at_client(ICMP)
        assert (error[ICMP].type, error[ICMP].code, error[IP].dst) == (3, 1, wire.cip)
        assert gateway.control.counter("held_packets") == 0
    finally:
        wire.close()


def announce(namespace, address):
    """Gratuitous ARP as keepalived sends it: what the kernel says by itself is up to `arp_notify`."""
    mac = namespace.mac("eth0")
    with namespace.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("eth0", 0))
        sender.send(bytes(Ether(src=mac, dst="ff:ff:ff:ff:ff:ff")
                          / ARP(op=1, hwsrc=mac, psrc=address, hwdst="00:00:00:00:00:00", pdst=address)))


def test_conformance_B7_a_real_server_with_a_new_mac_is_followed(gateway, lab):
    server = lab.servers["rs1"]
    old = server.mac("eth0")
    connections = [lab.client.connect(VIP, 9000) for _ in range(8)]
    try:
        for connection in connections:
            connection.sendall(b"echo\n")
        server.run("ip", "link", "set", "dev", "eth0", "address", "02:00:00:00:0b:07")
        announce(server, RIPS["rs1"])
        for connection in connections:
            started = time.monotonic()
            connection.sendall(b"still?")
            assert connection.recv(6) == b"still?"
            assert time.monotonic() - started < 2
    finally:
        server.run("ip", "link", "set", "dev", "eth0", "address", old)
        announce(server, RIPS["rs1"])
        for connection in connections:
            connection.close()


def test_conformance_I15_an_idle_session_that_expired_is_reset_not_swallowed(start, lab, workers):
    gateway = start({**gateways.config(workers), "timeouts": {"tcp_established_secs": 1}})
    with lab.client.connect(VIP, 9000) as connection:
        connection.sendall(b"echo\n")
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        mine = f"{CIP}:{connection.getsockname()[1]}"
        wait_until(lambda: not gateway.control.sessions(client=mine), 10, "expiry")
        connection.sendall(b"late")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_conformance_K1_a_datagram_session_lives_as_long_as_it_is_told(start, lab, workers):
    gateway = start({**gateways.config(workers), "timeouts": {"udp_secs": 1}})
    with lab.client.connect(VIP, 9000):
        pass

    with lab.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((VIP, 9000))
        client.send(b"x")
        client.recv(100)
        mine = f"{CIP}:{client.getsockname()[1]}"
        assert len(gateway.control.sessions(client=mine, protocol="udp")) == 1
        started = time.monotonic()
        wait_until(lambda: not gateway.control.sessions(client=mine, protocol="udp"), 5, "expiry")
        assert 0.5 < time.monotonic() - started < 3
