"""Local ports: few of them, used up, used again."""

import concurrent.futures
import socket

import pytest

from rig import gateway as gateways
from rig import machine
from rig.dimensions import OFFLOADS, VIPS, paired
from rig.lab import CIP, CIP6, LIPS, LIPS6, RIPS6, VIP, VIP6
from rig.netns import wait_until

pytestmark = pytest.mark.daemon
PORTS = "30000-30019"


def narrow(workers, vip=VIP):
    """One local address with 20 ports towards one real server."""
    if vip == VIP:
        services = [gateways.service("peer", f"{VIP}:9000", 9000, ("rs1",))]
        return gateways.config(workers, services, PORTS, [LIPS[0]])
    services = [gateways.service("peer6", f"[{VIP6}]:9000", 9000, ("rs1",), RIPS6)]
    return gateways.config(workers, services, PORTS, [LIPS6[0]])


@OFFLOADS
@VIPS
@pytest.mark.usefixtures("spoil")
def test_conformance_H4_twenty_ports_forty_held_connections(start, lab, workers, vip):
    gateway = start(narrow(workers, vip))
    held = []

    def refusal():
        with pytest.raises(ConnectionRefusedError):
            held.append(lab.client.connect(vip, 9000, timeout=3))

    try:
        for _ in range(20):
            held.append(lab.client.connect(vip, 9000, timeout=3))
        with machine.Timed(0.010, gateway.process) as refusals:
            for _ in range(20):
                refusals.measure(refusal)
        refusals.check()
        assert gateway.control.drops().get("no_local_port") == 20
        answers = set()
        for connection in held:
            connection.sendall(b"stay\n")
            answers.add(connection.recv(100))
        assert len(answers) == 20, "every port once"
        # Recovery: a port given back serves the next client within a second.
        held.pop().close()

        def connects():
            try:
                held.append(lab.client.connect(vip, 9000, timeout=1))
                return True
            except ConnectionRefusedError:
                return False

        wait_until(connects, 1, "a connection after one was closed")
    finally:
        for connection in held:
            connection.close()


@pytest.mark.usefixtures("spoil")
def test_conformance_H2_every_port_of_the_range_is_used(start, lab, workers):
    gateway = start(narrow(workers))
    held = []
    try:
        for _ in range(40):
            try:
                held.append(lab.client.connect(VIP, 9000, timeout=3))
            except ConnectionRefusedError:
                pass
        ports = sorted(int(s["local"].rpartition(":")[2]) for s in gateway.control.sessions(client=CIP)
                       if s["state"] == "ESTABLISHED")
        assert ports == list(range(30000, 30020))
    finally:
        for connection in held:
            connection.close()


@pytest.mark.long
@pytest.mark.bulk
@pytest.mark.timeout(300)
@paired
@pytest.mark.parametrize("closes_first", ["server", "client"])
@pytest.mark.usefixtures("spoil")
def test_conformance_H8_ten_thousand_sequential_connections_with_twenty_ports(start, lab, workers, vip, closes_first):
    gateway = start(narrow(workers, vip))
    word = b"who\n" if closes_first == "server" else b"stay\n"
    before = lab.client.counters("TcpExtTCPSynRetrans")
    with machine.Timed(0.05, gateway.process, lab.peers["rs1"]) as connects, lab.client.entered():
        for _ in range(10_000):
            with connects.measure(lambda: socket.create_connection((vip, 9000), timeout=3)) as connection:
                connection.sendall(word)
                assert connection.recv(100).startswith(b"rs1")
                if closes_first == "server":
                    assert connection.recv(100) == b""
    assert lab.client.counters("TcpExtTCPSynRetrans") == before, "no SYN had to be sent twice"
    connects.check()


@pytest.mark.usefixtures("spoil")
def test_conformance_M13_H8_connections_of_a_killed_gateway_hold_up_nobody(start, lab, workers):
    """The real server still has 20 connections on the 20 local ports of which the new gateway knows nothing."""
    settings = narrow(workers)
    gateway = start(settings, watch=False)
    old, new = [], []
    try:
        for _ in range(20):
            old.append(lab.client.connect(VIP, 9000))
            old[-1].sendall(b"stay\n")
            assert old[-1].recv(100)
        gateway.kill()
        gateway = start(settings, watch=False, forget=False)
        # The real server challenges the SYN, the client answers that with a RST and its SYN again, within moments.
        with machine.Timed(0.2, gateway.process, lab.peers["rs1"]) as connects:
            for _ in range(20):
                new.append(connects.measure(lambda: lab.client.connect(VIP, 9000, timeout=3)))
                new[-1].sendall(b"stay\n")
                assert new[-1].recv(100).startswith(b"rs1")
        connects.check()
    finally:
        for connection in old + new:
            connection.close()


@OFFLOADS
@pytest.mark.parametrize("vip,sources", [(VIP, ("10.1.0.2", CIP)), (VIP6, ("2001:db8:1::2", CIP6))], ids=["v4", "v6"])
def test_conformance_H10_same_source_port_of_two_clients(gateway, lab, vip, sources):
    lab.client.add_address("eth0", f"{sources[0]}/{64 if ':' in vip else 24}", on_request=True)
    with lab.client.connect(vip, 9000, source=(sources[0], 50500)) as one, \
            lab.client.connect(vip, 9000, source=(sources[1], 50500)) as other:
        for connection in (one, other):
            connection.sendall(b"stay\n")
        assert one.recv(100) != other.recv(100)


def test_conformance_H1_H3_leases_are_unique_and_answers_come_home(gateway, lab):
    """2,000 connections held together: the real servers see 2,000 different sources, and all of them answer."""
    def one(_):
        connection = lab.client.connect(VIP, 9000, timeout=10)
        connection.sendall(b"stay\n")
        return connection, connection.recv(100)

    pairs = [one(n) for n in range(2000)]
    try:
        assert len({answer for _, answer in pairs}) == 2000
        sessions = gateway.control.sessions(vip=f"{VIP}:9000", state="ESTABLISHED")
        tuples = {(s["protocol"], s["local"], s["real_server"]) for s in sessions}
        assert len(tuples) == len(sessions) >= 2000
        assert not set(gateway.control.drops()) & {"no_session_outbound", "hand_off_ring_full"}
    finally:
        for connection, _ in pairs:
            connection.close()


@pytest.mark.long
@pytest.mark.bulk
@paired
@pytest.mark.usefixtures("spoil")
def test_conformance_H9_timestamps_of_many_clients_never_trip_the_servers(start, lab, workers, vip):
    """Connections of eight client addresses, each with a clock of its own, over 20 shared ports."""
    start(narrow(workers, vip))
    sources = [f"2001:db8:1::{n}" if ":" in vip else f"10.1.0.{n}" for n in range(30, 38)]
    for source in sources:
        lab.client.add_address("eth0", f"{source}/{64 if ':' in vip else 24}", on_request=True)
    # The kernel gives every (client, server) pair a timestamp offset of its own (tcp_timestamps = 1).
    names = ("TcpExtPAWSEstab", "TcpExtListenDrops", "TcpExtPAWSActive")
    before = lab.servers["rs1"].counters(*names)
    with lab.client.entered():
        for number in range(2000):
            with socket.create_connection((vip, 9000), 3, (sources[number % 8], 0)) as connection:
                connection.sendall(b"who\n")
                assert connection.recv(100)
    assert lab.servers["rs1"].counters(*names) == before


def test_a_port_pool_of_many_threads(gateway, lab):
    """Clients that connect at the same moment from many threads."""
    def one(_):
        with lab.client.connect(VIP, 9000, timeout=5) as connection:
            connection.sendall(b"who\n")
            return connection.recv(100)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(400)))
