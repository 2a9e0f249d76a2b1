"""`control`: what the operator's wishes cost the traffic.

Under the load of `forward` (the worker's core is never idle): a configuration of 1,000 services x 100 real servers is
applied and taken back, and 1,000,000 sessions are listed. Lost are packets that the gateway received and neither sent nor
held; net_pcap itself never loses any, so the packets forwarded meanwhile stand beside them, as a share of those without
disturbance.
"""

import http.client
import json
import re
import statistics
import threading
import time

import poller
import traffic
from forward import Bed
from machine import say
from results import result, summary


def run(context):
    """Yields the results."""
    sessions, rounds = (100_000, 1) if context.quick else (1_000_000, 3)
    with Bed(context, "udp4", sessions, processes=1) as bed:
        bed.add_gateway("fullnatd")
        gateway = bed.pollers["fullnatd"]
        gateway.resume()
        yield from _apply(gateway, rounds)
        yield from _list(gateway, sessions, rounds)


def _apply(gateway, rounds):
    say(f"control: applying 1,000 services x 100 real servers, {rounds} times")
    before = gateway.control.get("/v1/config")
    after = {**before, "service": [*before["service"], *map(_service, range(1_000))]}
    trials = []
    for _ in range(rounds):
        trials.append(_meanwhile(gateway, lambda: gateway.control.request("PUT", "/v1/config", after)))
        gateway.control.request("PUT", "/v1/config", before)
    params = {"services": 1_000, "real_servers": 100_000}
    yield from _results("apply", "applying", params, trials, 1)


def _service(number):
    servers = [{"address": f"10.{64 + number // 250}.{number % 250}.{n}:8080"} for n in range(1, 101)]
    return {"name": f"s{number}", "listen": f"{traffic.V4.vip}:{10_000 + number}", "protocol": "tcp", "local_pool": "pool",
            "real_server": servers}


def _list(gateway, sessions, rounds):
    say(f"control: listing {sessions:,} sessions, {rounds} times")
    trials = [_meanwhile(gateway, lambda: _list_all(gateway, sessions)) for _ in range(rounds)]
    yield from _results("list", "listing", {"sessions": sessions}, trials, 5 if sessions == 1_000_000 else None)


def _results(what, doing, params, trials, bound):
    """Seconds and packets lost, of trials as `_meanwhile` gives them."""
    seconds, lost, shares = zip(*trials)
    extra = {"packets_lost": sum(lost), "rate_meanwhile": statistics.median(shares)}
    yield result("control", {"what": what, **params}, statistics.median(seconds), "s",
                 runs={**summary(seconds), **extra}, goal=bound and ("<=", bound, "value"))
    yield result("control", {"what": f"lost while {doing}"}, sum(lost), "packets", runs={**summary(lost), **extra},
                 goal=("<=", 0, "value"))


def _list_all(gateway, sessions):
    """Page by page over one connection, counted without being understood."""
    connection = poller.unix_connection(gateway.socket)
    listed, cursor = 0, None
    try:
        while True:
            connection.request("GET", f"/v1/sessions?limit=1000{f'&cursor={cursor}' if cursor else ''}")
            page = connection.getresponse().read()
            listed += page.count(b'"worker":')
            following = re.search(rb'"next":\s*("[^"]*"|\d+)', page)
            if following is None:
                break
            cursor = json.loads(following[1])
    except http.client.HTTPException as error:
        raise RuntimeError(f"after {listed} sessions: {error}") from error
    finally:
        connection.close()
    if listed < sessions:
        raise RuntimeError(f"{listed} of {sessions} sessions were listed")


def _meanwhile(gateway, action):
    """(seconds it took, packets lost meanwhile, the rate meanwhile as a share of the rate before)."""
    before = statistics.median(_rate(gateway, 0.3) for _ in range(3))
    errors = []

    def act():
        try:
            action()
        except Exception as error:  # told to the caller below
            errors.append(error)

    lost = _lost(gateway)
    first, core, began = gateway.worker(), gateway.core_seconds(), time.monotonic()
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
    seconds = time.monotonic() - began
    last = gateway.worker()
    rate = (last["rx_packets"] - first["rx_packets"]) / max(gateway.core_seconds() - core, 1e-9)
    if errors:
        raise errors[0]
    return seconds, _lost(gateway) - lost, round(rate / before, 3)


def _rate(gateway, seconds):
    packets, core = gateway.packets(), gateway.core_seconds()
    time.sleep(seconds)
    return (gateway.packets() - packets) / (gateway.core_seconds() - core)


def _lost(gateway):
    return sum(gateway.lost().values())
