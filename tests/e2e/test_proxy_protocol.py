"""Real servers that are told the client by PROXY protocol: unmodified nginx and HAProxy, and one that speaks first."""

import collections
import concurrent.futures
import ipaddress
import socket

import pytest

from rig import gateway as gateways
from rig.disorder import Disorder
from rig.gateway import service
from rig.lab import LIPS, LIPS6, RIPS6, VIP, VIP6
from rig.netns import family_of
from rig.proxy_clients import NGINX_SAYS, ask_http, ask_peer, discarded_sacks
from rig.servers import start_haproxy, start_nginx, start_proxy_peer

pytestmark = pytest.mark.daemon

NGINX, HAPROXY, PEER = 8100, 8101, 8102
SERVERS = {"nginx": NGINX, "haproxy": HAPROXY, "peer": PEER}
VERSIONS = {"v1": 10000, "v2": 20000}
"""where each version's services listen: so far from the servers' own ports, and 1000 more across families"""
ACROSS = 1000
WAYS = {"v4": (VIP, 0), "v6": (VIP6, 0), "4to6": (VIP, ACROSS), "6to4": (VIP6, ACROSS)}
UDP_FIRST, UDP_EACH = 20000 + PEER, 20100 + PEER


def services():
    every = []
    for version, base in VERSIONS.items():
        for name, port in SERVERS.items():
            names = ("rs1",) if name == "haproxy" else ("rs1", "rs2")
            for way, (vip, across) in WAYS.items():
                inside_v6 = (family_of(vip) == socket.AF_INET6) != bool(across)
                listen = f"[{vip}]" if family_of(vip) == socket.AF_INET6 else vip
                every.append(service(f"{name}-{version}-{way}", f"{listen}:{base + across + port}", port, names,
                                     RIPS6 if inside_v6 else None, client_address=f"proxy-{version}"))
    for name, port, proxy in (("first", UDP_FIRST, {}), ("each", UDP_EACH, {"proxy": {"each_datagram": True}})):
        for family, vip, table in (("v4", VIP, None), ("v6", f"[{VIP6}]", RIPS6)):
            every.append(service(f"{name}-{family}", f"{vip}:{port}", PEER, ("rs1",), table, protocol="udp",
                                 client_address="proxy-v2", **proxy))
    return every


def place(name, version, way):
    vip, across = WAYS[way]
    return vip, VERSIONS[version] + across + SERVERS[name]


ALL_PLACES = [place(name, version, way) for name in SERVERS for version in VERSIONS for way in WAYS]


@pytest.fixture(scope="module")
def inside(whole_lab):
    started = []
    try:
        for name in ("rs1", "rs2"):
            namespace, directory = whole_lab.servers[name], whole_lab.directory / f"{name}-proxied"
            listen = f"listen {NGINX} backlog=4096 proxy_protocol; listen [::]:{NGINX} backlog=4096 proxy_protocol;"
            started.append((namespace, start_nginx(namespace, name, directory, NGINX, listen, client=NGINX_SAYS)))
            started.append((namespace, start_proxy_peer(namespace, PEER)))
        rs1 = whole_lab.servers["rs1"]
        started.append((rs1, start_haproxy(rs1, whole_lab.directory / "haproxy", HAPROXY)))
        yield
    finally:
        for namespace, process in started:
            process.kill()
            process.wait()
            namespace.processes.remove(process)


@pytest.fixture
def gateway(start, inside, workers):
    return start(gateways.config(workers, services()))


def ask(lab, vip, port, **more):
    return (ask_peer if port % 1000 == PEER % 1000 else ask_http)(lab, vip, port, **more)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SERVERS)
def test_real_servers_are_told_the_client_and_what_it_dialled(gateway, lab, name, version):
    for way in WAYS:
        for _ in range(2):
            mine, told = ask(lab, *place(name, version, way))
            assert told == mine, way
            assert told[0][0] not in map(ipaddress.ip_address, LIPS + LIPS6)


@pytest.mark.parametrize("workers", [2], ids=["2workers"])
def test_ten_thousand_connections_and_no_mismatch(gateway, lab):
    sent = gateway.control.counter("proxy_sent")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda at: ask(lab, *ALL_PLACES[at % len(ALL_PLACES)]), range(10_000)))
    assert collections.Counter(mine == told for mine, told in results) == {True: 10_000}
    assert gateway.control.counter("proxy_sent") - sent == 10_000


@pytest.mark.bulk
def test_headers_that_are_lost_come_again_and_every_byte_arrives(gateway, lab):
    """Loss and reordering on both sides of the gateway; the server speaks first, and sends back what it got."""
    again = gateway.control.counter("proxy_sent_again")
    places = [place("peer", version, way) for version in VERSIONS for way in WAYS]
    ends = (lab.client, lab.servers["rs1"], lab.servers["rs2"])
    discarded = discarded_sacks(ends)
    shares = {"lost": 40, "late": 40}
    with Disorder(lab.switch, "br1", ("client", "wan"), **shares) as outside, \
            Disorder(lab.switch, "br0", ("uplink", "rs1", "rs2"), **shares) as within:
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            results = list(pool.map(lambda at: ask_peer(lab, *places[at % len(places)], size=60_000, timeout=60),
                                    range(120)))
        counts = {**outside.counts(), **within.counts()}
    assert all(mine == told for mine, told in results)
    assert all(counts.values()), counts
    assert gateway.control.counter("proxy_sent_again") > again
    assert discarded_sacks(ends) <= discarded, "a SACK outside the window"


@pytest.mark.parametrize("vip", [VIP, VIP6], ids=["v4", "v6"])
def test_datagrams_carry_the_header_first_or_each(gateway, lab, vip):
    for port, has_header in ((UDP_FIRST, [True, False, False]), (UDP_EACH, [True, True, True])):
        with lab.client.socket(family_of(vip), socket.SOCK_DGRAM) as client:
            client.connect((vip, port))
            me = "%s %d" % client.getsockname()[:2]
            for number, due in enumerate(has_header):
                client.send(b"question %d" % number)
                prefix = f"{me} {vip} {port}" if due else "-"
                assert client.recv(2048).decode() == f"{prefix} question {number}"
