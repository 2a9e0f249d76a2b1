"""`both-ways`: as many answers as requests, against requests alone.

Requests come from a file that net_pcap plays for ever, real servers are behind a net_memif: a testpmd on the other core
that swaps addresses and ports of all it gets (5tswap), which is an answer, or that swallows it (rxonly). Same gateway,
same devices, same sessions; the rate is packets received from either side per second of core time. One core answers
fewer packets than another can ask through net_memif: how many answers there were for a request is told, and the goal is
judged only if nearly all were answered. Beside it the path alone (benches/engine), half and half exactly.
"""

import statistics
import time

import core
import engine
import poller
import traffic
from forward import SIDE_BUFFERS, WORKING_SET, Bed, turn_secs
from machine import say
from poller import wait_until
from results import result

SERVERS = [f"10.2.0.{n}" for n in range(11, 15)]


def run(context):
    """Yields the results."""
    yield from _through_devices(context, 100_000 if context.quick else 1_000_000)
    yield from engine.both_ways(context)


def _through_devices(context, sessions):
    with Bed(context, "udp4", sessions, processes=2) as bed:
        socket = context.directory / "memif.sock"
        servers = _servers(context, bed, socket)
        bed.ends.callback(servers.stop)
        device = f"net_memif0,role=client,socket={socket},socket-abstract=no,rsize=12"
        toml = traffic.gateway_toml(bed.device, bed.mbufs + SIDE_BUFFERS, sessions, (bed.polls, bed.controls),
                                    side=device, real_servers=SERVERS)
        gateway = bed.pollers["fullnatd"] = poller.Gateway(context.directory, toml)
        _open(gateway, servers, sessions)
        rounds, answers = _measure(context, gateway, servers, bed.polls)
    # Who cannot keep up with the questions has not answered all of them.
    if answers < 0.9:
        say(f"both-ways: {answers:.0%} of the requests were answered: the other core is too busy for this case")
    figures = rounds.figures("5tswap", "rxonly")
    figures["runs"]["answers_per_request"] = round(answers, 3)
    yield result("both-ways", {"kind": "udp4", "sessions": sessions, "devices": "net_pcap net_memif"}, unit="packets/s",
                 reference="requests alone", goal=(">=", 0.9, "ratio") if answers >= 0.9 else None, **figures)


def _servers(context, bed, socket):
    """Answers ARP first, or the gateway would not know the real servers."""
    arguments = ["--file-prefix=fn-bench-servers", "--no-pci", "--in-memory",
                 f"--vdev=net_memif0,role=server,socket={socket},socket-abstract=no,rsize=12",
                 "--lcores", f"0@{bed.controls},1@{bed.controls}"]
    return poller.Testpmd(context.directory, "icmpecho", arguments, [
        "--nb-cores=1", "--port-topology=loop", "--no-flush-rx", f"--total-num-mbufs={4 * WORKING_SET}"])


def _open(gateway, servers, sessions):
    wait_until(lambda: gateway.worker()["sessions_live"] == sessions, 120, lambda: f"{gateway.worker()} {gateway.lost()}")
    known = lambda: {entry["address"] for entry in gateway.control.get("/v1/neighbours")
                     if entry["state"].lower() == "reachable"}
    wait_until(lambda: known() >= set(SERVERS), 30, lambda: gateway.control.get("/v1/neighbours"))
    servers.switch("5tswap")


def _measure(context, gateway, servers, polls):
    """The rounds, and how many answers there were for a request."""
    for process in (gateway, servers):
        process.hasten()
    rounds = core.Rounds(context.quick, context.full_speed)
    say(f"both-ways: requests with and without answers in turn, {rounds.wanted} rounds at full speed")
    answers, seconds = {"5tswap": [], "rxonly": []}, turn_secs(context)

    def turn(mode):
        servers.switch(mode)
        time.sleep(seconds / 5)
        first, began = _received(gateway), gateway.core_seconds()
        time.sleep(seconds)
        wire, side = (b - a for a, b in zip(first, _received(gateway)))
        answers[mode].append(side / wire)
        return (wire + side) / (gateway.core_seconds() - began)

    def speed():
        gateway.pause()
        try:
            return core.speed(polls)
        finally:
            gateway.resume()

    rounds.take({mode: lambda mode=mode: turn(mode) for mode in answers}, speed)
    context.full_speed = rounds.full_speed
    return rounds, statistics.median(answers["5tswap"])


def _received(gateway):
    """Packets received from the wire and from the side."""
    ports = {port["name"]: port for port in gateway.control.get("/v1/ports")}
    return [ports[name]["rx_packets"] for name in ("wire", "side")]
