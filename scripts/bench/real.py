"""`real`: real stacks over veth pairs, the gateway between them, in exactly the same place as others.

    client --eth0--gw-wan-- middle --gw-lan--eth0-- server          (and client --direct--direct-- server)

Endpoints on one core, the middle on the other; offloads off at every end. Middles: fullnatd on net_af_packet and on
net_af_xdp, testpmd io between the same two ports (no NAT, the limit of the wire), the kernel's nftables dnat + snat,
HAProxy in TCP mode, nginx stream; and no middle at all, the ceiling. On two cores the endpoints are the limit: this
separates proxies from packet paths and nothing finer.
"""

import contextlib
import json
import os
import pathlib
import re
import statistics
import subprocess
import tempfile

import machine
import poller  # noqa: F401  (makes the rig of the end-to-end tests importable)
from machine import say
from results import result, summary
from rig.netns import Namespace, link, set_offloads, stop, wait_until
from rig.servers import HTTP_PORT, IPERF_PORT, listening, start_iperf, start_nginx

CIP, WAN, VIP = "10.1.0.1", "10.1.0.254", "10.1.0.100"
LAN, RIP = "10.2.0.254", "10.2.0.11"
# One subnet from end to end, for the middles that do no NAT, and the pair without a middle.
BRIDGED, DIRECT = "10.9.0.11", "10.8.0.11"
# Where nginx expects a PROXY protocol header, which fullnatd sends there.
PROXIED_PORT = 8081
LISTEN = f"listen {HTTP_PORT} backlog=4096; listen {PROXIED_PORT} backlog=4096 proxy_protocol;"
TRAFFIC = ("connections", "keep-alive", "bulk")
UNITS = {"connections": "requests/s", "keep-alive": "requests/s", "bulk": "Gbit/s"}
# The default rings are shorter than the bursts of a bulk transfer, which costs thousands of retransmissions.
RING = 4096
AF_PACKET = f"net_af_packet{{n}},iface={{iface}},framecnt={RING},qdisc_bypass=1"


class Lab:
    """Client, middle and server, as namespaces."""

    def __init__(self, directory, udp_port=None, inside=None):
        """With `udp_port`, the gateway serves UDP there too; `inside`: what makes nginx run elsewhere (`start_nginx`)."""
        self.udp_port = udp_port
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="real-", dir=directory))
        self.polls, self.ends = machine.cores()
        self.spaces = []
        self.client, self.middle, self.server = (self._space(role) for role in ("client", "gateway", "server"))
        link(self.client, "eth0", self.middle, "gw-wan")
        link(self.middle, "gw-lan", self.server, "eth0")
        link(self.client, "direct", self.server, "direct")
        self.client.add_address("eth0", f"{CIP}/24", "10.9.0.1/24")
        self.client.add_address("direct", "10.8.0.1/24")
        self.server.add_address("eth0", f"{RIP}/24", f"{BRIDGED}/24")
        self.server.add_address("direct", f"{DIRECT}/24")
        self.server.run("ip", "route", "add", "default", "via", LAN)
        for space, names in ((self.client, ("eth0", "direct")), (self.server, ("eth0", "direct")),
                             (self.middle, ("gw-wan", "gw-lan"))):
            for name in names:
                set_offloads(space, name, False)
        self.client.sysctl("net.ipv4.ip_local_port_range", "1024 65535")
        self.client.sysctl("net.ipv4.tcp_tw_reuse", 1)
        with pinned(self.ends):
            start_nginx(self.server, "server", self.directory / "nginx", listen=LISTEN, inside=inside)
            start_iperf(self.server)

    def _space(self, role):
        made = Namespace(role, ipv6=False)
        self.spaces.append(made)
        return made

    def in_middle(self, *argv, **options):
        """A program in the middle's namespace, sysfs included, on the middle's core alone."""
        with pinned(self.polls):
            return self.middle.start("ip", "netns", "exec", self.middle.name, *argv, stdin=subprocess.DEVNULL,
                                     **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options})

    def close(self):
        for space in reversed(self.spaces):
            space.delete()


@contextlib.contextmanager
def pinned(core):
    """What is started in here runs on this core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# --- the middles: each a context manager that gives the address to dial ---

@contextlib.contextmanager
def direct(_):
    yield DIRECT


@contextlib.contextmanager
def fullnatd(lab, driver, client_address="none"):
    devices = [AF_PACKET, "net_af_xdp{n},iface={iface}"][driver == "af_xdp"]
    ports = "".join(
        f'[[port]]\nname = "{name}"\ndevice = "{devices.format(n=n, iface=iface)}"\naddresses = ["{address}/24"]\n'
        for n, (name, iface, address) in enumerate((("wan", "gw-wan", WAN), ("lan", "gw-lan", LAN))))
    listens = [("tcp", HTTP_PORT, client_address), ("tcp", IPERF_PORT, client_address), ("tcp", PROXIED_PORT, "proxy-v2"),
               *([("udp", lab.udp_port, "none")] if lab.udp_port else [])]
    services = "".join(
        f'[[service]]\nname = "s{port}"\nlisten = "{VIP}:{port}"\nprotocol = "{protocol}"\nscheduler = "rr"\n'
        f'local_pool = "pool"\nclient_address = "{named}"\n[[service.real_server]]\naddress = "{RIP}:{port}"\n'
        for protocol, port, named in listens)
    config = lab.directory / f"{driver}.toml"
    socket = lab.directory / f"{driver}.sock"
    # Control beside the endpoints, where it sleeps; the worker has the middle's core to itself.
    config.write_text(
        f'[dataplane]\nworkers = 1\nworker_cores = [{lab.polls}]\ncontrol_core = {lab.ends}\nidle = "poll"\n'
        f'eal = ["--no-pci", "--no-huge", "-m", "512", "--file-prefix=fn-real-{os.getpid()}"]\n'
        f'sessions_max = 1000000\nrx_ring = {RING}\ntx_ring = {RING}\n[control]\nsocket = "{socket}"\n{ports}'
        f'[[local_pool]]\nname = "pool"\nport = "lan"\naddresses = ["10.2.0.100-10.2.0.103"]\n{services}')
    log = lab.directory / f"{driver}.log"
    with open(log, "wb") as out:
        process = lab.middle.start("ip", "netns", "exec", lab.middle.name, machine.program("fullnatd"), "--config",
                                   config, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: _alive(process, log) and "ready" in log.read_text().splitlines(), 30, log.read_text)
        yield VIP
    finally:
        stop(process, 10)


def _alive(process, log):
    if process.poll() is not None:
        raise RuntimeError(f"{process.args[4]} ended with {process.returncode}\n{log.read_text()[-2000:]}")
    return True


@contextlib.contextmanager
def testpmd(lab):
    log = lab.directory / "testpmd.log"
    devices = [f"--vdev={AF_PACKET.format(n=n, iface=iface)}" for n, iface in enumerate(("gw-wan", "gw-lan"))]
    with open(log, "wb") as out:
        process = lab.middle.start(
            "ip", "netns", "exec", lab.middle.name, "stdbuf", "-o0", "dpdk-testpmd", "--no-pci", "--no-huge", "-m",
            "512", f"--file-prefix=fn-testpmd-{os.getpid()}", "--lcores", f"0@{lab.ends},1@{lab.polls}", *devices, "--",
            "--nb-cores=1", "--forward-mode=io", "--auto-start", "--stats-period=3600", "--total-num-mbufs=32768",
            "--no-flush-rx", stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: _alive(process, log) and "Port statistics" in log.read_text(errors="replace"), 30,
                   lambda: log.read_text(errors="replace"))
        yield BRIDGED
    finally:
        stop(process, 10)


@contextlib.contextmanager
def kernel(lab):
    """Addresses of the gateway in the middle's own stack."""
    lab.middle.add_address("gw-wan", f"{WAN}/24", f"{VIP}/32")
    lab.middle.add_address("gw-lan", f"{LAN}/24")
    lab.middle.sysctl("net.ipv4.ip_local_port_range", "1024 65535")
    lab.middle.sysctl("net.ipv4.tcp_tw_reuse", 1)
    try:
        yield
    finally:
        for name in ("gw-wan", "gw-lan"):
            lab.middle.run("ip", "address", "flush", "dev", name)
            # The next middle has other MAC addresses for the same addresses.
        for space in (lab.client, lab.server):
            space.run("ip", "neigh", "flush", "all", check=False)


@contextlib.contextmanager
def nftables(lab):
    with kernel(lab):
        lab.middle.sysctl("net.ipv4.conf.all.forwarding", 1)
        lab.middle.nft(
            "table ip nat {\nchain pre { type nat hook prerouting priority dstnat;\n"
            f"ip daddr {VIP} dnat to {RIP}\n}}\nchain post {{ type nat hook postrouting priority srcnat;\n"
            f"oif gw-lan snat to {LAN}\n}}\n}}")
        try:
            yield VIP
        finally:
            lab.middle.nft("flush ruleset")
            lab.middle.sysctl("net.ipv4.conf.all.forwarding", 0)


@contextlib.contextmanager
def haproxy(lab):
    sections = "".join(f"listen s{port}\n bind {VIP}:{port}\n server s {RIP}:{port}\n"
                       for port in (HTTP_PORT, IPERF_PORT))
    config = lab.directory / "haproxy.cfg"
    # Without `maxconn` it takes what the limit of open files allows; more than that it refuses to start with.
    config.write_text("global\n nbthread 1\ndefaults\n mode tcp\n timeout connect 5s\n"
                      f" timeout client 60s\n timeout server 60s\n{sections}")
    with kernel(lab):
        yield from _proxy(lab, "haproxy", "-db", "-f", config)


@contextlib.contextmanager
def nginx_stream(lab):
    servers = "".join(f" server {{ listen {VIP}:{port} backlog=4096; proxy_pass {RIP}:{port}; }}\n"
                      for port in (HTTP_PORT, IPERF_PORT))
    config = lab.directory / "stream.conf"
    config.write_text(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off; master_process off;\n"
        f"pid {lab.directory}/stream.pid; error_log {lab.directory}/stream.log;\n"
        f"events {{ worker_connections 20000; }}\nstream {{\n{servers}}}\n")
    with kernel(lab):
        yield from _proxy(lab, "nginx", "-p", lab.directory, "-c", config)


def _proxy(lab, *argv):
    log = lab.directory / f"{argv[0]}.log"
    with open(log, "wb") as out:
        process = lab.in_middle(*argv, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: _alive(process, log) and listening(lab.middle, HTTP_PORT), 10, f"{argv[0]} does not listen")
        yield VIP
    finally:
        stop(process, 5)


MIDDLES = {
    "fullnatd af_packet": lambda lab: fullnatd(lab, "af_packet"),
    "fullnatd af_xdp": lambda lab: fullnatd(lab, "af_xdp"),
    "testpmd io": testpmd,
    "nftables": nftables,
    "HAProxy": haproxy,
    "nginx stream": nginx_stream,
    "direct veth": direct,
}
GOALS = {"testpmd io": 0.95, "HAProxy": 1.2, "nginx stream": 1.2}


# --- what is measured ---

def measure(lab, address, traffic, seconds, port=HTTP_PORT):
    """{value, p50_ms, p99_ms, retransmissions}; `port`: where requests go"""
    before = lab.client.counters("TcpRetransSegs")["TcpRetransSegs"] + lab.server.counters("TcpRetransSegs")["TcpRetransSegs"]
    found = _iperf(lab, address, seconds) if traffic == "bulk" else _wrk(lab, address, traffic, seconds, port)
    after = lab.client.counters("TcpRetransSegs")["TcpRetransSegs"] + lab.server.counters("TcpRetransSegs")["TcpRetransSegs"]
    return {**found, "retransmissions": after - before}


def _wrk(lab, address, traffic, seconds, port):
    header = ["-H", "Connection: close"] if traffic == "connections" else []
    with pinned(lab.ends):
        done = lab.client.run("wrk", "-t1", "-c64", f"-d{seconds}s", "--latency", *header,
                              f"http://{address}:{port}/", timeout=seconds + 20)
    text = done.stdout
    quantile = {share: _milliseconds(text, share) for share in ("50", "99")}
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    return {"value": float(re.search(r"Requests/sec:\s*([\d.]+)", text)[1]),
            "p50_ms": quantile["50"], "p99_ms": quantile["99"], "errors": sum(map(int, errors.groups())) if errors else 0}


def _milliseconds(text, share):
    number, unit = re.search(rf"^\s+{share}%\s+([\d.]+)(us|ms|s)\b", text, re.MULTILINE).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def _iperf(lab, address, seconds):
    with pinned(lab.ends):
        done = lab.client.run("iperf3", "-c", address, "-p", IPERF_PORT, "-t", seconds, "-J", timeout=seconds + 20)
    end = json.loads(done.stdout)["end"]
    return {"value": end["sum_received"]["bits_per_second"] / 1e9}


def run(context):
    """Yields the results."""
    seconds, rounds = (1, 1) if context.quick else (4, 3)
    names = ["fullnatd af_packet", "testpmd io", "direct veth"] if context.quick else list(MIDDLES)
    lab = Lab(context.directory)
    found = {}
    try:
        for turn in range(rounds):
            for name in names:
                say(f"real: {name}, round {turn + 1} of {rounds}")
                _round(lab, name, seconds, found)
    finally:
        lab.close()
    yield from _results(found)


def _round(lab, name, seconds, found):
    """One middle, all kinds of traffic. A middle that does not start is said and left out."""
    try:
        with MIDDLES[name](lab) as address:
            wait_until(lambda: lab.client.run("curl", "-s", "-m", 1, "-o", "/dev/null", f"http://{address}:{HTTP_PORT}/",
                                              check=False).returncode == 0, 10, f"nothing comes through {name}")
            for traffic in TRAFFIC:
                found.setdefault((traffic, name), []).append(measure(lab, address, traffic, seconds))
    except (RuntimeError, TimeoutError) as error:
        say(f"real: {name} left out: {error}")


def _results(found):
    for (traffic, name), ours in found.items():
        if not name.startswith("fullnatd"):
            continue
        for reference in (other for kind, other in found if kind == traffic and not other.startswith("fullnatd")):
            theirs = found[traffic, reference]
            value, base = (statistics.median(run["value"] for run in runs) for runs in (ours, theirs))
            runs = {**summary([run["value"] for run in ours], True), **_extras(ours), "reference": _extras(theirs)}
            bound = GOALS.get(reference)
            applies = bound and not (traffic == "bulk" and bound > 1)
            params = {"traffic": traffic, "device": name.split()[1]}
            yield result("real", params, value, UNITS[traffic], reference, base, value / base, runs,
                         (">=", bound, "ratio") if applies else None)
            if reference == "testpmd io":
                yield from _beside(params, ours, theirs)


# What else was seen, and its unit.
EXTRAS = {"p50_ms": "ms", "p99_ms": "ms", "errors": "connections", "retransmissions": "segments"}


def _beside(params, ours, theirs):
    """Delays and retransmissions beside those of the wire itself."""
    for key, unit in EXTRAS.items():
        if key not in ours[0] or key == "errors":
            continue
        values, bases = ([run[key] for run in runs] for runs in (ours, theirs))
        base = statistics.median(bases)
        yield result("real", {**params, "what": key.removesuffix("_ms")}, statistics.median(values), unit, "testpmd io",
                     base, runs={**summary(values), "reference": summary(bases)},
                     goal=("<=", base, "value") if key == "retransmissions" else None)


def _extras(runs):
    return {key: statistics.median(run[key] for run in runs) for key in EXTRAS if key in runs[0]}
