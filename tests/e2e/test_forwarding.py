"""Real clients, real servers: what a user sees of the gateway."""

import contextlib
import errno
import re
import socket
import subprocess
import threading
import time

import pytest
from scapy.utils import wrpcap

from rig import machine
from rig.dimensions import OFFLOADS, VIPS, paired
from rig.frames import TCP, packed, toa_of, toa_options
from rig.gateway import config, service
from rig.lab import CIP, CIP6, INSIDE, LAN, LAN6, LIPS, LIPS6, RIPS6, VIP, VIP6, WAN, WAN6
from rig.netns import family_of, wait_until

# (where the client dials, its address, what the real server may see as source)
WAYS = {
    "v4": (f"http://{VIP}/", CIP, LIPS),
    "v6": (f"http://[{VIP6}]/", CIP6, LIPS6),
    "6to4": (f"http://[{VIP6}]:8064/", CIP6, LIPS),
    "4to6": (f"http://{VIP}:8046/", CIP, LIPS6),
    "router-v4": (f"http://{VIP}:81/", CIP, LIPS),
    "router-v6": (f"http://[{VIP6}]:81/", CIP6, LIPS6),
}
CROSSING = {"6to4", "4to6"}


def curl(namespace, url, *options):
    return namespace.run("curl", "-sS", "--max-time", 5, *options, url).stdout.split()


@pytest.mark.parametrize("way", [pytest.param(w, marks=pytest.mark.daemon if w in CROSSING else ()) for w in WAYS])
def test_conformance_P1_curl_reaches_nginx_from_a_local_address(gateway, lab, way):
    url, _, lips = WAYS[way]
    answers = [curl(lab.client, url) for _ in range(4)]
    assert all(source in lips for _, source, _ in answers)
    names = {name for name, _, _ in answers}
    assert names == ({"rs3"} if "router" in way else {"rs1", "rs2"})


@pytest.mark.parametrize("offloads", [True], ids=["offloads"])
@pytest.mark.parametrize("way", ["v4", "v6"])
def test_conformance_G7_curl_with_peers_that_leave_checksums_to_a_device(gateway, lab, way):
    before = [ns.counters("TcpInCsumErrors", "TcpInErrs") for ns in (lab.client, *lab.servers.values())]
    for _ in range(4):
        assert curl(lab.client, WAYS[way][0])[1] in WAYS[way][2]
    after = [ns.counters("TcpInCsumErrors", "TcpInErrs") for ns in (lab.client, *lab.servers.values())]
    assert before == after


def to_server(packet, port):
    return TCP in packet and packet[TCP].dport == port


@pytest.mark.daemon
@pytest.mark.parametrize("way", ["v4", "v6", "6to4", "4to6"])
def test_conformance_J1_toa_names_the_client_on_the_documented_packets(gateway, lab, way):
    url, cip, _ = WAYS[way]
    cport = int(curl(lab.client, url, "-w", "%{local_port}")[-1])
    gateway.watch.stop()
    packets = [f.packet for c in gateway.watch.servers.values() for f in c.frames if not f.outgoing]
    packets = [p for p in packets if to_server(p, 8080)]
    assert packets, "no segment reached a real server"
    syn = [p for p in packets if p[TCP].flags.S]
    isn = None
    for capture in gateway.watch.servers.values():
        for frame in capture.frames:
            packet = frame.packet
            if frame.outgoing and TCP in packet and packet[TCP].sport == 8080 and packet[TCP].flags == "SA":
                isn = packet[TCP].seq
    before_payload = [p for p in packets if p[TCP].flags.S or (p[TCP].ack - isn) % 2**32 <= 1]
    later = [p for p in packets if p not in before_payload]
    assert syn and len(before_payload) >= 3 and later
    for packet in before_payload:
        assert toa_of(packet) == (cip, cport), packet.summary()
        assert len(toa_options(packet)) == 1
        assert packet[TCP].options[0][0] == 254, "TOA comes first among the options"
    assert not any(toa_options(p) for p in later if not p[TCP].flags.R)


@pytest.mark.daemon
@pytest.mark.parametrize("way", ["v4", "v6", "6to4", "4to6"])
def test_conformance_J1_tshark_reads_the_client_from_toa(gateway, lab, way):
    """Another foreign parser than scapy: what tshark shows of the segment that ends the handshake."""
    url, cip, _ = WAYS[way]
    cport = int(curl(lab.client, url, "-w", "%{local_port}")[-1])
    gateway.watch.stop()
    capture = lab.directory / "toa.pcap"
    wrpcap(str(capture), [f.packet for c in gateway.watch.servers.values() for f in c.frames if not f.outgoing])
    shown = subprocess.run(
        ["tshark", "-r", capture, "-Y", "tcp.dstport == 8080 && tcp.flags == 0x010", "-T", "fields",
         "-e", "tcp.option_kind", "-e", "tcp.options"], capture_output=True, text=True, check=True).stdout
    kinds, options = shown.splitlines()[0].split("\t")
    address = packed(cip)
    assert kinds.split(",")[0] == "254"
    assert bytes.fromhex(options.replace(":", "")).startswith(
        bytes([254, 4 + len(address)]) + cport.to_bytes(2, "big") + address)


@OFFLOADS
@VIPS
def test_dig(gateway, lab, vip):
    for name, kind, expected in (("a.example", "A", "192.0.2.1"), ("b.example", "AAAA", "2001:db8::1")):
        answer = lab.client.run("dig", "+short", "+tries=1", "+time=2", f"@{vip}", name, kind).stdout.split()
        assert answer == [expected]
    if vip == VIP:
        assert lab.client.run("dig", "+short", "+tcp", "+tries=1", f"@{vip}", "c.example").stdout.split() == ["192.0.2.1"]


def test_a_dialled_port_of_a_range_answers_from_that_port(gateway, lab):
    for port in (1010, 1013, 1019):
        with lab.client.connect(VIP, port) as connection:
            assert connection.getpeername()[1] == port
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert b"200 OK" in connection.recv(4096)


@OFFLOADS
@VIPS
def test_udp_echo(gateway, lab, vip):
    lips = LIPS if vip == VIP else LIPS6
    seen = set()
    for number in range(8):
        with lab.client.socket(family_of(vip), socket.SOCK_DGRAM) as client:
            client.connect((vip, 9000))
            for size in (0, 1, 2, 511, 512, 1400):
                payload = bytes([number]) * size
                client.send(payload)
                answer = client.recv(2048)
                name, source, _ = answer.split(b" ", 3)[:3]
                assert answer.endswith(payload) and source.decode() in lips
            seen.add(name)
    assert seen == {b"rs1", b"rs2"}


@pytest.mark.daemon
def test_a_datagram_through_families(start, lab, workers):
    gateway = start(config(workers, [
        service("echo64", f"[{VIP6}]:9000", 9000, protocol="udp", client_address="none"),
        service("echo46", f"{VIP}:9000", 9000, table=RIPS6, protocol="udp", client_address="none"),
    ]))
    for kind, vip, lips in ((socket.AF_INET6, VIP6, LIPS), (socket.AF_INET, VIP, LIPS6)):
        with lab.client.socket(kind, socket.SOCK_DGRAM) as client:
            client.connect((vip, 9000))
            client.send(b"hello")
            answer = client.recv(2048)
            assert answer.split()[1].decode() in lips and answer.endswith(b"hello")
    assert gateway.running()


@OFFLOADS
@pytest.mark.parametrize("url", [f"http://{VIP}/big", f"http://[{VIP6}]/big"], ids=["v4", "v6"])
def test_a_megabyte_arrives_as_it_was(gateway, lab, url):
    done = lab.client.run("sh", "-c", f"curl -sS --max-time 20 '{url}' | sha256sum")
    expected = lab.client.run("sha256sum", lab.directory / "rs1" / "big").stdout.split()[0]
    assert done.stdout.split()[0] == expected


@OFFLOADS
@VIPS
def test_conformance_H10_same_source_port_to_two_services_of_one_server(gateway, lab, vip):
    source = ("", 50999)
    with lab.client.connect(vip, 80, source=source) as one, lab.client.connect(vip, 9000, source=source) as other:
        one.sendall(b"GET / HTTP/1.0\r\n\r\n")
        other.sendall(b"who\n")
        assert b"200 OK" in one.recv(4096)
        assert other.recv(4096).startswith(b"rs")


def test_conformance_I16_a_real_server_that_refuses_is_heard_at_once(gateway, lab):
    with pytest.raises(ConnectionRefusedError):
        lab.client.connect(VIP, 82, timeout=2)


def test_conformance_F13_port_unreachable_of_a_udp_server_reaches_the_client(gateway, lab):
    with lab.client.socket(socket.AF_INET, socket.SOCK_DGRAM, timeout=2) as client:
        client.connect((VIP, 82))
        client.send(b"anyone?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)


def test_conformance_C9_a_port_without_service_is_refused(gateway, lab):
    for vip in (VIP, VIP6):
        with pytest.raises(ConnectionRefusedError):
            lab.client.connect(vip, 4444, timeout=2)
        kind = socket.AF_INET6 if ":" in vip else socket.AF_INET
        with lab.client.socket(kind, socket.SOCK_DGRAM, timeout=2) as client:
            client.connect((vip, 4444))
            client.send(b"anyone?")
            with pytest.raises(ConnectionRefusedError):
                client.recv(100)


def test_conformance_F1_ping_of_every_size(gateway, lab):
    for vip in (VIP, VIP6):
        # The last fills a frame of 1,500 bytes: 1,472 with IPv4, 1,452 with IPv6.
        for size in (0, 8, 56, 1400, 1452 if ":" in vip else 1472):
            lab.client.run("ping", "-c", 3, "-i", 0.01, "-W", 2, "-s", size, vip)
    for namespace, own in ((lab.client, (WAN, WAN6)), (lab.servers["rs1"], (LAN, LAN6))):
        for address in own:
            namespace.run("ping", "-c", 3, "-i", 0.01, "-W", 2, address)


@pytest.mark.daemon
@pytest.mark.hairpin
def test_conformance_H13_a_real_server_is_a_client_of_the_vip(gateway, lab):
    for name in ("rs1", "rs2"):
        for url in (f"http://{VIP}/", f"http://[{VIP6}]/"):
            answered = {curl(lab.servers[name], url)[0] for _ in range(4)}
            assert answered == {"rs1", "rs2"}, "scheduled to itself and to the other"


@pytest.mark.daemon
@OFFLOADS
@VIPS
def test_dns_like_pairs_use_one_session_conformance_H11(gateway, lab, vip):
    """Two datagrams of a new 5-tuple back to back, as a resolver sends A and AAAA."""
    for _ in range(200):
        with lab.client.socket(family_of(vip), socket.SOCK_DGRAM) as client:
            client.connect((vip, 9000))
            client.send(b"A")
            client.send(b"AAAA")
            first, second = client.recv(100), client.recv(100)
            assert first.rsplit(b" ", 1)[0] == second.rsplit(b" ", 1)[0]
            assert {first.rsplit(b" ", 1)[1], second.rsplit(b" ", 1)[1]} == {b"A", b"AAAA"}


@pytest.mark.bulk
@paired
@pytest.mark.parametrize("ends", ["by-reset", "server-first"])
def test_conformance_I9_the_same_client_port_again_and_again(gateway, lab, vip, ends):
    """A client that reuses its port at once is served at once: no first SYN is dropped."""
    # Neither end leaves a TIME_WAIT at the client: reset as a restarted client would, or the server has it.
    cport, word = (51000, b"stay\n") if ends == "by-reset" else (51001, b"who\n")
    before, waits = repeated_syns(lab), []

    def connect():
        try:
            return connects.measure(lambda: lab.client.connect(vip, 9000, source=("", cport)))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            return None  # the client's last FIN is not acknowledged yet

    with machine.Timed(0.01, gateway.process, *lab.peers.values()) as connects:
        for _ in range(500):
            closed = time.monotonic()
            with wait_until(connect, 3, "the end of the connection before") as connection:
                waits.append(time.monotonic() - closed)
                connection.sendall(word)
                assert connection.recv(100)
                if ends == "by-reset":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                else:
                    assert connection.recv(100) == b""
    assert repeated_syns(lab) == before, "neither a SYN nor the answer to one had to be sent twice"
    # A kernel sends a FIN or an acknowledgement of one that was lost again after 200 ms.
    assert machine.percentile(waits, 0.99) < 0.15, machine.summary(waits)
    connects.check(share=0.99)


def repeated_syns(lab):
    """How many SYNs and answers to them each end has sent twice so far."""
    return [end.counters("TcpExtTCPSynRetrans") for end in (lab.client, *lab.servers.values())]


@contextlib.contextmanager
def fast_open(lab):
    """TCP Fast Open at the client, and a listener of rs1 that takes data in a SYN and answers as a web server would."""
    server = lab.servers["rs1"]
    for namespace in (lab.client, server):
        namespace.sysctl("net.ipv4.tcp_fastopen", 3)
        namespace.sysctl("net.ipv4.tcp_fastopen_blackhole_timeout_sec", 0)
    listener = server.socket(socket.AF_INET6)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::", 8088))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
    listener.listen(16)
    listener.settimeout(None)

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nfast\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
        for namespace in (lab.client, server):
            namespace.sysctl("net.ipv4.tcp_fastopen", 1)
        lab.client.run("ip", "tcp_metrics", "flush", check=False)


@pytest.mark.daemon
@paired
def test_conformance_I18_data_in_a_syn_and_its_repetition_without_data(start, lab, workers, vip):
    """One local address: a real server's cookie is for the address that it saw."""
    six = ":" in vip
    url = f"http://{f'[{vip}]' if six else vip}:8088/"
    start(config(workers, [service("fast", url[7:-1], 8088, ("rs1",), RIPS6 if six else None)],
                 lips=[LIPS6[0] if six else LIPS[0]]))
    client, server = ("TcpExtTCPFastOpenActive", "TcpExtTCPFastOpenActiveFail"), ("TcpExtTCPFastOpenPassive",)

    def moved():
        now = {**lab.client.counters(*client), **lab.servers["rs1"].counters(*server)}
        return tuple(now[name] - before[name] for name in (*client, *server))

    with fast_open(lab):
        before = {**lab.client.counters(*client), **lab.servers["rs1"].counters(*server)}
        assert curl(lab.client, url, "--tcp-fastopen") == ["fast"]
        assert moved() == (0, 0, 0), "the first one only asks for a cookie"
        assert curl(lab.client, url, "--tcp-fastopen") == ["fast"]
        assert moved() == (1, 0, 1), "data in the SYN, taken from it"
        # A hop beyond the gateway that lets no SYN with data pass: it comes again without.
        lab.switch.nft("""table netdev no_data_in_syn { chain arriving {
            type filter hook ingress device "uplink" priority 0;
            tcp flags & (syn | ack) == syn meta length > 110 counter drop
        }
        }""")
        try:
            assert curl(lab.client, url, "--tcp-fastopen") == ["fast"]
            listed = lab.switch.run("nft", "list", "table", "netdev", "no_data_in_syn").stdout
            assert re.search(r"counter packets [1-9]", listed), "a SYN with data was lost"
        finally:
            lab.switch.run("nft", "delete", "table", "netdev", "no_data_in_syn")


@pytest.mark.daemon
@pytest.mark.parametrize("vip,gateway_address,table", [(VIP, WAN, None), (VIP6, WAN6, RIPS6)], ids=["v4", "v6"])
def test_conformance_F11_tracepath_shows_the_gateway_and_nothing_behind_it(start, lab, workers, vip, gateway_address, table):
    """To a port of a real server behind a router that nobody listens on: three hops, of which two are hidden.

    That no address of the inside stands anywhere in what the client sees is looked at after every test.
    """
    six = ":" in vip
    start(config(workers, [service("trace", f"{f'[{vip}]' if six else vip}:33434-33533", 9, ("rs3",), table, protocol="udp",
                                   client_address="none")]))
    report = lab.client.run("tracepath", "-6" if six else "-4", "-n", "-m", 8, "-p", 33434, vip, timeout=30).stdout
    hops = {}
    for number, address in re.findall(r"^\s*(\d+):\s+(\S+)", report, re.MULTILINE):
        hops.setdefault(int(number), address)
    assert hops[1] in (vip, gateway_address), report
    assert hops[2] == hops[3] == vip and "reached" in report, report
    assert not [address for address in INSIDE if re.search(rf"(?<![\w:.]){re.escape(address)}(?![\w:.])", report)], report


def test_many_clients_at_once(gateway, lab):
    """500 connections held open together all answer."""
    connections = [lab.client.connect(VIP, 9000) for _ in range(500)]
    try:
        for connection in connections:
            connection.sendall(b"stay\n")
        answers = [connection.recv(100) for connection in connections]
        assert all(answers)
        # (real server, LIP, lport) names each of them.
        assert len(set(answers)) == 500
    finally:
        for connection in connections:
            connection.close()


def test_conformance_B12_neighbours_forgotten_by_the_peers_are_answered_again(gateway, lab):
    lab.forget_neighbours()
    for vip in (VIP, VIP6):
        with lab.client.connect(vip, 9000) as connection:
            connection.sendall(b"who\n")
            assert connection.recv(100)
