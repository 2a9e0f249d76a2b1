"""Start, end, and everything that can be wrong with either."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import pytest

from rig import gateway as gateways
from rig import machine
from rig.capture import Capture
from rig.control import Control
from rig.frames import ARP, ICMP, IP, UDP, Ether
from rig.gateway import end_gateway
from rig.lab import CIP, LIPS, LIPS6, RAW_SERVER, RIPS, VIP, VIP6, WAN
from rig.netns import stop, wait_until
from rig.wire import Wire

pytestmark = [pytest.mark.daemon, pytest.mark.usefixtures("spoil")]


def run_daemon(lab, *arguments, inner=(), timeout=20):
    """Runs fullnatd to its own end, by the command `inner` if there is one."""
    return lab.gateway.run("ip", "netns", "exec", lab.gateway.name, *inner, gateways.binary("fullnatd"), *arguments,
                           check=False, timeout=timeout)


def write(lab, settings, name="other.toml"):
    path = lab.directory / name
    path.write_text(gateways.toml({**settings, "control": {"socket": str(lab.directory / "other.sock")}}))
    return path


KERNELS_OWN = ("lo", "gw-wan", "gw-lan", "sit0", "ip6tnl0", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0",
               "ip6gre0")


def traces(lab):
    """What a gateway may leave on the machine: files, sockets, interfaces, XDP programs, changed offloads."""
    found = {f"socket {path}" for path in lab.directory.glob("*.sock*")}
    for directory in ("/var/run/dpdk", "/tmp/dpdk", "/dev/hugepages", "/dev/shm"):
        found |= {f"file {path}" for path in pathlib.Path(directory).glob("*") if not somebody_elses(path.name)}
    for link in json.loads(lab.gateway.run("ip", "-j", "-d", "link").stdout):
        if link["ifname"] not in KERNELS_OWN:
            found.add(f"interface {link['ifname']}")
        if "xdp" in link:
            found.add(f"XDP program on {link['ifname']}")
        if link.get("promiscuity"):
            found.add(f"{link['ifname']} is promiscuous")
    for interface in ("gw-wan", "gw-lan"):
        features = lab.gateway.run("ethtool", "-k", interface).stdout
        found |= {f"{interface} {line}" for line in features.splitlines() if line.startswith("generic-receive-offload")}
    return found


# Once somebody else's, a name stays so: the process may end, or only have got the number of one that left its files.
FOREIGN = set()


def somebody_elses(name):
    """Whether a name bears the number of a process that runs, or ran: another program of DPDK on this machine."""
    if any(os.path.exists(f"/proc/{number}") for number in re.findall(r"\d+", name) if number != str(os.getpid())):
        FOREIGN.add(name)
    return name in FOREIGN


@pytest.fixture
def no_traces(lab):
    """No gateway runs, and nothing of one is there afterwards that was not there before."""
    end_gateway(lab)
    for interface in ("gw-wan", "gw-lan"):
        # A gateway that was killed left it so; one that ends is told apart from that.
        lab.gateway.run("ip", "link", "set", "dev", interface, "promisc", "off")
    before = traces(lab)
    yield
    end_gateway(lab)
    assert traces(lab) == before


@pytest.mark.parametrize("loaded", [False, True], ids=["idle", "under-load"])
def test_conformance_M14_sigterm_ends_within_a_second_and_leaves_nothing(no_traces, start, lab, workers, loaded):
    def seconds_to_end():
        gateway = start(gateways.config(workers), watch=False)
        load = None
        if loaded:
            load = lab.client.start("wrk", "-t1", "-c16", "-d10s", f"http://{VIP}/", stdout=subprocess.DEVNULL)
            wait_until(lambda: gateway.control.counter("sessions_live") > 10, 5, "load")
        status, took = gateway.stop()
        if load:
            load.terminate()
        assert status == 0, gateway.output()
        return took

    # It takes a third of that. Where the machine had others to serve meanwhile it is asked again: a fault repeats.
    times = []
    while not times or times[-1] >= 1:
        assert len(times) < 3, times
        times.append(seconds_to_end())


def test_conformance_M14_a_second_sigterm_ends_it_at_once(start, lab):
    def ended_by_the_second():
        gateway = start(gateways.config(), watch=False)
        gateway.expected_end = True
        gateway.process.terminate()
        wait_until(lambda: "stopping" in gateway.output(), 1, "the first one to be heard")
        gateway.process.terminate()
        status = gateway.process.wait(1)
        assert status in (0, -signal.SIGTERM), gateway.output()
        return status != 0

    # Status 0: it had tidied up before the second one came, which happens to a test that had to wait for a CPU.
    assert any(ended_by_the_second() for _ in range(5)), "the second one is not heard"
    # What it had no time to tidy up holds up nobody.
    start(gateways.config(), watch=False)


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


def one_sentence(done, mistakes=1):
    """The program said what is wrong, one line for each mistake, and ended with a status other than 0."""
    said = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert "panicked" not in done.stderr
    assert [line.startswith("fullnatd: ") for line in said].count(True) == 1, done.stderr
    assert said[-mistakes].startswith("fullnatd: "), done.stderr
    return "\n".join(said[-mistakes:])


@pytest.mark.usefixtures("no_traces")
def test_conformance_M17_an_unknown_device_is_named(lab):
    # The first port is there already when the second one turns out not to exist.
    settings = gateways.config(devices=(gateways.af_packet(0, "gw-wan", 1), gateways.af_packet(1, "no-such-if", 1)))
    assert "no-such-if" in one_sentence(run_daemon(lab, "--config", write(lab, settings)))


@pytest.mark.usefixtures("no_traces")
def test_conformance_M17_hugepages_that_are_not_there(lab):
    with machine.huge_pages(0):
        settings = gateways.config(eal=["--no-pci", f"--file-prefix=fn-{os.getpid()}"], huge_pages="on")
        said = one_sentence(run_daemon(lab, "--config", write(lab, settings)))
    assert "no hugepages are reserved" in said and "/proc/sys/vm/nr_hugepages" in said, said


@pytest.mark.usefixtures("no_traces")
def test_more_sessions_than_there_is_memory_for_are_refused_at_start(lab):
    said = one_sentence(run_daemon(lab, "--config", write(lab, gateways.config(sessions_max=1 << 30))))
    assert "sessions_max" in said and re.search(r"needs \d+ MiB of memory and the machine has \d+ MiB", said), said


PRIVILEGES = [
    ("net_af_packet", "net_raw,net_admin,sys_admin,ipc_lock", "CAP_NET_RAW"),
    ("net_af_packet", "net_admin,sys_admin", "CAP_NET_ADMIN"),
    ("net_af_packet", "ipc_lock", "CAP_IPC_LOCK"),
    ("net_af_xdp", "net_raw", "CAP_NET_RAW"),
    ("net_af_xdp", "net_admin", "CAP_NET_ADMIN"),
    ("net_af_xdp", "sys_admin", "CAP_SYS_ADMIN"),
    ("net_af_xdp", "ipc_lock", "CAP_IPC_LOCK"),
    ("net_tap", "net_admin,sys_admin", "CAP_NET_ADMIN"),
    ("net_pcap", "net_raw", "CAP_NET_RAW"),
]


@pytest.mark.usefixtures("no_traces")
@pytest.mark.parametrize("driver,without,named", PRIVILEGES)
def test_conformance_M17_privileges_that_are_missing(lab, driver, without, named):
    """Everything root has but some capabilities."""
    arguments = ",framecnt=4096" if driver == "net_af_packet" else ""
    devices = [f"{driver}{n},iface={'tap' if driver == 'net_tap' else 'gw'}-{side}{arguments}"
               for n, side in enumerate(("wan", "lan"))]
    path = write(lab, gateways.config(devices=devices))
    dropped = ",".join(f"-{capability}" for capability in without.split(","))
    done = run_daemon(lab, "--config", path,
                      inner=("prlimit", f"--memlock={8 << 20}", "setpriv", f"--bounding-set={dropped}",
                             f"--inh-caps={dropped}"))
    said = one_sentence(done)
    assert f"{driver}0: " in said and named in said, said


@pytest.mark.usefixtures("no_traces")
def test_a_bad_argument_of_dpdk_is_reported(lab):
    said = one_sentence(run_daemon(lab, "--config", write(lab, gateways.config(eal=["--no-such-option"]))))
    assert "no-such-option" in said, said
    said = one_sentence(run_daemon(lab, "--config", write(lab, gateways.config(eal=["-d", "librte_net_pcap.so"]))))
    assert "plug-in" in said and "FULLNAT_DPDK=shared" in said, said


@pytest.mark.usefixtures("no_traces")
def test_conformance_M7_mistakes_are_reported_with_their_place(lab):
    settings = gateways.config()
    settings["service"][0]["listen"] = "10.1.0.100:99999"
    settings["service"][1]["local_pool"] = "nowhere"
    settings["port"][0]["addresses"] = ["10.1.0.254/33"]
    path = write(lab, settings)
    for arguments in (("--config", path, "--check"), ("--config", path)):
        text = one_sentence(run_daemon(lab, *arguments), mistakes=3)
        for place in ("service[0].listen", "service[1].local_pool", "port[0].addresses"):
            assert place in text, text
    missing = run_daemon(lab, "--config", lab.directory / "no-such-file.toml")
    assert "no-such-file.toml" in one_sentence(missing)


@pytest.mark.usefixtures("no_traces")
def test_check_says_what_a_configuration_needs_and_starts_nothing(lab):
    done = run_daemon(lab, "--config", write(lab, gateways.config(2)), "--check")
    assert done.returncode == 0, done.stderr
    assert "memory" in done.stdout.lower() and "MiB" in done.stdout


@pytest.mark.usefixtures("no_traces")
def test_a_gateway_outlives_those_who_read_its_output(lab):
    """Its log on a full disk, or nobody at the other end of a pipe: what it says is lost, and it goes on."""
    path, control = write(lab, gateways.config()), Control(lab.directory / "other.sock")
    command = ("ip", "netns", "exec", lab.gateway.name, gateways.binary("fullnatd"), "--config", path)
    read, unread = os.pipe()
    os.close(read)
    for nowhere in (os.open("/dev/full", os.O_WRONLY), unread):
        process = lab.gateway.start(*command, stdout=nowhere, stderr=nowhere, stdin=subprocess.DEVNULL)
        os.close(nowhere)
        wait_until(lambda process=process: process.poll() is not None or control.alive(), 20, "the start")
        if process.poll() is None:
            control.put_config(control.get("/v1/config"))  # which is told in the log
            assert control.alive()
        assert stop(process, 5) == 0


@pytest.mark.usefixtures("no_traces")
def test_what_check_cannot_say_is_no_success(lab):
    path = write(lab, gateways.config())
    said = one_sentence(run_daemon(lab, "--config", path, "--check", inner=("sh", "-c", 'exec "$@" >/dev/full', "sh")))
    assert "cannot write the output" in said, said


def test_it_has_dpdk_within(gateway):
    """Loaded beside it as well, as a driver's plug-in would, DPDK would be there twice."""
    mapped = pathlib.Path(f"/proc/{gateway.process.pid}/maps").read_text()
    assert "libpcap" in mapped and "librte" not in mapped


def test_a_second_gateway_on_the_same_socket_is_refused(gateway, lab):
    settings = gateways.config(eal=["--no-pci", "--no-huge", "-m", "256", f"--file-prefix=fn-{os.getpid()}-b"])
    path = lab.directory / "second.toml"
    path.write_text(gateways.toml({**settings, "control": {"socket": str(gateway.socket)}}))
    before = traces(lab)
    assert str(gateway.socket) in one_sentence(run_daemon(lab, "--config", path))
    assert traces(lab) == before
    assert gateway.control.alive(), "the first one keeps its socket"
    with lab.client.connect(VIP, 9000) as connection:
        connection.sendall(b"who\n")
        assert connection.recv(100)


def test_conformance_B5_every_address_is_announced_at_start(start, lab, workers):
    end_gateway(lab)
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
    end_gateway(lab)
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
    end_gateway(lab)
    services = [{**gateways.service("ghost", f"{VIP}:7000", 7000, protocol="udp", client_address="none"),
                 "real_server": [{"address": "10.2.0.200:7000"}]}]
    gateway = start({**gateways.config(workers, services), "neighbours": {"retransmit_millis": 100, "probes": 3}})
    wire = Wire(lab)
    try:
        wire.client.send(wire.from_client() / UDP(sport=21001, dport=7000) / b"anyone?")
        # The client answers for its own address only while it waits: the error has to reach it.
        error = wire.at_client(ICMP, seconds=5)
        assert (error[ICMP].type, error[ICMP].code, error[IP].dst) == (3, 1, wire.cip)
        assert gateway.control.drops().get("neighbour_unreachable") == 1
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
        mine = f"{CIP}:{client.getsockname()[1]}"
        started = time.monotonic()
        client.send(b"x")
        client.recv(100)
        assert gateway.control.counter("sessions_created") == 2
        wait_until(lambda: not gateway.control.sessions(client=mine, protocol="udp"), 5, "expiry")
        # Its clock goes in hundredths of a second.
        assert 0.99 <= time.monotonic() - started < 3
