"""`control`: what the operator's wishes cost the traffic.

Under the load of `forward` (the worker's core is never idle): a configuration of 1,000 services x 100 real servers is
applied, and 1,000,000 sessions are listed. Lost are packets that the gateway received and neither sent nor held; net_pcap
itself never loses any, so the packets forwarded meanwhile stand beside them, as a share of those without disturbance.
"""

import http.client
import json
import statistics
import threading
import time

import forward
import machine
import poller
import traffic
from machine import say
from results import result


def run(context):
    """Yields the results."""
    sessions = 100_000 if context.quick else 1_000_000
    path = context.directory / "control.pcap"
    frames = traffic.write_pcap(path, sessions)
    mbufs = frames + forward.WORKING_SET
    polls, controls = machine.cores()
    with machine.huge_pages(mbufs * 2560 // (2 << 20) + sessions * 170 // (2 << 20) + 128):
        gateway = forward.gateway(context, path, mbufs, sessions, polls, controls)
        try:
            poller.wait_until(lambda: gateway.worker()["sessions_live"] >= sessions, 120,
                              lambda: f"sessions are missing: {gateway.worker()}")
            yield from _apply(gateway)
            yield from _list(gateway, sessions)
        finally:
            gateway.stop()
    path.unlink()


def _apply(gateway):
    say("control: applying 1,000 services x 100 real servers")
    document = gateway.control.get("/v1/config")
    document["service"] += [_service(number) for number in range(1_000)]
    seconds, lost, share = _meanwhile(gateway, lambda: gateway.control.request("PUT", "/v1/config", document))
    runs = {"packets_lost": lost, "rate_meanwhile": share}
    params = {"services": 1_000, "real_servers": 100_000}
    yield result("control", {"what": "apply", **params}, seconds, "s", runs=runs, goal=("<=", 1, "value"))
    yield result("control", {"what": "lost while applying"}, lost, "packets", runs=runs, goal=("<=", 0, "value"))


def _service(number):
    servers = [{"address": f"10.{64 + number // 250}.{number % 250}.{n}:8080"} for n in range(1, 101)]
    return {"name": f"s{number}", "listen": f"{traffic.VIP}:{10_000 + number}", "protocol": "tcp", "local_pool": "pool",
            "real_server": servers}


def _list(gateway, sessions):
    say(f"control: listing {sessions:,} sessions")
    seconds, lost, share = _meanwhile(gateway, lambda: _list_all(gateway, sessions))
    runs = {"packets_lost": lost, "rate_meanwhile": share}
    goal = ("<=", 5, "value") if sessions == 1_000_000 else None
    yield result("control", {"what": "list", "sessions": sessions}, seconds, "s", runs=runs, goal=goal)
    yield result("control", {"what": "lost while listing"}, lost, "packets", runs=runs, goal=("<=", 0, "value"))


def _list_all(gateway, sessions):
    """Page by page over one connection, counted without being understood."""
    connection = poller.unix_connection(gateway.socket)
    listed, cursor = 0, None
    try:
        while True:
            connection.request("GET", f"/v1/sessions?limit=1000{f'&cursor={cursor}' if cursor else ''}")
            page = connection.getresponse().read()
            listed += page.count(b'"worker":')
            cursor = json.loads(page).get("next")
            if cursor is None:
                break
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
    """Packets dropped; ARP messages, which are the gateway's own and end there by right, are none."""
    drops = gateway.control.get("/v1/drops")
    return sum(drop["total"] for drop in drops if drop["severity"] != "consumed" and "arp" not in drop["reason"]
               and "neighbour" not in drop["reason"])
