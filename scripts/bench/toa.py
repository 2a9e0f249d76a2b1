"""`toa`: forward with TOA inserted in every packet against none: two gateways on the same file, in turn.

The client acknowledges no byte of its real server in that file, and until it does every segment carries TOA. Beside it
the path alone (benches/engine), where there is nothing else that the insertion could be a small part of.
"""

import engine
import traffic
from forward import Bed
from results import result


def run(context):
    """Yields the results."""
    for sessions in [1_000] if context.quick else [1_000, 1_000_000]:
        yield from _through_devices(context, sessions)
    yield from engine.toa(context)


def _through_devices(context, sessions):
    with Bed(context, "tcp4", sessions, processes=2) as bed:
        for name in ("without TOA", "with TOA"):
            bed.add_gateway(name, toa=name == "with TOA")
        gateway = bed.pollers["with TOA"]
        first = gateway.while_paused(gateway.worker)
        rounds = bed.measure()
        last = gateway.while_paused(gateway.worker)
    sent, passed = (last[name] - first[name] for name in ("toa_sent", "tx_packets"))
    # ARP is answered without TOA.
    if sent < 0.98 * passed:
        raise RuntimeError(f"{sent} of {passed} packets went with TOA")
    yield result("toa", {"kind": "tcp4", "sessions": sessions, "frame": traffic.FRAME_LEN["tcp4"]}, unit="packets/s",
                 reference="forward without TOA", goal=(">=", 0.85, "ratio"), **rounds.figures("with TOA", "without TOA"))
