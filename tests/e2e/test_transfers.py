"""Bytes that arrive as they were sent, whatever the wire does to the frames."""

import contextlib
import hashlib
import json
import socket
import time

import pytest

from rig.disorder import Disorder
from rig.lab import VIP, VIP6
from rig.peer_server import blocks

MEGABYTE = 1 << 20


def download(namespace, vip, size):
    """Bytes of `source`; their sha256 and the one expected."""
    got, expected = hashlib.sha256(), hashlib.sha256()
    with namespace.connect(vip, 9000, timeout=30) as connection:
        connection.sendall(b"source %d 7\n" % size)
        left = size
        buffer = bytearray(MEGABYTE)
        while count := connection.recv_into(buffer):
            got.update(memoryview(buffer)[:count])
            left -= count
    assert left == 0
    for block in blocks(size, 7):
        expected.update(block)
    return got.hexdigest(), expected.hexdigest()


def upload(namespace, vip, size):
    expected = hashlib.sha256()
    with namespace.connect(vip, 9000, timeout=60) as connection:
        connection.sendall(b"sink\n")
        for block in blocks(size, 9):
            connection.sendall(block)
            expected.update(block)
        connection.shutdown(socket.SHUT_WR)
        got = b""
        while data := connection.recv(200):
            got += data
    return got.decode().strip(), expected.hexdigest()


@contextlib.contextmanager
def disorder(lab, **shares):
    """The same on both sides of the gateway, for both directions."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Disorder(ns, **shares))
               for ns in (lab.client, lab.servers["rs1"], lab.servers["rs2"])]


@pytest.mark.bulk
@pytest.mark.parametrize("vip", [VIP, VIP6], ids=["v4", "v6"])
@pytest.mark.parametrize("way", [download, upload])
def test_conformance_I21_loss_duplication_and_reordering(gateway, lab, vip, way):
    with disorder(lab, loss=50, twice=10, late=50) as sides:
        got, expected = way(lab.client, vip, 4 * MEGABYTE)
        assert got == expected
        assert any(side.returned for side in sides), "frames were delayed"


@pytest.mark.long
@pytest.mark.bulk
@pytest.mark.timeout(240)
@pytest.mark.parametrize("way", [download, upload])
def test_conformance_I20_a_gigabyte_with_one_percent_loss_and_reordering(gateway, lab, way):
    with disorder(lab, loss=10, late=10):
        got, expected = way(lab.client, VIP, 1 << 30)
    assert got == expected


def iperf(lab, vip, seconds, *options):
    done = lab.client.run("iperf3", "-c", vip, "-t", seconds, "-J", *options, timeout=seconds + 20)
    return json.loads(done.stdout)["end"]


@pytest.mark.long
@pytest.mark.bulk
@pytest.mark.parametrize("vip,reverse", [(VIP, False), (VIP6, True)], ids=["v4-up", "v6-down"])
def test_iperf3_for_thirty_seconds(start, lab, vip, reverse):
    from rig.gateway import config
    start(config(2))
    ended = iperf(lab, vip, 30, *(["-R"] if reverse else []))
    assert ended["sum_received"]["bits_per_second"] > 100e6


@pytest.mark.bulk
@pytest.mark.parametrize("vip", [VIP, VIP6], ids=["v4", "v6"])
@pytest.mark.parametrize("reverse", [False, True], ids=["up", "down"])
def test_iperf3(gateway, lab, vip, reverse):
    ended = iperf(lab, vip, 2, *(["-R"] if reverse else []))
    assert ended["sum_received"]["bits_per_second"] > 100e6


@pytest.mark.bulk
@pytest.mark.offloads(True)
def test_conformance_G7_bulk_with_segmentation_left_to_the_wire(gateway, lab):
    """The peers' kernels send CHECKSUM_PARTIAL and frames of up to 64 KiB: carried or dropped by name, never wrong."""
    before = [ns.counters("TcpInCsumErrors") for ns in (lab.client, *lab.servers.values())]
    got, expected = upload(lab.client, VIP, MEGABYTE)
    assert got == expected
    got, expected = download(lab.client, VIP, MEGABYTE)
    assert got == expected
    assert [ns.counters("TcpInCsumErrors") for ns in (lab.client, *lab.servers.values())] == before


WRK_CLOSE = "wrk.headers['Connection'] = 'close'\n"


@pytest.mark.bulk
@pytest.mark.parametrize("close", [False, True], ids=["keepalive", "close"])
@pytest.mark.parametrize("url", [f"http://{VIP}/", f"http://[{VIP6}]/"], ids=["v4", "v6"])
def test_wrk(gateway, lab, url, close):
    script = lab.directory / "close.lua"
    script.write_text(WRK_CLOSE)
    report = wrk(lab, url, 3, *(["-s", script] if close else []))
    assert "Socket errors" not in report and "Non-2xx" not in report, report
    rate = float(next(line for line in report.splitlines() if "Requests/sec" in line).split()[1])
    assert rate > 500


def wrk(lab, url, seconds, *options):
    return lab.client.run("wrk", "-t1", "-c32", f"-d{seconds}s", "--timeout", "3", *options, url,
                          timeout=seconds + 20).stdout


@pytest.mark.bulk
def test_conformance_K7_datagrams_at_a_steady_rate_all_come_back(gateway, lab):
    """A resolver's traffic: 20,000 queries, 64 in flight; none lost, none late."""
    with lab.client.socket(socket.AF_INET, socket.SOCK_DGRAM, timeout=2) as client:
        client.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)
        client.connect((VIP, 9000))
        sent, answered, worst, times = 0, 0, 0.0, {}
        while answered < 20_000:
            while sent < 20_000 and sent - answered < 64:
                times[sent] = time.monotonic()
                client.send(b"%d" % sent)
                sent += 1
            number = int(client.recv(200).rsplit(b" ", 1)[1])
            worst = max(worst, time.monotonic() - times.pop(number))
            answered += 1
    assert worst < 0.5
