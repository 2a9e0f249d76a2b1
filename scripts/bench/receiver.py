"""`receiver`: what it costs that a real server sees the client. A connection for every request, which is the worst case.

The lab is that of `real`, nginx runs in a cgroup made for this, wrk on the core that nginx has too. fullnatd sends TOA, and
`fullnat-toa` is attached or not, in turn; and apart from that, since measuring takes time as well, what the kernel says
of the programs' time: of connections through the gateway, which carry the option, and of others, which do not. Then
fullnatd sends a PROXY protocol header to one port of nginx and names nobody to the other, in turn.
"""

import statistics

import lab
import middles
import real
from machine import say
from results import once, paired, result, summary
from rig import receiver as receivers
from rig.receiver import Receiver
from rig.servers import HTTP_PORT

def run(context):
    """Yields the results."""
    seconds, rounds = (2, 3) if context.quick else (4, 10)
    receivers.remove_leftovers()
    receiver = Receiver("bench")
    try:
        with lab.opened(context.directory, inside=receiver.inside) as where:
            gateway = middles.fullnatd(where, "af_packet", "toa")
            with gateway.awake() as address:
                trust = "--trust", gateway.place.local_prefix
                receiver.run("attach", "--cgroup", receiver.cgroup, *trust)
                yield _programs(where, receiver, trust, address, "taken", seconds)
                yield _programs(where, receiver, trust, lab.DIRECT, "none", seconds)
                receiver.detach()
                yield _requests(where, receiver, trust, address, seconds, rounds)
            with middles.fullnatd(where, "af_packet").awake() as address:
                yield _headers(where, address, seconds, rounds)
    finally:
        receiver.close()


def _requests(where, receiver, trust, address, seconds, rounds):
    """Requests a second with the receiver and without."""
    def measure(kind):
        if kind == "without":
            return real.measure(where, address, "connections", seconds)
        receiver.attach(*trust)
        done = real.measure(where, address, "connections", seconds)
        counts = receiver.counts()
        receiver.detach()
        if not counts["options"] == counts["sessions"] > 0:
            raise RuntimeError(f"not every connection had the option: {counts}")
        return done

    return _compared("the receiver", measure, rounds, {"option": "taken"}, (">=", 0.95, "ratio"))


def _headers(where, address, seconds, rounds):
    """Requests a second where nginx is told the client by PROXY protocol and where it is not told."""
    ports = {"with": lab.PROXIED_PORT, "without": HTTP_PORT}
    return _compared("a PROXY protocol header",
                     lambda kind: real.measure(where, address, "connections", seconds, ports[kind]), rounds,
                     {"header": "proxy-v2"}, None)


def _compared(what, measure, rounds, params, goal):
    """The result of measuring "with" and "without", in turn."""
    found = {"with": [], "without": []}
    for turn in range(rounds):
        # Who comes first changes, or what drifts would be taken for a difference.
        for kind in sorted(found, reverse=turn % 2 == 0):
            say(f"receiver: {kind} {what}, round {turn + 1} of {rounds}")
            done = measure(kind)
            if done["errors"]:
                raise RuntimeError(f"{done['errors']} connections failed {kind} {what}")
            found[kind].append(done["value"])
    ours, theirs = found["with"], found["without"]
    return result("receiver", {"traffic": "connections", **params}, statistics.median(ours), "requests/s",
                  f"without {what}", statistics.median(theirs), paired(ours, theirs),
                  {**summary(ours, True), "reference": summary(theirs, True)}, goal)


def _programs(where, receiver, trust, address, option, seconds):
    """What all programs of the receiver take of one connection, as the kernel measures it."""
    say(f"receiver: time of the programs, option {option}")
    receiver.attach(*trust)
    before = receiver.status()
    with receivers.kernel_statistics():
        real.measure(where, address, "connections", seconds)
        after = receiver.status()
    connections, options = (after["counts"][name] - before["counts"][name] for name in ("sessions", "options"))
    if connections == 0 or options != (connections if option == "taken" else 0):
        raise RuntimeError(f"{connections} connections, {options} of them with the option")
    took = {cost["program"]: round(cost["nanoseconds"] / connections) for cost in after["costs"]}
    return result("receiver", {"what": "its programs", "option": option}, sum(took.values()), "ns/connection",
                  runs={**once(sum(took.values())), "connections": connections, "programs": took})
