"""Real servers that see the client: unmodified ones, with `fullnat-toa` attached to the cgroup they run in."""

import collections
import concurrent.futures
import contextlib
import http.client
import json
import socket
import struct
import subprocess
import threading

import pytest

from rig import gateway as gateways
from rig import mptcp
from rig import receiver as receivers
from rig.frames import TCP
from rig.gateway import service
from rig.inside import end, or_skipped, receiver_with
from rig.known_servers import KNOWN, known_servers
from rig.lab import LIPS, LIPS6, RAW_SERVER, RAW_SERVER6, RAW_SERVER_MAC, RIPS, RIPS6, VIP, VIP6
from rig.netns import wait_until
from rig.raw_host import RawHost
from rig.servers import start_nginx, start_who
from rig.wire import Wire

pytestmark = pytest.mark.daemon

BOTH, DUAL, DEFERRED, WHO, WHO_DUAL, MPTCP = 8090, 8091, 8092, 8093, 8094, 8097
"""ports of the servers inside: a listener for each family; one for both; deferred accept; http.server; the same dual; one
that speaks MPTCP"""
LISTEN = (f"listen {BOTH} backlog=4096; listen [::]:{BOTH} backlog=4096; listen [::]:{DUAL} ipv6only=off; "
          f"listen {DEFERRED} deferred;")
FORGED = "192.0.2.66", 6666

# What is asked of the receiver alone: how many workers the gateway has is nothing to it.
ONE_WORKER = pytest.mark.parametrize("workers", [1], ids=["1worker"])


def services():
    six = f"[{VIP6}]"
    return [
        service("seen", f"{VIP}:{BOTH}", BOTH),
        service("seen6", f"{six}:{BOTH}", BOTH, table=RIPS6),
        service("seen64", f"{six}:18090", BOTH),
        service("seen46", f"{VIP}:18090", BOTH, table=RIPS6),
        service("dual", f"{VIP}:{DUAL}", DUAL),
        service("dual6", f"{six}:{DUAL}", DUAL, table=RIPS6),
        service("dual64", f"{six}:18091", DUAL),
        service("deferred", f"{VIP}:{DEFERRED}", DEFERRED),
        service("who", f"{VIP}:{WHO}", WHO),
        service("who6", f"{six}:{WHO_DUAL}", WHO_DUAL, table=RIPS6),
        service("who64", f"{six}:{WHO}", WHO),
        service("who-dual", f"{VIP}:{WHO_DUAL}", WHO_DUAL),
        service("unnamed", f"{VIP}:18092", BOTH, client_address="none"),
        service("other-kind", f"{six}:18093", BOTH, table=RIPS6, toa={"kind_v6": 253}),
        *(entry for name, kind in KNOWN.items() for entry in known_services(name, kind)),
    ]


def known_services(name, kind):
    """One of the known servers, which rs1 has: for each family, and for both at one socket if it has such a one."""
    yield service(name, f"{VIP}:{kind.port}", kind.port, ("rs1",))
    yield service(f"{name}6", f"[{VIP6}]:{kind.port}", kind.port, ("rs1",), RIPS6)
    if kind.dual:
        yield service(f"{name}-dual", f"{VIP}:{kind.dual}", kind.dual, ("rs1",))
        yield service(f"{name}-dual64", f"[{VIP6}]:{kind.dual}", kind.dual, ("rs1",))


# (VIP, port): how the client comes and what kind of socket accepts it
WAYS = {
    "v4": (VIP, BOTH),
    "v6": (VIP6, BOTH),
    "4to6": (VIP, 18090),
    "dual-v4": (VIP, DUAL),
    "dual-v6": (VIP6, DUAL),
    "dual-6to4": (VIP6, 18091),
    "deferred": (VIP, DEFERRED),
    "v6-kind-253": (VIP6, 18093),
}


@pytest.fixture(scope="module")
def inside(whole_lab):
    """A receiver that is not attached, and in its cgroup the servers of rs1 and rs2."""
    def servers(receiver):
        for name in ("rs1", "rs2"):
            namespace = whole_lab.servers[name]
            yield namespace, start_nginx(namespace, name, whole_lab.directory / f"{name}-inside", BOTH, LISTEN,
                                         receiver.inside)
            for address, port in (("0.0.0.0", WHO), ("::", WHO_DUAL)):
                yield namespace, start_who(namespace, address, port, receiver.inside)

    with receiver_with("receiver", servers) as receiver:
        yield receiver


@pytest.fixture(scope="module")
def known(inside, whole_lab):
    """HAProxy, Redis, PostgreSQL and sshd in rs1, in the receiver's cgroup."""
    with known_servers(whole_lab.servers["rs1"], inside.inside) as servers:
        yield servers


@pytest.fixture
def receiver(inside):
    """The receiver, attached with the gateway's local addresses trusted; away again after the test."""
    with or_skipped():
        inside.attach("--trust", ",".join([*LIPS, *LIPS6]))
    yield inside
    inside.run("detach", check=False)


@pytest.fixture
def gateway(start, workers):
    return start(gateways.config(workers, services()))


def seen_by_nginx(lab, vip, port):
    """One request: (who the client is, whom nginx takes for it)."""
    with lab.client.connect(vip, port) as client:
        me = end(*client.getsockname()[:2])
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    return me, end(*answer.split()[-2:])


@contextlib.contextmanager
def kept(lab, vip, port):
    """A connection to http.server: (who the client is, a function that asks whom the server takes for it)."""
    connection = http.client.HTTPConnection(vip, port)
    connection.sock = lab.client.connect(vip, port)

    def ask():
        connection.request("GET", "/")
        answer = json.loads(connection.getresponse().read())
        return {key: value and end(*value) for key, value in answer.items()}

    try:
        yield end(*connection.sock.getsockname()[:2]), ask
    finally:
        connection.close()


@pytest.mark.parametrize("way", WAYS)
def test_conformance_J1_nginx_sees_the_client(gateway, lab, receiver, way):
    for _ in range(4):
        me, seen = seen_by_nginx(lab, *WAYS[way])
        assert seen == me
    counts = receiver.counts()
    assert counts["sessions"] == counts["options"] == 4
    assert counts["rewritten"] >= 4
    assert not any(counts[name] for name in ("without_option", "rejected_untrusted", "rejected_malformed", "no_memory"))


@pytest.mark.parametrize("vip, port", [(VIP, WHO), (VIP, WHO_DUAL), (VIP6, WHO_DUAL)], ids=["v4", "dual-v4", "v6"])
def test_conformance_J1_pythons_http_server_sees_the_client(gateway, lab, receiver, vip, port):
    with kept(lab, vip, port) as (me, ask):
        assert ask() == {"accepted": me, "peer": me, "looked_up": None}


@ONE_WORKER
@pytest.mark.parametrize("name", KNOWN)
def test_conformance_J1_unmodified_servers_see_the_client(gateway, lab, known, receiver, name):
    server = known[name]
    ways = [(vip, port) for port in (server.port, server.dual) if port for vip in (VIP, VIP6)]
    for vip, port in ways:
        with lab.client.connect(vip, port) as client:
            assert end(*server.seen(client)) == end(*client.getsockname()[:2])
    assert receiver.counts()["options"] == receiver.counts()["sessions"] == len(ways)


@ONE_WORKER
def test_an_ipv6_client_of_an_ipv4_socket_is_told_by_getsockopt(gateway, lab, receiver):
    with kept(lab, VIP6, WHO) as (me, ask):
        answer = ask()
        assert answer["accepted"][0] in LIPS and answer["peer"][0] in LIPS, "no IPv4 address can say it"
        assert answer["looked_up"] is None, "not asked for"
        assert receiver.counts()["not_sayable"] >= 2
        receiver.attach("--nat64")
        assert "getsockopt" in receiver.status()["programs"]
        assert ask()["looked_up"] == me
        with kept(lab, VIP, WHO) as (other, ask_of_ipv4):
            assert ask_of_ipv4() == {"accepted": other, "peer": other, "looked_up": None}
        assert receiver.counts()["looked_up"] == 1
        receiver.attach()
        assert "getsockopt" not in receiver.status()["programs"]
        assert ask()["looked_up"] is None


@ONE_WORKER
def test_without_the_receiver_the_servers_see_the_gateway(gateway, lab, known, inside):
    for way in WAYS.values():
        _, seen = seen_by_nginx(lab, *way)
        assert seen[0] in LIPS + LIPS6
    for server in known.values():
        for vip in (VIP, VIP6):
            with lab.client.connect(vip, server.port) as client:
                assert end(*server.seen(client))[0] in LIPS + LIPS6


@ONE_WORKER
@pytest.mark.parametrize("port, named", [(BOTH, True), (18092, False)], ids=["toa", "none"])
def test_conformance_J2_a_clients_own_option_is_never_believed(gateway, lab, receiver, port, named):
    """A client that names another one, first, last and on every segment; also where the gateway names nobody."""
    options = [(254, struct.pack("!H", FORGED[1]) + socket.inet_aton(FORGED[0])),
               (253, struct.pack("!H", FORGED[1]) + socket.inet_pton(socket.AF_INET6, "2001:db8:bad::1"))]
    receiver.attach()
    with contextlib.closing(Wire(lab)) as wire:
        for number, forged in enumerate((options[:1], options[1:], options)):
            cport = 31000 + number

            def send(payload=b"", cport=cport, forged=forged, **tcp):
                segment = TCP(sport=cport, dport=port, window=65535, options=forged, **tcp)
                wire.client.send(wire.from_client() / segment / payload)

            def answer(match, cport=cport):
                return wire.at_client(TCP, match=lambda p: p[TCP].dport == cport and match(p))[TCP]

            send(flags="S", seq=1000)
            isn = answer(lambda p: p[TCP].flags == "SA").seq
            send(flags="A", seq=1001, ack=isn + 1)
            send(b"GET / HTTP/1.0\r\n\r\n", flags="PA", seq=1001, ack=isn + 1)
            seen = end(*bytes(answer(lambda p: b"HTTP" in bytes(p[TCP].payload)).payload).split()[-2:])
            assert seen == (wire.cip, cport) if named else seen[0] in LIPS
            send(flags="RA", seq=1019, ack=isn + 1)
    counts = receiver.counts()
    assert counts["sessions"] == 3 and counts["options"] == (3 if named else 0)


@ONE_WORKER
@pytest.mark.parametrize("family", [4, 6])
def test_an_option_from_elsewhere_is_rejected(gateway, lab, receiver, family):
    """A host beside the gateway that reaches the real server itself."""
    own, server, kind = (RAW_SERVER, RIPS["rs1"], socket.AF_INET) if family == 4 else (
        RAW_SERVER6, RIPS6["rs1"], socket.AF_INET6)
    client = FORGED[0] if family == 4 else "2001:db8:bad::1"
    option = [(254, struct.pack("!H", FORGED[1]) + socket.inet_pton(kind, client))]
    with contextlib.closing(Wire(lab, family)) as wire, RawHost(
            lab.servers["rs2"], "eth0", RAW_SERVER_MAC, [RAW_SERVER, RAW_SERVER6]) as stranger:
        mac = stranger.resolve(server)

        def ask(cport, options=option):
            frame = stranger.ether(mac) / wire.ip(src=own, dst=server)

            def send(payload=b"", **tcp):
                stranger.send(frame / TCP(sport=cport, dport=BOTH, window=65535, options=options, **tcp) / payload)

            def answer(match):
                return stranger.wait_for(lambda p: TCP in p and p[TCP].dport == cport and match(p))[TCP]

            send(flags="S", seq=1000)
            isn = answer(lambda p: p[TCP].flags == "SA").seq
            send(flags="A", seq=1001, ack=isn + 1)
            send(b"GET / HTTP/1.0\r\n\r\n", flags="PA", seq=1001, ack=isn + 1)
            seen = end(*bytes(answer(lambda p: b"HTTP" in bytes(p[TCP].payload)).payload).split()[-2:])
            send(flags="RA", seq=1019, ack=isn + 1)
            return seen

        assert ask(32001) == (own, 32001)
        assert receiver.counts()["rejected_untrusted"] == 1
        # Whom nobody rules out is believed: this is what --trust is for.
        receiver.attach()
        assert ask(32002) == (client, FORGED[1])
        # Wherever it stands, behind another length too; the first of two.
        second = 254, struct.pack("!H", 7777) + socket.inet_aton("192.0.2.77")
        assert ask(32006, [("NOP", None), (254, b"ab"), *option, second]) == (client, FORGED[1])
        receiver.attach("--trust", f"{own},{LIPS[0]}")
        assert ask(32003) == (client, FORGED[1])
        receiver.attach("--trust", ",".join([*LIPS, *LIPS6]))
        assert ask(32004) == (own, 32004)
        assert ask(32005, [(254, b"abcd")]) == (own, 32005), "another length names nobody"
        counts = receiver.counts()
        assert (counts["rejected_untrusted"], counts["rejected_malformed"], counts["options"]) == (2, 1, 3)


@ONE_WORKER
def test_a_subflow_that_joins_does_not_rename_the_client(gateway, lab, receiver):
    """MPTCP, past the gateway, which takes it out: accept() and getpeername() ask the connection, not its subflows."""
    def option(address, port):
        return 254, struct.pack("!H", port) + socket.inet_aton(address)

    receiver.attach()
    with contextlib.closing(Wire(lab)) as wire, RawHost(
            lab.servers["rs2"], "eth0", RAW_SERVER_MAC, [RAW_SERVER]) as stranger, contextlib.closing(
            mptcp.Server(lab.servers["rs1"], MPTCP, receiver.inside)) as server:
        frame = stranger.ether(stranger.resolve(RIPS["rs1"])) / wire.ip(src=RAW_SERVER, dst=RIPS["rs1"])
        client = mptcp.Client(stranger, frame, MPTCP)
        client.connect(33001, option("203.0.113.7", 40001))
        assert server.accepted() == ["203.0.113.7", "40001"]
        client.join(33002, option(*FORGED))
        wait_until(lambda: receiver.counts()["options"] == 2, 5, "the second subflow")
        assert server.peer() == ["203.0.113.7", "40001"]
        # Each subflow is a line, the connection above them is none.
        listed = [c["client"] for c in receiver.connections() if split(c["local"])[1] == str(MPTCP)]
        assert sorted(listed) == [f"{FORGED[0]}:{FORGED[1]}", "203.0.113.7:40001"]


@ONE_WORKER
def test_live_connections_are_listed(gateway, lab, receiver):
    with contextlib.ExitStack() as stack:
        clients = set()
        for vip, port in [(VIP, WHO), (VIP6, WHO_DUAL), (VIP, WHO_DUAL)] * 5:
            me, ask = stack.enter_context(kept(lab, vip, port))
            ask()
            clients.add(me)
        listed = [c for c in receiver.connections() if c["state"] == "ESTAB"]
        assert {end(*split(c["client"])) for c in listed} == clients and len(listed) == 15
        assert all(split(c["gateway"])[0] in LIPS + LIPS6 for c in listed)
        assert {split(c["local"])[1] for c in listed} == {str(WHO), str(WHO_DUAL)}
        table = receiver.run("status", "--connections").stdout.splitlines()
        assert table[0].split() == ["CLIENT", "GATEWAY", "LOCAL", "STATE"]
        assert sum(line.endswith("ESTAB") for line in table) == 15
    wait_until(lambda: not [c for c in receiver.connections() if c["state"] == "ESTAB"], 5, "no connection listed")


def split(endpoint):
    address, _, port = endpoint.rpartition(":")
    return address.strip("[]"), port


@ONE_WORKER
def test_a_new_version_takes_over_what_the_old_one_knew(gateway, lab, receiver):
    with kept(lab, VIP, WHO) as (me, ask):
        assert ask()["peer"] == me
        for _ in range(3):
            assert "attached anew" in receiver.attach().stdout
            assert ask()["peer"] == me
        assert receiver.counts()["sessions"] == 1
        receiver.detach()
        assert ask()["peer"][0] in LIPS, "what it knew is gone with it"
        receiver.attach()
        assert ask()["peer"][0] in LIPS, "a connection from before shows the gateway"


class Load:
    """Clients that connect, ask and close until the end of the block: whom the servers took for whom."""

    def __init__(self, lab, ways, threads=4, each=None):
        self.lab, self.ways, self.each = lab, ways, each
        self.results, self.failures = [], []
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self):
        done = 0
        while not self.over.is_set() and (self.each is None or done < self.each):
            try:
                self.results.append(seen_by_nginx(self.lab, *self.ways[done % len(self.ways)]))
            except (OSError, ValueError) as error:
                self.failures.append(error)
            done += 1

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        if self.each is None:
            self.over.set()
        for thread in self.threads:
            thread.join()

    def shown(self):
        """How many answers named the client, the gateway, somebody else."""
        return collections.Counter(
            "client" if seen == me else "gateway" if seen[0] in LIPS + LIPS6 else "nobody" for me, seen in self.results)


@pytest.mark.bulk
def test_attaching_and_detaching_under_load_loses_no_connection(gateway, lab, receiver):
    receiver.detach()
    with Load(lab, [WAYS["v4"], WAYS["v6"], WAYS["dual-6to4"]]) as load:
        for _ in range(5):
            for step in (receiver.attach, receiver.attach, receiver.detach):
                step()
                # Each state has its share of the load.
                have = len(load.results)
                wait_until(lambda have=have: len(load.results) >= have + 40, 20, "connections")
    assert not load.failures
    shown = load.shown()
    assert shown["client"] > 100 and shown["gateway"] > 100 and not shown["nobody"], shown


@pytest.mark.long
@pytest.mark.bulk
@pytest.mark.parametrize("workers", [2], ids=["2workers"])
def test_conformance_J1_ten_thousand_connections_and_no_mismatch(gateway, lab, receiver):
    ways = [WAYS[way] for way in ("v4", "v6", "dual-v4", "dual-v6", "dual-6to4", "4to6")]
    with Load(lab, ways, threads=4, each=2500) as load:
        pass
    assert not load.failures
    assert load.shown() == {"client": 10_000}
    counts = receiver.counts()
    assert counts["options"] == counts["sessions"] == 10_000 and counts["no_memory"] == 0


@ONE_WORKER
def test_nothing_is_left_behind(gateway, lab, receiver):
    assert receiver.status()["cgroup"] == str(receiver.cgroup)
    assert receiver.status()["programs"] == ["getpeername4", "getpeername6", "established", "connections"]
    receiver.detach()
    assert not (receiver.pins / "toa").exists()
    for words in ("detach", "status"):
        refused = receiver.run(words, check=False)
        assert refused.returncode == 1 and "not attached" in refused.stderr
    assert seen_by_nginx(lab, VIP, BOTH)[1][0] in LIPS


def test_what_is_missing_is_said_in_one_sentence(inside, tmp_path):
    def refusal(status, *words, **options):
        done = inside.run(*words, check=False, **options)
        lines = done.stderr.strip().splitlines()
        assert done.returncode == status and len(lines) == 1 and lines[0].startswith("fullnat-toa: "), done
        return lines[0]

    attach = ["attach", "--cgroup", inside.cgroup]
    assert "not on a bpf file system" in refusal(3, *attach, "--pin", tmp_path / "toa")
    assert ". is not on a bpf file system" in refusal(3, *attach, "--pin", "toa")
    for cgroup in (tmp_path, inside.cgroup / "missing", inside.cgroup / "cgroup.procs"):
        assert f"{cgroup} is not a cgroup" in refusal(1, "attach", "--cgroup", cgroup)
    bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    assert "CAP_NET_ADMIN is missing" in refusal(3, *attach, inner=bare)
    partly = ["setpriv", "--bounding-set=-sys_admin,-bpf", "--inh-caps=-all"]
    assert "CAP_BPF is missing" in refusal(3, *attach, inner=partly)
    nobody = ["setpriv", "--reuid=nobody", "--clear-groups"]
    assert "run as root" in refusal(3, *attach, inner=nobody)
    for untrue in ("", "10.2.0.96/33", "10.2.0.96/28,", "10.2.0.100-10.2.0.103", "rs1"):
        refused = inside.run(*attach, "--trust", untrue, check=False)
        assert refused.returncode == 2 and "neither a prefix such as 10.2.0.96/28 nor an address" in refused.stderr
    assert not (inside.pins / "toa").exists()

    # What is attached is not mistaken for absent by who may not see it, and goes on.
    inside.attach()
    for words in ("status", "detach"):
        assert "run as root" in refusal(3, words, inner=nobody)
    assert inside.status()["programs"]
    inside.detach()

    other = inside.cgroup.with_name(f"{inside.cgroup.name}-other")
    other.mkdir()
    try:
        inside.attach()
        assert f"attached to {inside.cgroup}" in refusal(1, "attach", "--cgroup", other)
        inside.detach()
        # A cgroup that is gone takes the links' work with it; the next attaching begins anew.
        inside.run("attach", "--cgroup", other)
    finally:
        other.rmdir()
    wait_until(lambda: "gone" in inside.status()["cgroup"], 5, "the cgroup to be gone")
    assert inside.attach().stdout.startswith("attached to")
    inside.detach()


def test_nothing_of_other_programs_is_taken_away(inside):
    """A directory of the bpf file system that somebody else pins in."""
    inside.attach()
    pins = inside.pins / "toa"
    (pins / "counters").rename(pins / "xdp_counters")
    for words in (["attach", "--cgroup", inside.cgroup], ["detach"]):
        refused = inside.run(*words, check=False)
        assert refused.returncode == 1 and f"{pins}/xdp_counters was not pinned by this" in refused.stderr
    assert len(list(pins.iterdir())) == 7
    (pins / "xdp_counters").rename(pins / "counters")
    inside.detach()


@ONE_WORKER
def test_a_version_with_other_maps_takes_over(gateway, lab, receiver):
    """A pinned map that is laid out otherwise gives way to a new one."""
    pins = receiver.pins / "toa"
    (pins / "counters").unlink()
    (pins / "trusted").rename(pins / "counters")
    assert "attached anew" in receiver.attach("--trust", ",".join([*LIPS, *LIPS6])).stdout
    me, seen = seen_by_nginx(lab, *WAYS["v4"])
    assert seen == me
    assert receiver.counts()["sessions"] == 1 and len(receiver.status()["trusted"]) == len(LIPS + LIPS6)


@ONE_WORKER
def test_who_attaches_at_the_same_time_waits(gateway, lab, receiver):
    receiver.detach()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        said = [done.stdout.split()[:2] for done in pool.map(lambda _: receiver.attach(), range(4))]
    assert sorted(said) == [["attached", "anew"]] * 3 + [["attached", "to"]]
    me, seen = seen_by_nginx(lab, *WAYS["v4"])
    assert seen == me
    assert receiver.counts()["sessions"] == 1, "each program is attached once"


@ONE_WORKER
@pytest.mark.parametrize("inner, lacks", [
    (["setpriv", "--bounding-set=-all,+bpf,+perfmon,+net_admin,+sys_resource", "--inh-caps=-all"], ""),
    (["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/kernel/btf && exec "$0" "$@"'], "connections"),
], ids=["capabilities-of-the-unit", "no-type-information"])
def test_less_is_enough(gateway, lab, receiver, inner, lacks):
    """The capabilities that the systemd unit leaves; a kernel that takes the plainest programs only."""
    receiver.detach()
    attached = receiver.run("attach", "--cgroup", receiver.cgroup, "--trust", LIPS[0] + "/24", inner=inner)
    assert ("goes without `status --connections`" in attached.stderr) == bool(lacks)
    assert ("connections" in receiver.status()["programs"]) != bool(lacks)
    # The verifier gives up at a million; other kernels follow other ways and need some multiple of this.
    assert receiver.verified("established") < 50_000
    me, seen = seen_by_nginx(lab, *WAYS["v4"])
    assert seen == me
    if lacks:
        refused = receiver.run("status", "--connections", check=False)
        assert refused.returncode == receivers.LACKING and "cannot list the connections" in refused.stderr


@ONE_WORKER
def test_what_the_programs_take_is_told(gateway, lab, receiver):
    assert receiver.status()["costs"] == []
    with receivers.kernel_statistics():
        seen_by_nginx(lab, *WAYS["v4"])
    costs = {cost["program"]: cost for cost in receiver.status()["costs"]}
    assert set(costs) == {"getpeername4", "established"}
    assert costs["established"]["runs"] >= 1 and 0 < costs["established"]["nanoseconds"] < 10_000_000
    assert "took, established" in receiver.run("status").stdout


def test_it_runs_without_dpdk():
    """A real server installs nothing of the gateway."""
    linked = subprocess.run(["ldd", gateways.binary("fullnat-toa")], capture_output=True, text=True, check=True).stdout
    assert "libc.so" in linked and "librte" not in linked
