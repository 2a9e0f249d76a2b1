"""Fronts that name their clients by PROXY protocol: unmodified HAProxy and nginx, and another gateway; real servers that are
told by PROXY protocol and by TOA report the very client.

    client -> HAProxy, nginx (on the client's own host)  ─┐
    client -> a gateway of its own, one-armed on br1     ─┴-> the gateway -> rs1
"""

import collections
import concurrent.futures
import contextlib
import itertools
import os
import socket
import types

import pytest

from rig import gateway as gateways
from rig import receiver as receivers
from rig.disorder import Disorder
from rig.gateway import Fullnatd, af_packet, service
from rig.lab import CIP, LIPS, VIP
from rig.netns import Namespace, link, set_offloads, wait_until
from rig.proxy_clients import NGINX_SAYS, ask_http, ask_peer, discarded_sacks
from rig.receiver import Receiver, Unavailable
from rig.servers import start_nginx, start_proxy_peer

pytestmark = pytest.mark.daemon

NGINX, TOLD_BY_TOA, PEER = 8110, 8111, 8112
NGINX_V1 = 18110
"""where the services listen; the servers on the same, but for one of the two that tell nginx by a header"""
PLACES = {"header-v2": NGINX, "header-v1": NGINX_V1, "toa": TOLD_BY_TOA, "speaks-first": PEER}
# The fronts' own addresses, on the client's host and on a gateway.
FRONTS = {
    "haproxy": ("203.0.113.1", "2001:db8:f::1"),
    "nginx": ("203.0.113.2", "2001:db8:f::2"),
    "gateway": ("10.1.0.200", "2001:db8:1::200"),
}
FRONT_LIPS = "10.1.0.208/28"


def services():
    front = {"proxy_protocol_from": [CIP, FRONT_LIPS]}
    return [
        service("header-v2", f"{VIP}:{NGINX}", NGINX, ("rs1",), client_address="proxy-v2", **front),
        service("header-v1", f"{VIP}:{NGINX_V1}", NGINX, ("rs1",), client_address="proxy-v1", **front),
        service("toa", f"{VIP}:{TOLD_BY_TOA}", TOLD_BY_TOA, ("rs1",), **front),
        service("peer", f"{VIP}:{PEER}", PEER, ("rs1",), client_address="proxy-v2", **front),
        service("datagrams", f"{VIP}:{PEER}", PEER, ("rs1",), protocol="udp", client_address="proxy-v2",
                proxy={"each_datagram": True}, **front),
    ]


@pytest.fixture(scope="module")
def inside(whole_lab):
    """The real server: nginx that expects a header, nginx in the cgroup of a receiver, and one that speaks first."""
    receivers.remove_leftovers()
    rs1 = whole_lab.servers["rs1"]
    started = []
    try:
        receiver = Receiver("fronts")
    except Unavailable as missing:
        pytest.skip(f"no receiver here: {missing}")
    try:
        started.append(start_nginx(rs1, "rs1", whole_lab.directory / "rs1-fronted", NGINX,
                                   f"listen {NGINX} backlog=4096 proxy_protocol;", client=NGINX_SAYS))
        started.append(start_nginx(rs1, "rs1", whole_lab.directory / "rs1-fronted-toa", TOLD_BY_TOA,
                                   f"listen [::]:{TOLD_BY_TOA} ipv6only=off backlog=4096;", receiver.inside))
        started.append(start_proxy_peer(rs1, PEER))
        yield receiver
    finally:
        for process in started:
            process.kill()
            process.wait()
            rs1.processes.remove(process)
        receiver.close()


@pytest.fixture(scope="module")
def proxies(whole_lab):
    """HAProxy (version 2) and nginx (version 1) on the client's host, in front of each service."""
    client, directory = whole_lab.client, whole_lab.directory
    client.run("ip", "link", "set", "lo", "up")
    for addresses in (FRONTS["haproxy"], FRONTS["nginx"]):
        client.add_address("lo", f"{addresses[0]}/32", f"{addresses[1]}/128", on_request=True)
    haproxy, stream = directory / "front.cfg", directory / "front.conf"

    def binds(front, form):
        return [form.format(address) for address in (FRONTS[front][0], f"[{FRONTS[front][1]}]")]

    haproxy.write_text("global\n maxconn 4000\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n"
                       " timeout server 60s\n" + "".join(
        f"listen s{port}\n" + "".join(f" bind {bind}:{port}\n" for bind in binds("haproxy", "{}")) +
        f" server s {VIP}:{port} send-proxy-v2\n" for port in PLACES.values()))
    stream.write_text(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off; master_process off;\n"
        f"pid {directory}/front.pid; error_log {directory}/front.log;\nevents {{ worker_connections 8192; }}\nstream {{\n" +
        "".join(f" server {{ {' '.join(f'listen {bind}:{port} backlog=4096;' for bind in binds('nginx', '{}'))}"
                f" proxy_pass {VIP}:{port}; proxy_protocol on; }}\n" for port in PLACES.values()) + "}\n")
    started = []
    try:
        for argv in (("haproxy", "-db", "-q", "-f", haproxy), ("nginx", "-p", directory, "-c", stream)):
            started.append(client.start(*argv))
        wait_until(lambda: all(len(listeners(client, port)) == 4 for port in PLACES.values()), 10, "the fronts listen")
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
            client.processes.remove(process)
        for addresses in (FRONTS["haproxy"], FRONTS["nginx"]):
            client.run("ip", "address", "del", f"{addresses[0]}/32", "dev", "lo")
            client.run("ip", "address", "del", f"{addresses[1]}/128", "dev", "lo")


def listeners(namespace, port):
    return namespace.run("ss", "-Hltn", f"sport = :{port}").stdout.splitlines()


@pytest.fixture(scope="module")
def front_gateway(whole_lab):
    """A gateway in front of the gateway, in a namespace of its own on the client's side."""
    namespace = Namespace("front", ipv6=False)
    directory = whole_lab.directory / "front"
    directory.mkdir(exist_ok=True)
    lan = {"second": VIP}
    bracketed = f"[{FRONTS['gateway'][1]}]"
    versions = {"header-v2": "proxy-v1"}
    settings = {
        "dataplane": {"workers": 1, "eal": ["--no-pci", "--no-huge", "-m", "256", f"--file-prefix=fn-front-{os.getpid()}"],
                      "idle": "adaptive", "sessions_max": 16384, "mbufs": 16384},
        "port": [{"name": "wan", "device": af_packet(0, "gw-front", 1), "addresses": ["10.1.0.253/24", "2001:db8:1::fd/64"]}],
        "local_pool": [{"name": "lan-pool", "port": "wan", "addresses": [FRONT_LIPS]}],
        "service": [service(name, [f"{FRONTS['gateway'][0]}:{port}", f"{bracketed}:{port}"], port, ("second",), lan,
                            client_address=versions.get(name, "proxy-v2")) for name, port in PLACES.items()],
    }
    front = Fullnatd(types.SimpleNamespace(gateway=namespace, directory=directory), settings)
    try:
        link(namespace, "gw-front", whole_lab.switch, "front")
        whole_lab.switch.run("ip", "link", "set", "front", "master", "br1")
        set_offloads(namespace, "gw-front", False)
        front.start()
        yield front
        front.end()
    finally:
        namespace.delete()


@pytest.fixture
def receiver(inside):
    inside.attach("--trust", ",".join(LIPS))
    yield inside
    inside.run("detach", check=False)


@pytest.fixture
def gateway(start, inside, proxies, front_gateway, workers):
    return start(gateways.config(workers, services()))


def ask(lab, front, family, place, **more):
    way = ask_peer if place == "speaks-first" else ask_http
    return way(lab, FRONTS[front][family], PLACES[place], **more)


WAYS = list(itertools.product(FRONTS, (0, 1), PLACES))


@pytest.mark.parametrize("front", FRONTS)
def test_real_servers_are_told_the_client_that_the_front_named(gateway, lab, receiver, front):
    taken = gateway.control.counter("proxy_taken")
    for family, place in itertools.product((0, 1), PLACES):
        for _ in range(2):
            mine, told = ask(lab, front, family, place)
            assert told == mine, (family, place)
    assert gateway.control.counter("proxy_taken") - taken == 2 * 2 * len(PLACES)
    # TOA was in every handshake's last ACK.
    counts = receiver.counts()
    assert (counts["options"], counts["without_option"]) == (4, 0)


def test_thousands_of_connections_and_no_mismatch(gateway, lab, receiver):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda at: ask(lab, *WAYS[at % len(WAYS)]), range(1800)))
    assert collections.Counter(mine == told for mine, told in results) == {True: 1800}
    assert receiver.counts()["without_option"] == 0


@pytest.mark.bulk
def test_conformance_I20_what_is_said_behind_the_header_arrives_over_links_that_lose(gateway, lab):
    """Loss and reordering on both sides of the gateway; no side is told of a byte that it has not sent."""
    ends = (lab.client, lab.servers["rs1"])
    discarded = discarded_sacks(ends)
    shares = {"lost": 40, "late": 40}
    with Disorder(lab.switch, "br1", ("client", "wan"), **shares) as outside, \
            Disorder(lab.switch, "br0", ("uplink", "rs1"), **shares) as within:
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            results = list(pool.map(
                lambda front: ask(lab, front, 0, "speaks-first", size=60_000, timeout=60), list(FRONTS) * 24))
        counts = {**outside.counts(), **within.counts()}
    assert all(mine == told for mine, told in results)
    assert all(counts.values()), counts
    assert discarded_sacks(ends) <= discarded, "a SACK outside the window"


def test_sessions_are_listed_by_the_client_that_the_front_named(gateway, lab):
    def look(client):
        mine = "%s:%d" % client
        # Another front may have named a client with this very port a moment ago, whose session is over but not gone.
        session, = gateway.control.sessions(client=mine, state="ESTABLISHED")
        assert session["named_client"] == mine
        assert session["client"].startswith(f"{CIP}:")
        shown = gateway.fullnatctl("sessions", "--client", mine).stdout
        assert f"{mine} via {session['client']}" in shown

    ask(lab, "haproxy", 0, "speaks-first", meanwhile=look)


def test_datagrams_of_a_front_name_one_client_after_the_other(gateway, lab):
    with contextlib.closing(lab.client.socket(socket.AF_INET, socket.SOCK_DGRAM)) as front:
        front.connect((VIP, PEER))
        for number in (7, 7, 8):
            ends = socket.inet_aton(f"203.0.113.{number}") + socket.inet_aton("198.51.100.9")
            header = b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c" + ends + (40_000).to_bytes(2, "big") + (53).to_bytes(2, "big")
            front.send(header + b"question")
            assert front.recv(2048).decode() == f"203.0.113.{number} 40000 198.51.100.9 53 question"
