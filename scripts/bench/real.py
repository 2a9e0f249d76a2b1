"""`real`: wrk and iperf3 through the gateway, in exactly the same place as others (`lab`, `middles`).

All middles are alive and take short turns, A B C ... A B C ...; a ratio is the median of the quotients of neighbours in
time. On two cores the endpoints are the limit: this separates proxies from packet paths and nothing finer.
"""

import json
import re
import statistics
import time

import lab
import machine
from machine import say
from middles import MIDDLES
from results import paired, result, summary
from rig.servers import HTTP_PORT, IPERF_PORT

TRAFFIC = ("connections", "keep-alive", "bulk")
UNITS = {"connections": "requests/s", "keep-alive": "requests/s", "bulk": "Gbit/s"}
# The wire itself: testpmd on the device that the gateway has.
WIRE = "testpmd io"
GOALS = {WIRE: 0.95, "HAProxy": 1.2, "nginx stream": 1.2}
# What else is seen of a trial: its unit, and what many trials give together.
EXTRAS = {"p50_ms": ("ms", statistics.median), "p99_ms": ("ms", statistics.median),
          "errors": ("connections", sum), "retransmissions": ("segments", sum), "lost": ("segments", sum)}
# The share of a core that other programs may have without a word.
CALM = 0.05
# The shortest that wrk and iperf3 know.
TRIAL_SECS = 1


def measure(where, address, traffic, seconds, port=HTTP_PORT):
    """{value, p50_ms, p99_ms, errors, retransmissions, lost}; `port`: where requests go. What the receiver calls a duplicate
    (RFC 2883) was late and not lost: the middle was kept from its core."""
    before = where.segments()
    found = _iperf(where, address, seconds) if traffic == "bulk" else _wrk(where, address, traffic, seconds, port)
    again, duplicates = (now - then for now, then in zip(where.segments(), before))
    return {**found, "retransmissions": again, "lost": max(again - duplicates, 0)}


def _wrk(where, address, traffic, seconds, port):
    header = ["-H", "Connection: close"] if traffic == "connections" else []
    text = where.at_ends("wrk", "-t1", "-c64", f"-d{seconds}s", "--latency", *header, f"http://{address}:{port}/",
                         timeout=seconds + 20)
    quantile = {share: _milliseconds(text, share) for share in ("50", "99")}
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    return {"value": float(re.search(r"Requests/sec:\s*([\d.]+)", text)[1]),
            "p50_ms": quantile["50"], "p99_ms": quantile["99"], "errors": sum(map(int, errors.groups())) if errors else 0}


def _milliseconds(text, share):
    number, unit = re.search(rf"^\s+{share}%\s+([\d.]+)(us|ms|s)\b", text, re.MULTILINE).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def _iperf(where, address, seconds):
    text = where.at_ends("iperf3", "-c", address, "-p", IPERF_PORT, "-t", seconds, "-J", timeout=seconds + 20)
    return {"value": json.loads(text)["end"]["sum_received"]["bits_per_second"] / 1e9}


def run(context):
    """Yields the results."""
    rounds = 2 if context.quick else 11
    names = ["fullnatd af_packet", "testpmd af_packet", "direct veth"] if context.quick else list(MIDDLES)
    with lab.opened(context.directory) as where:
        middles = start(where, names)
        for traffic in TRAFFIC:
            say(f"real: {traffic} through {', '.join(middles)} in turn, {rounds} rounds")
            found = interleave(middles, rounds, lambda address: measure(where, address, traffic, TRIAL_SECS))
            yield from figures(traffic, found)


def start(where, names):
    """{name: middle}. One that does not start is said and left out."""
    started = {}
    for name in names:
        try:
            started[name] = MIDDLES[name](where)
        except (RuntimeError, TimeoutError) as error:
            say(f"{name} left out: {error}")
    return started


def interleave(middles, rounds, trial):
    """[{name: what the trial gave}] by round."""
    others, began = machine.others_seconds(), time.monotonic()
    found = [_round(middles, trial) for _ in range(rounds)]
    share = (machine.others_seconds() - others) / (time.monotonic() - began)
    if share > CALM:
        say(f"other programs had {share:.0%} of a core meanwhile")
    return found


def _round(middles, trial):
    """{name: what the trial gave}. A trial that fails is said and left out."""
    found = {}
    for name, middle in middles.items():
        try:
            with middle.awake() as address:
                found[name] = trial(address)
        except (RuntimeError, TimeoutError) as error:
            say(f"a trial of {name} left out: {error}")
    return found


def pairs(found, ours, theirs):
    """What both gave in the rounds that have both, as two lists; nothing if there is no such round."""
    both = [(trials[ours], trials[theirs]) for trials in found if ours in trials and theirs in trials]
    return [list(side) for side in zip(*both)]


def figures(traffic, found):
    """The results of one kind of traffic."""
    names = list(dict.fromkeys(name for trials in found for name in trials))
    for device in (name.removeprefix("fullnatd ") for name in names if name.startswith("fullnatd")):
        others = [name for name in names if name.split()[0] not in ("fullnatd", "testpmd")]
        for reference, other in {WIRE: f"testpmd {device}", **{name: name for name in others}}.items():
            if both := pairs(found, f"fullnatd {device}", other):
                yield from _compared({"traffic": traffic, "device": device}, reference, *both)


def _compared(params, reference, ours, theirs):
    """The rate; beside that of the wire itself, what else was seen."""
    values, base = ([trial["value"] for trial in trials] for trials in (ours, theirs))
    runs = {**summary(values, True), **_extras(ours), "reference": {**summary(base, True), **_extras(theirs)}}
    bound = GOALS.get(reference)
    applies = bound and not (params["traffic"] == "bulk" and bound > 1)
    yield result("real", params, statistics.median(values), UNITS[params["traffic"]], reference, statistics.median(base),
                 paired(values, base), runs, (">=", bound, "ratio") if applies else None)
    if reference == WIRE:
        yield from _beside(params, ours, theirs)


def _beside(params, ours, theirs):
    """Delays, retransmissions and losses beside those of the wire itself."""
    for key, (unit, together) in EXTRAS.items():
        if key not in ours[0] or key == "errors":
            continue
        values, base = ([trial[key] for trial in trials] for trials in (ours, theirs))
        yield result("real", {**params, "what": key.removesuffix("_ms")}, together(values), unit, WIRE, together(base),
                     runs={**summary(values), "reference": summary(base)},
                     goal=("<=", together(base), "value") if unit == "segments" else None)


def _extras(trials):
    return {key: together(trial[key] for trial in trials) for key, (_, together) in EXTRAS.items() if key in trials[0]}
