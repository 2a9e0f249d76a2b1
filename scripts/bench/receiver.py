"""`receiver`: what `fullnat-toa` costs a real server. A connection for every request, which is the worst case for it.

The lab is that of `real`, fullnatd sends TOA, nginx runs in a cgroup made for this. wrk with the receiver attached and
without, in turn, on the core that nginx has too; and apart from that, since measuring takes time as well, what the kernel
says of the programs' time: of connections through the gateway, which carry the option, and of others, which do not.
"""

import statistics

import real
from machine import say
from results import once, paired, result, summary
from rig import receiver as receivers
from rig.receiver import Receiver

# The gateway's local addresses (`real.fullnatd`).
TRUST = "10.2.0.100/30"


def run(context):
    """Yields the results."""
    seconds, rounds = (2, 3) if context.quick else (4, 10)
    receivers.remove_leftovers()
    receiver = Receiver("bench")
    lab = None
    try:
        lab = real.Lab(context.directory, inside=receiver.inside)
        with real.fullnatd(lab, "af_packet", "toa") as address:
            receiver.run("attach", "--cgroup", receiver.cgroup, "--trust", TRUST)
            yield _programs(lab, receiver, address, "taken", seconds)
            yield _programs(lab, receiver, real.DIRECT, "none", seconds)
            receiver.detach()
            yield _requests(lab, receiver, address, seconds, rounds)
    finally:
        if lab is not None:
            lab.close()
        receiver.close()


def _requests(lab, receiver, address, seconds, rounds):
    """Requests a second with the receiver and without."""
    found = {"with": [], "without": []}
    for turn in range(rounds):
        # Who comes first changes, or what drifts would be taken for a difference.
        for kind in sorted(found, reverse=turn % 2 == 0):
            say(f"receiver: {kind} it, round {turn + 1} of {rounds}")
            if kind == "with":
                receiver.attach("--trust", TRUST)
            done = real.measure(lab, address, "connections", seconds)
            if kind == "with":
                counts = receiver.counts()
                receiver.detach()
                if not counts["options"] == counts["sessions"] > 0:
                    raise RuntimeError(f"not every connection had the option: {counts}")
            if done["errors"]:
                raise RuntimeError(f"{done['errors']} connections failed {kind} the receiver")
            found[kind].append(done["value"])
    ours, theirs = found["with"], found["without"]
    return result("receiver", {"traffic": "connections", "option": "taken"}, statistics.median(ours), "requests/s",
                  "without the receiver", statistics.median(theirs), paired(ours, theirs),
                  {**summary(ours, True), "reference": summary(theirs, True)}, (">=", 0.95, "ratio"))


def _programs(lab, receiver, address, option, seconds):
    """What all programs of the receiver take of one connection, as the kernel measures it."""
    say(f"receiver: time of the programs, option {option}")
    receiver.attach("--trust", TRUST)
    before = receiver.status()
    with receivers.kernel_statistics():
        real.measure(lab, address, "connections", seconds)
        after = receiver.status()
    connections, options = (after["counts"][name] - before["counts"][name] for name in ("sessions", "options"))
    if connections == 0 or options != (connections if option == "taken" else 0):
        raise RuntimeError(f"{connections} connections, {options} of them with the option")
    took = {cost["program"]: round(cost["nanoseconds"] / connections) for cost in after["costs"]}
    return result("receiver", {"what": "its programs", "option": option}, sum(took.values()), "ns/connection",
                  runs={**once(sum(took.values())), "connections": connections, "programs": took})
