"""`latency`: round trips of UDP datagrams at 10, 50 and 90 % of the no-drop rate, against testpmd io in the same place.

The lab of `real`: sockets at both ends, the middle between two veth pairs. The no-drop rate is the highest at which the
slower of the two middles loses nothing; both are then measured at the same rates, in turn.
"""

import json
import math
import statistics
import subprocess

import engine
import real
from machine import say
from results import result, summary
from rig.netns import wait_until
from rig.servers import listening

ECHO_PORT = 7007
LOADS = (10, 50, 90)
LOWEST, LIMIT = 1_000, 400_000
MIDDLES = ("fullnatd af_packet", "testpmd io")


def run(context):
    """Yields the results."""
    seconds, rounds = (0.5, 1) if context.quick else (2, 3)
    binary = engine.binary()
    lab = real.Lab(context.directory, udp_port=ECHO_PORT)
    try:
        with real.pinned(lab.ends):
            lab.server.start(binary, "echo", f"0.0.0.0:{ECHO_PORT}", stdout=subprocess.DEVNULL)
        wait_until(lambda: listening(lab.server, ECHO_PORT, "-u"), 5, "the echo does not listen")
        top = min(_no_drop_rate(lab, binary, name, seconds) for name in MIDDLES)
        found = {}
        for turn in range(rounds):
            for name in MIDDLES:
                say(f"latency: {name}, round {turn + 1} of {rounds}, no-drop rate {top:,}/s")
                with real.MIDDLES[name](lab) as address:
                    _trial(lab, binary, address, 1000, 0.3)
                    for load in LOADS:
                        trial = _trial(lab, binary, address, top * load // 100, seconds)
                        found.setdefault((load, name), []).append(trial)
    finally:
        lab.close()
    yield from _results(found, top)


def _trial(lab, binary, address, rate, seconds):
    with real.pinned(lab.ends):
        done = lab.client.run(binary, "latency", f"{address}:{ECHO_PORT}", "--rate", rate, "--seconds", seconds,
                              timeout=seconds + 10)
    trial = json.loads(done.stdout)
    if trial["received"] == 0:
        raise RuntimeError(f"none of {trial['sent']} datagrams came back")
    return trial


def _no_drop_rate(lab, binary, name, seconds):
    """By bisection of the ratio, to a twentieth."""
    say(f"latency: looking for the no-drop rate of {name}")
    low, high = LOWEST, LIMIT
    with real.MIDDLES[name](lab) as address:
        _trial(lab, binary, address, low, 0.3)
        if not _passes(lab, binary, address, low, seconds):
            say(f"latency: {name} is late at {low:,} per second already: the machine is too busy for this case")
            return low
        for _ in range(7):
            rate = round(math.sqrt(low * high))
            if _passes(lab, binary, address, rate, seconds):
                low = rate
            else:
                high = rate
    return low


def _passes(lab, binary, address, rate, seconds):
    """Whether nothing is lost; whoever else runs on the machine may disturb one trial. Late is lost too: an open loop
    that cannot keep up shows it in its delays."""
    trials = (_trial(lab, binary, address, rate, seconds / 2) for _ in range(3))
    return any(trial["lost"] == 0 and trial["p99"] < 20_000 for trial in trials)


def _results(found, top):
    ours, reference = MIDDLES
    for load in LOADS:
        for quantile in ("p50", "p99", "p999", "max"):
            values, base = ([trial[quantile] for trial in found[load, name]] for name in (ours, reference))
            runs = {**summary(values), "reference": summary(base), "lost": sum(t["lost"] for t in found[load, ours])}
            if quantile == "p99":
                runs["distribution"] = found[load, ours][-1]["distribution"]
            goal = ("<=", 1.3, "ratio") if (load, quantile) == (50, "p99") else None
            yield result("latency", {"load": load, "rate": top * load // 100, "quantile": quantile},
                         statistics.median(values), "µs", reference, statistics.median(base), runs=runs, goal=goal)
