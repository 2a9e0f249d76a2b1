"""UDP servers that see the client: unmodified ones, with `fullnat-toa attach --udp` on the cgroup they run in."""

import collections
import contextlib
import itertools
import json
import re
import socket

import pytest

from rig import gateway as gateways
from rig.frames import IP, UDP, ip_options, uoa_of
from rig.gateway import service
from rig.inside import end, or_skipped, receiver_with
from rig.lab import CIP, CIP6, LIPS, LIPS6, RAW_SERVER, RAW_SERVER6, RAW_SERVER_MAC, RIPS, RIPS6, VIP, VIP6
from rig.netns import family_of, wait_until
from rig.raw_host import RawHost
from rig.servers import start_dnsmasq, start_udp
from rig.wire import Wire

pytestmark = pytest.mark.daemon

ECHO, DUAL, CONNECTED, CONNECTED_DUAL, DNS = 9100, 9101, 9102, 9103, 9104
"""ports of the servers inside"""
SERVERS = [("echo", "0.0.0.0", ECHO), ("echo", "::", DUAL), ("connected", "0.0.0.0", CONNECTED),
           ("connected", "::", CONNECTED_DUAL)]
FORGED, FORGED6 = ("192.0.2.66", 6666), ("2001:db8:bad::1", 6666)

# A port is used once: a session that the gateway still has from an earlier test is not told of again.
_ports = itertools.count(10000)

# What is asked of the receiver alone: how many workers the gateway has is nothing to it.
ONE_WORKER = pytest.mark.parametrize("workers", [1], ids=["1worker"])


def services():
    def udp(name, listen, port, **more):
        return service(name, listen, port, protocol="udp", **{"client_address": "uoa", **more})

    return [
        udp("echo", f"{VIP}:{ECHO}", ECHO),
        udp("dual", f"{VIP}:{DUAL}", DUAL),
        udp("connected", f"{VIP}:{CONNECTED}", CONNECTED),
        udp("connected-dual", f"{VIP}:{CONNECTED_DUAL}", CONNECTED_DUAL),
        udp("names", f"{VIP}:53", DNS),
        udp("echo64", f"[{VIP6}]:{ECHO}", ECHO),
        udp("dual64", f"[{VIP6}]:{DUAL}", DUAL),
        udp("dual46", f"{VIP}:19101", DUAL, table=RIPS6),
        udp("unnamed", f"{VIP}:19100", ECHO, client_address="none"),
    ]


@pytest.fixture(scope="module")
def inside(whole_lab):
    """A receiver that is not attached, and in its cgroup the servers of rs1 and rs2."""
    def servers(receiver):
        receiver.names = []
        for name in ("rs1", "rs2"):
            namespace = whole_lab.servers[name]
            for mode, address, port in SERVERS:
                yield namespace, start_udp(namespace, mode, address, port, receiver.inside)
            receiver.names.append(whole_lab.directory / f"{name}-dnsmasq.log")
            yield namespace, start_dnsmasq(namespace, DNS, receiver.names[-1], receiver.inside)

    with receiver_with("udp", servers) as receiver:
        yield receiver


@pytest.fixture
def receiver(inside):
    """The receiver, attached with the gateway's local addresses trusted; away again after the test."""
    attach(inside)
    yield inside
    inside.run("detach", check=False)


def attach(inside, *options, trust=(*LIPS, *LIPS6)):
    with or_skipped():
        inside.attach("--udp", *(("--trust", ",".join(trust)) if trust else ()), *options)


@pytest.fixture
def gateway(start, workers):
    return start(gateways.config(workers, services()))


class Client:
    """A client's socket toward one service."""

    def __init__(self, lab, vip, port):
        self.socket = lab.client.socket(family_of(vip), socket.SOCK_DGRAM)
        self.socket.bind((CIP6 if ":" in vip else CIP, next(_ports)))
        self.socket.connect((vip, port))
        self.me = end(*self.socket.getsockname()[:2])

    def send(self):
        self.socket.send(b"who")

    def ask(self):
        """One datagram and its answer."""
        self.send()
        return self.answer()

    def answer(self):
        """Whom the server took for the client, in each way that it was told."""
        return {key: end(*value) for key, value in json.loads(self.socket.recv(2048)).items()}


@contextlib.contextmanager
def clients(lab, *ways):
    """Clients, closed at the end."""
    made = [Client(lab, *way) for way in ways]
    try:
        yield made
    finally:
        for client in made:
            client.socket.close()


@pytest.mark.parametrize("port", [ECHO, DUAL, CONNECTED, CONNECTED_DUAL], ids=["echo", "dual", "connected", "connected-dual"])
def test_conformance_J1_a_udp_server_sees_the_client_and_answers_it(gateway, lab, receiver, port):
    with clients(lab, *[(VIP, port)] * 4) as asking:
        for client in asking:
            # The first carries the option, the later ones do not; a connected socket takes over from the second.
            for _ in range(3):
                assert set(client.ask().values()) == {client.me}
    counts = receiver.counts()
    assert counts["udp_options"] == 4 and counts["udp_shown"] == 12
    assert counts["udp_answers"] == (4 if port in (CONNECTED, CONNECTED_DUAL) else 12)
    assert not any(counts[f"udp_{name}"] for name in ("rejected_untrusted", "rejected_malformed", "no_memory", "not_sayable"))


def test_conformance_J1_dnsmasq_logs_the_client(gateway, lab, receiver):
    asked = set()
    for cport in itertools.islice(_ports, 20):
        found = lab.client.run("dig", "+short", "+tries=1", "-b", f"{CIP}#{cport}", f"@{VIP}", "example.org").stdout
        assert found.strip() == "192.0.2.1"
        asked.add((CIP, cport))

    def logged():
        text = "".join(log.read_text() for log in receiver.names if log.exists())
        return {(address, int(port)) for address, port in re.findall(r"(\S+)/(\d+) query\[A\] example.org", text)}

    wait_until(lambda: asked <= logged(), 5, lambda: f"{asked - logged()} in the logs")
    assert not any(address in LIPS for address, _ in logged())


@pytest.mark.bulk
@pytest.mark.parametrize("workers", [2], ids=["2workers"])
def test_conformance_J1_thousands_of_datagrams_and_no_mismatch(gateway, lab, receiver):
    # No more of the first burst than a queue holds may wait for a neighbour.
    with clients(lab, *[(VIP, ECHO)] * 4) as asking:
        assert all(client.ask()["from"] == client.me for client in asking)
    before = receiver.counts()
    shown = collections.Counter()
    for port in (ECHO, DUAL) * 4:
        with clients(lab, *[(VIP, port)] * 250) as asking:
            for _ in range(2):
                # All at once: the server has many of them to tell apart.
                for client in asking:
                    client.send()
                for client in asking:
                    shown[client.answer()["from"] == client.me] += 1
    assert shown == {True: 4000}
    counts = {name: count - before[name] for name, count in receiver.counts().items()}
    assert counts["udp_options"] == 2000 and counts["udp_shown"] == counts["udp_answers"] == 4000
    assert sum(worker["uoa_sent"] for worker in gateway.control.workers()) >= 2000


@ONE_WORKER
def test_whom_the_servers_see_where_the_option_cannot_go(gateway, lab, receiver):
    """IPv6 clients of IPv4 real servers, IPv6 real servers, services that tell nobody: the gateway, and answers arrive."""
    with clients(lab, (VIP6, ECHO), (VIP6, DUAL), (VIP, 19101), (VIP, 19100)) as asking:
        for client in asking:
            for _ in range(2):
                assert client.ask()["from"][0] in LIPS + LIPS6
    counts = receiver.counts()
    assert counts["udp_not_sayable"] == 2 and counts["udp_options"] == 0
    receiver.attach()
    with clients(lab, (VIP, ECHO)) as (client,):
        assert client.ask()["from"][0] in LIPS, "only by --udp"


def naming(address, port):
    """An IPv4 option that names this client."""
    packed = socket.inet_pton(family_of(address), address)
    return bytes([31, 4 + len(packed)]) + port.to_bytes(2, "big") + packed


@ONE_WORKER
@pytest.mark.parametrize("port, named", [(ECHO, True), (19100, False)], ids=["uoa", "none"])
def test_conformance_J2_a_clients_own_option_is_never_believed(gateway, lab, receiver, port, named):
    """Over all of a session, also where the gateway names nobody, and where nobody is distrusted."""
    attach(receiver, trust=())
    with contextlib.closing(Wire(lab)) as wire:
        for number, forged in enumerate((FORGED, FORGED6)):
            cport = 31100 + number
            for _ in range(4):
                options = ip_options(naming(*forged))
                wire.client.send(wire.from_client(options=options) / UDP(sport=cport, dport=port) / b"who")
                answer = wire.at_client(UDP, match=lambda p, cport=cport: p[UDP].dport == cport)
                seen = end(*json.loads(bytes(answer[UDP].payload))["from"])
                assert seen == (wire.cip, cport) if named else seen[0] in LIPS
    counts = receiver.counts()
    assert counts["udp_options"] == (2 if named else 0) and counts["udp_not_sayable"] == 0


@contextlib.contextmanager
def stranger(lab):
    """A host beside the gateway that reaches real servers itself: what asks one from a port, with an IPv4 option, and gives
    whom it took for its client."""
    with RawHost(lab.router, "eth0", RAW_SERVER_MAC, [RAW_SERVER, RAW_SERVER6]) as host:
        macs = {name: host.resolve(RIPS[name]) for name in ("rs1", "rs2")}

        def ask(sport, option=naming(*FORGED), port=ECHO, server="rs1"):
            host.send(host.ether(macs[server])
                      / IP(src=RAW_SERVER, dst=RIPS[server], options=ip_options(option) if option else [])
                      / UDP(sport=sport, dport=port) / b"who")
            answer = host.wait_for(lambda p: UDP in p and p[UDP].dport == sport and p[IP].dst == RAW_SERVER)
            return end(*json.loads(bytes(answer[UDP].payload))["from"])

        yield ask


@ONE_WORKER
def test_an_option_from_elsewhere_is_rejected(gateway, lab, receiver):
    with stranger(lab) as ask:
        assert ask(32001) == (RAW_SERVER, 32001)
        assert receiver.counts()["udp_rejected_untrusted"] == 1
        # Whom nobody rules out is believed, and what is answered to the client it named comes to it.
        attach(receiver, trust=())
        assert ask(32002) == FORGED
        assert ask(32003, bytes([31, 6, 0, 1, 1, 1, 1, 1])) == (RAW_SERVER, 32003), "another length names nobody"
        attach(receiver)
        assert ask(32004) == (RAW_SERVER, 32004)
        counts = receiver.counts()
        assert (counts["udp_rejected_untrusted"], counts["udp_rejected_malformed"], counts["udp_options"]) == (2, 1, 1)


@ONE_WORKER
def test_a_port_is_that_of_whom_it_was_told_of_last(gateway, lab, receiver):
    """Local ports that go from one client to another, seen from a host in the gateway's place."""
    attach(receiver, trust=())
    with stranger(lab) as ask:
        assert ask(32101) == ask(32101, None) == FORGED
        assert ask(32101, naming(*FORGED6)) == ask(32101, None) == (RAW_SERVER, 32101), "an IPv6 client is not shown"
        # A socket that was connected to the port before it was told of anybody.
        assert ask(32102, None, CONNECTED) == (RAW_SERVER, 32102)
        assert ask(32102, port=CONNECTED) == ask(32102, None, CONNECTED) == FORGED
        # Who had the port before is not answered there any more.
        before = RAW_SERVER, 32104
        assert ask(32103, naming(*before)) == before
        assert ask(32103) == FORGED
        assert ask(32104, None) == before
        # The same port toward another server, of which only the network namespace tells the kernel.
        assert ask(32105) == FORGED
        assert ask(32105, naming(*before), server="rs2") == before
        assert ask(32105, None) == FORGED


@ONE_WORKER
def test_what_is_known_outlives_a_new_version_and_the_server_but_not_detaching(gateway, lab, inside):
    started = []

    def start():
        started.append(start_udp(lab.servers["rs3"], "echo", "0.0.0.0", ECHO, inside.inside))

    def end_last():
        lab.servers["rs3"].end(started.pop())

    gateway.control.real_server("echo", "add", f"{RIPS['rs3']}:{ECHO}", weight=1)
    for name in ("rs1", "rs2"):
        gateway.control.real_server("echo", "drain", f"{RIPS[name]}:{ECHO}")
    attach(inside)
    try:
        start()
        with clients(lab, (VIP, ECHO)) as (client,):
            assert client.ask()["from"] == client.me
            attach(inside)
            assert client.ask()["from"] == client.me
            end_last()
            start()
            assert client.ask()["from"] == client.me, "the gateway does not tell again"
            inside.detach()
            assert client.ask()["from"][0] in LIPS
            attach(inside)
            assert client.ask()["from"][0] in LIPS, "what it knew is gone with it"
    finally:
        end_last()
        inside.run("detach", check=False)
        for name in ("rs1", "rs2"):
            gateway.control.real_server("echo", "undrain", f"{RIPS[name]}:{ECHO}")
        gateway.control.real_server("echo", "remove", f"{RIPS['rs3']}:{ECHO}")


@ONE_WORKER
def test_a_session_that_was_silent_for_too_long_is_not_believed(gateway, lab, receiver):
    attach(receiver, "--udp-idle", "2")
    with clients(lab, (VIP, ECHO)) as (client,):
        def session(what):
            [found] = gateway.control.sessions(client="{}:{}".format(*client.me))
            return found[what]

        def is_shown_for(seconds):
            assert client.ask()["from"] == client.me
            return session("age_secs") > seconds

        wait_until(lambda: is_shown_for(2.3), 10, "a session that was never silent for so long")
        wait_until(lambda: session("idle_secs") > 2.3, 10, "the session to be silent")
        assert client.ask()["from"][0] in LIPS


@ONE_WORKER
def test_nothing_is_left_behind(gateway, lab, receiver):
    udp = ["sendmsg4", "connect4", "connect6", "recvmsg4", "recvmsg6", "udp_arrives"]
    pins = receiver.pins / "toa"
    assert [name for name in receiver.status()["programs"] if name in udp] == udp
    receiver.attach()
    assert not set(udp) & set(receiver.status()["programs"])
    assert not [path.name for path in pins.iterdir() if path.name.startswith("udp")]
    attach(receiver)
    receiver.detach()
    assert not pins.exists()
    with clients(lab, (VIP, ECHO)) as (client,):
        assert client.ask()["from"][0] in LIPS


@ONE_WORKER
def test_the_option_is_on_the_first_datagrams_only(gateway, lab, receiver):
    """As a capture at the real servers has it, whatever the receiver makes of it."""
    with clients(lab, (VIP, ECHO)) as (client,):
        for _ in range(3):
            client.ask()
        own = client.me

        def arrived():
            frames = [frame.raw for capture in gateway.watch.servers.values() for frame in capture.frames]
            return [uoa_of(raw) for raw in frames if raw.endswith(b"who")]

        wait_until(lambda: len(arrived()) >= 3, 5, "three datagrams at the real server")
        assert arrived() == [own, None, None]
