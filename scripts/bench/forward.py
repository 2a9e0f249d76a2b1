"""`forward`: packets per second of one worker on a net_pcap vdev that plays a file for ever and frees what is sent.

UDP frames of 64 bytes, and TCP frames of 66 bytes (86 of IPv6), acknowledgements. Where UDP sessions are few, the first
pass of the file opens them; all others are opened before (see `open_sessions`). References: testpmd 5tswap (touches and
rewrites MAC, IP and ports) and io on the same vdev and file; and for TCP and IPv6, each as a share of its own 5tswap, what
UDP over IPv4 reaches.
"""

import contextlib
import sys
import time

import core
import machine
import poller
import traffic
from machine import ROOT, say
from poller import wait_until
from results import result
from rig.netns import Namespace, link, set_offloads

# Buffers beside those that hold the file: rings, caches, what is under way.
WORKING_SET = 8192
SIDE_BUFFERS = 16384
# More than one takes in the table.
SESSION_BYTES = 170
SESSIONS = {1: ["udp4", "tcp4"], 1_000: ["udp4", "tcp4", "udp6", "tcp6"], 100_000: ["udp4", "tcp4"],
            1_000_000: ["udp4", "tcp4", "udp6", "tcp6"]}
SESSIONS_QUICK = {1_000: ["udp4", "tcp4", "udp6"], 100_000: ["udp4", "tcp4"]}
# IPv6 is judged by IPv4.
GOALS = {(kind, sessions): (">=", 0.75, "ratio") for kind in ("udp4", "tcp4") for sessions in (1_000, 1_000_000)}
# Where the pages of a process come to lie decides up to a tenth of what it makes of packets that are all in the cache
# (the same two programs, started again and again): all processes are started so often, where that takes seconds.
STARTS, STARTED_AGAIN_MAX = 3, 1_000
SIDE_DEVICE = "net_af_packet0,iface=side,framecnt=4096,qdisc_bypass=1"


def run(context):
    """Yields the results."""
    for sessions, kinds in (SESSIONS_QUICK if context.quick else SESSIONS).items():
        shares = {}
        for kind in kinds:
            for entry in _one(context, kind, sessions):
                if entry["reference"] == "testpmd 5tswap":
                    shares[kind] = entry
                yield entry
        yield from _families(shares)


def _families(shares):
    """IPv6 and TCP against IPv4 UDP, each as a share of what 5tswap makes of the same frames. {kind: its entry}"""
    base = shares.pop("udp4")
    for kind, entry in shares.items():
        yield result("forward", {"kind": kind, "sessions": entry["params"]["sessions"], "compared": "share"},
                     entry["ratio"], "x testpmd 5tswap", "udp4", base["ratio"], goal=(">=", 0.9, "ratio"),
                     core=core.compared_shares(entry["core"], base["core"]))


def _one(context, kind, sessions):
    rounds = core.Rounds(context.quick, context.full_speed)
    starts = 1 if context.quick or sessions > STARTED_AGAIN_MAX else STARTS
    for number in range(starts):
        with Bed(context, kind, sessions, processes=3) as bed:
            bed.add_gateway("fullnatd")
            for mode in ("5tswap", "io"):
                bed.add_testpmd(mode)
            bed.measure(rounds.part(number + 1, starts))
    for reference in ("5tswap", "io"):
        yield result(
            "forward", {"kind": kind, "sessions": sessions, "frame": traffic.FRAME_LEN[kind]}, unit="packets/s",
            reference=f"testpmd {reference}", goal=GOALS.get((kind, sessions)) if reference == "5tswap" else None,
            **rounds.figures("fullnatd", reference))


class Bed:
    """One file and the processes that play it, one at a time on the same core."""

    def __init__(self, context, kind, sessions, processes):
        self.context, self.kind, self.sessions, self.processes = context, kind, sessions, processes
        self.polls, self.controls = machine.cores()
        self.path = context.directory / f"{kind}-{sessions}.pcap"
        self.pollers = {}
        self.ends = contextlib.ExitStack()

    def __enter__(self):
        say(f"writing a file of {self.sessions:,} {self.kind} sessions")
        self.mbufs = traffic.write_pcap(self.path, self.sessions, self.kind) + WORKING_SET
        self.ends.callback(self.path.unlink)
        # 2.5 KiB a buffer for every process, and the tables.
        pages = self.processes * ((self.mbufs + SIDE_BUFFERS) * 2560 // (2 << 20) + 64)
        tables = self.processes * self.sessions * SESSION_BYTES // (2 << 20)
        self.ends.enter_context(machine.huge_pages(pages + tables))
        self.ends.callback(self._stop)
        return self

    def __exit__(self, *failure):
        return self.ends.__exit__(*failure)

    def _stop(self):
        for process in self.pollers.values():
            process.stop()

    @property
    def device(self):
        return f"net_pcap0,rx_pcap={self.path},infinite_rx=1"

    def add_gateway(self, name, toa=False):
        """fullnatd, all sessions open, paused."""
        cores = self.polls, self.controls
        if self.kind.startswith("udp") and self.sessions < traffic.FRAMES_MIN:
            toml = traffic.gateway_toml(self.device, self.mbufs, self.sessions, cores, self.kind)
            gateway = self.pollers[name] = poller.Gateway(self.context.directory, toml, name)
        else:
            space = Namespace(name.replace(" ", ""), ipv6=False)
            self.ends.callback(space.delete)
            self.ends.callback(self._stop)  # before its namespace goes
            link(space, "side", space, "peer")
            for end in ("side", "peer"):
                set_offloads(space, end, False)
            toml = traffic.gateway_toml(self.device, self.mbufs + SIDE_BUFFERS, self.sessions, cores, self.kind, toa,
                                        SIDE_DEVICE)
            gateway = self.pollers[name] = poller.Gateway(self.context.directory, toml, name, space)
            open_sessions(gateway, space, self.sessions, self.kind)
        settle(gateway, self.sessions)

    def add_testpmd(self, mode):
        self.pollers[mode] = testpmd(self.context, mode, self.device, self.mbufs, self.polls, self.controls)
        self.pollers[mode].pause()

    def measure(self, rounds=None):
        """The rounds of all; no gateway has lost a packet meanwhile."""
        rounds = rounds or core.Rounds(self.context.quick, self.context.full_speed)
        say(f"{self.sessions:,} {self.kind} sessions, {', '.join(self.pollers)} in turn, {rounds.wanted} rounds at full speed")
        gateways = [process for process in self.pollers.values() if isinstance(process, poller.Gateway)]
        before = [gateway.while_paused(gateway.lost) for gateway in gateways]
        rounds.take(poller.turns(self.pollers, turn_secs(self.context)), lambda: core.speed(self.polls))
        after = [gateway.while_paused(gateway.lost) for gateway in gateways]
        if after != before:
            raise RuntimeError(f"packets were dropped: {before} before, {after} after")
        self.context.full_speed = rounds.full_speed
        return rounds


def turn_secs(context):
    """Shorter turns find more rounds at full speed, whose figures are noisier by as much."""
    return 0.3 if context.quick else 0.5


def testpmd(context, mode, device, mbufs, polls, controls):
    arguments = eal(f"fn-bench-{mode}", device, f"0@{controls},1@{polls}")
    return poller.Testpmd(context.directory, mode, arguments, [
        "--nb-cores=1", "--port-topology=loop", "--no-flush-rx", f"--total-num-mbufs={mbufs}"])


def eal(prefix, device, lcores):
    """Arguments that keep processes apart."""
    return [f"--file-prefix={prefix}", "--no-pci", "--in-memory", f"--vdev={device}", "--lcores", lcores]


def open_sessions(gateway, space, sessions, kind):
    """Opens sessions through the side port, then moves clients and real servers to the wire.

    Until the routes change, what the wire plays comes from the wrong side and is dropped (RFC 3704); from then on every
    session finds its next hops anew at its first packet.
    """
    say(f"opening {sessions:,} {kind} sessions through a second port")
    opener = space.start(sys.executable, ROOT / "scripts" / "bench" / "opener.py", "peer", space.mac("side"), sessions,
                         kind)
    if opener.wait() != 0:
        raise RuntimeError(f"not all sessions could be opened: {gateway.worker()} {gateway.lost()}")
    document = gateway.control.get("/v1/config")
    of = traffic.family(kind)
    document["route"] = [{"to": of.anywhere, "via": of.router}, {"to": of.routed_network, "via": of.real_servers[0]}]
    gateway.control.request("PUT", "/v1/config", document)


def settle(gateway, sessions):
    """Waits until every session is open and established, and until nothing is dropped any more; then pauses."""
    wait_until(lambda: gateway.worker()["sessions_live"] == sessions, 120, lambda: f"{gateway.worker()} {gateway.lost()}")
    lost = None

    def at_rest():
        nonlocal lost
        before, lost = lost, gateway.lost()
        time.sleep(0.2)
        return lost == before

    wait_until(at_rest, 60, lambda: f"packets are dropped: {gateway.lost()}")
    page = gateway.control.get("/v1/sessions", limit=1000)["sessions"]
    states = {session["state"].lower() for session in page}
    if states != {"established"} or gateway.worker()["sessions_live"] != sessions:
        raise RuntimeError(f"sessions are {states}: {gateway.worker()}")
    gateway.pause()
