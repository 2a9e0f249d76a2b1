"""`forward`: packets per second of one worker on a net_pcap vdev that plays a file for ever and frees what is sent.

References: testpmd 5tswap (touches and rewrites MAC, IP and ports) and io on the same vdev and file.
"""

import statistics

import machine
import poller
import traffic
from machine import say
from results import paired, result, summary

# Buffers beside those that hold the file: rings, caches, what is under way.
WORKING_SET = 8192
SESSIONS = [1, 1_000, 100_000, 1_000_000]
GOALS = {1_000: (">=", 0.75, "ratio"), 1_000_000: (">=", 0.75, "ratio")}


def run(context):
    """Yields the results."""
    counts = [1_000, 100_000] if context.quick else SESSIONS
    for sessions in counts:
        yield from _one(context, sessions)


def _one(context, sessions):
    path = context.directory / f"udp-{sessions}.pcap"
    say(f"forward: writing a file of {sessions:,} UDP sessions")
    frames = traffic.write_pcap(path, sessions)
    mbufs = frames + WORKING_SET
    polls, controls = machine.cores()
    # 2.5 KiB a buffer, three processes, and the table.
    with machine.huge_pages(3 * (mbufs * 2560 // (2 << 20) + 64) + sessions * 170 // (2 << 20)):
        pollers = {}
        try:
            pollers["fullnatd"] = gateway(context, path, mbufs, sessions, polls, controls)
            for mode in ("5tswap", "io"):
                pollers[mode] = testpmd(context, mode, path, mbufs, polls, controls)
            _settle(pollers["fullnatd"], sessions)
            rounds, seconds = (3, 0.3) if context.quick else (9, 0.5)
            say(f"forward: {sessions:,} sessions, {rounds} rounds")
            rates = poller.interleave(pollers, seconds, rounds)
        finally:
            for process in pollers.values():
                process.stop()
    path.unlink()
    for reference in ("5tswap", "io"):
        runs = {**summary(rates["fullnatd"], True), "reference": summary(rates[reference], True)}
        yield result(
            "forward", {"kind": "udp4", "sessions": sessions, "frame": 64}, statistics.median(rates["fullnatd"]),
            "packets/s", f"testpmd {reference}", statistics.median(rates[reference]),
            paired(rates["fullnatd"], rates[reference]), runs, GOALS.get(sessions) if reference == "5tswap" else None)


def eal(prefix, device, lcores):
    """Arguments that keep processes apart."""
    return [f"--file-prefix={prefix}", "--no-pci", "--in-memory", f"--vdev={device}", "--lcores", lcores]


def gateway(context, path, mbufs, sessions, polls, controls):
    device = f"net_pcap0,rx_pcap={path},infinite_rx=1"
    toml = traffic.gateway_toml(device, mbufs, "@SOCKET@", sessions, polls, controls, ["--no-pci", "--in-memory"])
    return poller.Gateway(context.directory, toml)


def testpmd(context, mode, path, mbufs, polls, controls):
    arguments = eal(f"fn-bench-{mode}", f"net_pcap0,rx_pcap={path},infinite_rx=1", f"0@{controls},1@{polls}")
    return poller.Testpmd(context.directory, mode, arguments, [
        "--nb-cores=1", "--port-topology=loop", "--no-flush-rx", f"--total-num-mbufs={mbufs}"])


def _settle(process, sessions):
    """Waits until every session is open, and shows that nothing is dropped from then on."""
    process.resume()
    poller.wait_until(lambda: process.worker()["sessions_live"] == sessions, 120,
                      lambda: f"{process.worker()} {process.control.get('/v1/drops')}")
    process.pause()
