"""Ways to run the gateway that its other tests do not choose: how it waits, and where its memory lies."""

import pathlib
import socket
import time

import pytest
from test_devices import works

from rig import gateway as gateways
from rig import machine
from rig.dimensions import VIPS
from rig.gateway import end_gateway
from rig.invariants import check_accounting
from rig.netns import family_of, wait_until

pytestmark = pytest.mark.daemon


@pytest.mark.usefixtures("spoil")
def test_workers_that_always_poll(start, lab, workers):
    gateway = start(gateways.config(workers, idle="poll"))
    works(lab)
    # A worker that waits between two turns gives its CPU away by itself; one that only lost it does not.
    turns, before = turns_of(gateway), machine.pauses_of_threads(gateway.process, "fullnat-w")
    assert len(before) == workers
    wait_until(lambda: all(now > then + 5000 for now, then in zip(turns_of(gateway), turns)), 10, "5,000 turns")
    assert machine.pauses_of_threads(gateway.process, "fullnat-w") == before
    # Nobody else gets much done beside it: what is left to look at is looked at without it.
    check_accounting(gateway.control)
    gateway.end()


def turns_of(gateway):
    return [worker["turns"] for worker in gateway.control.workers()]


@VIPS
def test_workers_that_sleep_lose_no_packet(gateway, lab, workers, vip):
    """Bursts after pauses of all lengths: as many datagrams come back as were sent."""
    ends = (lab.client, lab.servers["rs1"], lab.servers["rs2"])
    names = ("UdpRcvbufErrors", "Udp6RcvbufErrors", "UdpInErrors", "Udp6InErrors")
    for number in range(32):
        # Every worker knows every neighbour: the queue for those that it does not know holds less than a burst.
        with lab.client.socket(family_of(vip), socket.SOCK_DGRAM) as client:
            client.sendto(b"%d" % number, (vip, 9000))
            client.recv(200)
    before = [end.counters(*names) for end in ends]
    awake = machine.pauses_of_threads(gateway.process, "fullnat-w")
    with lab.client.socket(family_of(vip), socket.SOCK_DGRAM, timeout=2) as client:
        client.setsockopt(socket.SOL_SOCKET, machine.SO_RCVBUFFORCE, 8 << 20)
        client.connect((vip, 9000))
        for pause in (0, 0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5):
            time.sleep(pause)
            for number in range(300):
                client.send(b"%d" % number)
            try:
                answers = {int(client.recv(200).rsplit(b" ", 1)[1]) for _ in range(300)}
            except TimeoutError:
                answers = set()
            assert [end.counters(*names) for end in ends] == before, "the peers themselves had no room"
            assert answers == set(range(300)), f"after a pause of {pause} s; drops {gateway.control.drops()}"
    slept = machine.pauses_of_threads(gateway.process, "fullnat-w")
    assert len(slept) == workers and all(count > awake[thread] for thread, count in slept.items()), "they did sleep"


@pytest.mark.usefixtures("spoil")
def test_packet_memory_in_huge_pages(start, lab, workers):
    def free():
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("HugePages_Free"))

    end_gateway(lab)
    with machine.huge_pages(256):
        try:
            gateway = start(gateways.config(workers, eal=["--no-pci"], huge_pages="on"))
            assert free() < 256, "hugepages are in use"
            works(lab)
            assert "ordinary pages" not in gateway.output()
        finally:
            end_gateway(lab)
        assert free() == 256, "all of them came back"
