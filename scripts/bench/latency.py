"""`latency`: round trips of UDP datagrams at 10, 50 and 90 % of the no-drop rate, against testpmd io in the same place.

The lab of `real`: sockets at both ends, served by one thread, the middle between two veth pairs. The no-drop rate is the
highest at which the slower of the two middles loses nothing; both are then measured at the same rates, in short turns. A
quantile is the median of the trials' own, a ratio the median of the quotients of neighbours in time.
"""

import json
import math
import socket
import statistics

import engine
import lab
import real
from machine import say
from results import paired, result, summary

ECHO_PORT = 7007
LOADS = (10, 50, 90)
QUANTILES = ("p50", "p99", "p999", "max")
LOWEST, LIMIT = 1_000, 400_000
NAMES = ("fullnatd af_packet", "testpmd af_packet")
# At half of 40,000 datagrams a second, 10,000 of them: a hundred lie above p99.
TRIAL_SECS = 0.5
# And if it must be quick, twenty-five.
QUICK_TRIAL_SECS = 0.125


def run(context):
    """Yields the results."""
    rounds = 2 if context.quick else 15
    with lab.opened(context.directory, udp_port=ECHO_PORT) as where:
        middles = real.start(where, NAMES)
        ends = Ends(where, QUICK_TRIAL_SECS if context.quick else TRIAL_SECS)
        top = min(no_drop_rate(ends, name, middle) for name, middle in middles.items())
        for load in LOADS:
            rate = top * load // 100
            say(f"latency: {load} % of {top:,} datagrams a second through {', '.join(NAMES)} in turn, {rounds} rounds")
            found = real.interleave(middles, rounds, lambda address: ends.trial(address, rate))
            yield from figures({"load": load, "rate": rate}, *real.pairs(found, *NAMES))


class Ends:
    """Both ends: the client sends to a middle, the server sends back."""

    def __init__(self, where, seconds):
        self.where, self.seconds, self.binary = where, seconds, engine.binary()
        self.far = where.server.socket(kind=socket.SOCK_DGRAM)
        where.ends.callback(self.far.close)
        self.far.bind(("0.0.0.0", ECHO_PORT))

    def trial(self, address, rate):
        """{sent, received, lost, p50 ... in µs, distribution}"""
        trial = json.loads(self.where.at_ends(self.binary, "latency", f"{address}:{ECHO_PORT}", "--rate", rate, "--seconds",
                                              self.seconds, stdin=self.far, timeout=self.seconds + 10))
        if trial["received"] == 0:
            raise RuntimeError(f"none of {trial['sent']} datagrams came back")
        return trial


def no_drop_rate(ends, name, middle):
    """By bisection of the ratio, to a twentieth."""
    say(f"latency: looking for the no-drop rate of {name}")
    low, high = LOWEST, LIMIT
    with middle.awake() as address:
        if not passes(ends, address, low):
            say(f"latency: {name} is late at {low:,} per second already: the machine is too busy for this case")
            return low
        for _ in range(7):
            rate = round(math.sqrt(low * high))
            if passes(ends, address, rate):
                low = rate
            else:
                high = rate
    return low


def passes(ends, address, rate):
    """Whether nothing is lost; whoever else runs on the machine may disturb one trial. Late is lost too: an open loop
    that cannot keep up shows it in its delays."""
    trials = (ends.trial(address, rate) for _ in range(3))
    return any(trial["lost"] == 0 and trial["p99"] < 20_000 for trial in trials)


def figures(params, ours, theirs):
    """The results of one load."""
    for quantile in QUANTILES:
        values, base = ([trial[quantile] for trial in trials] for trials in (ours, theirs))
        runs = {**summary(values), "reference": summary(base), "lost": sum(trial["lost"] for trial in ours)}
        if quantile == "p99":
            runs["distribution"] = sorted(ours, key=lambda trial: trial["p99"])[len(ours) // 2]["distribution"]
        goal = ("<=", 1.3, "ratio") if (params["load"], quantile) == (50, "p99") else None
        yield result("latency", {**params, "quantile": quantile}, statistics.median(values), "µs", real.WIRE,
                     statistics.median(base), paired(values, base), runs, goal)
