"""Bytes that arrive as they were sent, whatever the wire does to the frames."""

import contextlib
import hashlib
import json
import socket
import time

import pytest

from rig import gateway as gateways
from rig.disorder import Disorder
from rig.dimensions import OFFLOADS, VIPS, paired, remaining
from rig.lab import VIP, VIP6
from rig.netns import family_of, wait_until
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
    """The same on both sides of the gateway, before frames reach it and after they left it, in both directions.

    Ends with what it is for: frames were lost and delayed everywhere, the senders repeated what was lost and did so by
    selective acknowledgements, none of which named what had not been sent.
    """
    ends = (lab.client, lab.servers["rs1"], lab.servers["rs2"])
    names = ("TcpRetransSegs", "TcpExtTCPSackRecovery", "TcpExtTCPSACKDiscard")
    before = [end.counters(*names) for end in ends]
    with Disorder(lab.switch, "br1", ("client", "wan"), **shares) as outside, \
            Disorder(lab.switch, "br0", ("uplink", "rs1", "rs2"), **shares) as inside:
        yield
        counts = {**outside.counts(), **inside.counts()}
        returned = (outside.returned, inside.returned)
    for kind in shares:
        counts[f"servers-{kind}"] = counts.pop(f"rs1-{kind}") + counts.pop(f"rs2-{kind}")
    assert all(counts.values()), f"frames were lost and delayed: {counts}"
    assert all(returned), "delayed frames came back"
    after = [end.counters(*names) for end in ends]
    moved = {name: sum(end[name] for end in after) - sum(end[name] for end in before) for name in names}
    assert moved["TcpRetransSegs"] > 0 and moved["TcpExtTCPSackRecovery"] > 0, moved
    if "twice" not in shares:
        # What a duplicate is answered with may come so late that the sender rightly makes nothing of it.
        assert moved["TcpExtTCPSACKDiscard"] == 0, f"a SACK outside the window: {moved}"


@pytest.mark.bulk
@paired
@pytest.mark.parametrize("way", [download, upload])
def test_conformance_I21_loss_duplication_and_reordering(gateway, lab, vip, way):
    with disorder(lab, lost=30, twice=10, late=30):
        got, expected = way(lab.client, vip, 32 * MEGABYTE)
        assert got == expected


@pytest.mark.long
@pytest.mark.bulk
@pytest.mark.timeout(240)
@paired
@pytest.mark.parametrize("way", [download, upload])
def test_conformance_I20_a_gigabyte_with_one_percent_loss_and_reordering(gateway, lab, vip, way):
    # Twice on the way, before the gateway and after it: together somewhat more than a hundredth.
    with disorder(lab, lost=6, late=6):
        got, expected = way(lab.client, vip, 1 << 30)
        assert got == expected


@pytest.mark.bulk
@paired
def test_conformance_I12_a_half_closed_connection_streams_on(gateway, lab, vip):
    size, got, expected = 64 * MEGABYTE, hashlib.sha256(), hashlib.sha256()
    with lab.client.connect(vip, 9000, timeout=30) as connection:
        connection.sendall(b"halfclose %d\n" % size)
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(MEGABYTE):
            got.update(data)
    for block in blocks(size, 1):
        expected.update(block)
    assert got.hexdigest() == expected.hexdigest()


def iperf(lab, vip, seconds, *options):
    done = lab.client.run("iperf3", "-c", vip, "-t", seconds, "-J", *options, timeout=seconds + 20)
    return json.loads(done.stdout)["end"]


@pytest.mark.long
@pytest.mark.bulk
@paired
def test_iperf3_thirty_seconds_in_both_directions(gateway, lab, vip):
    ended = iperf(lab, vip, 30, "--bidir")
    assert ended["sum_received"]["bits_per_second"] > 50e6
    assert ended["sum_received_bidir_reverse"]["bits_per_second"] > 50e6


@pytest.mark.bulk
@remaining
@pytest.mark.parametrize("reverse", [False, True], ids=["up", "down"])
def test_iperf3(gateway, lab, vip, reverse):
    ended = iperf(lab, vip, 2, *(["-R"] if reverse else []))
    assert ended["sum_received"]["bits_per_second"] > 100e6


@pytest.mark.bulk
@pytest.mark.parametrize("offloads", [True], ids=["offloads"])
@VIPS
def test_conformance_G7_bulk_between_peers_with_offloads(gateway, lab, vip):
    """Checksums are left unfinished by the sender: not one frame arrives with a wrong one, not one is a super-frame."""
    peers = (lab.client, *lab.servers.values())
    before = [ns.counters("TcpInCsumErrors") for ns in peers]
    for way in (upload, download):
        got, expected = way(lab.client, vip, 64 * MEGABYTE)
        assert got == expected
    assert [ns.counters("TcpInCsumErrors") for ns in peers] == before
    assert "super_frame" not in gateway.control.drops()


@pytest.mark.daemon
@pytest.mark.bulk
@pytest.mark.parametrize("offloads", [True], ids=["offloads"])
def test_conformance_G7_super_frames_are_dropped_by_name(start, lab, workers):
    """A port told to let super-frames come: each is counted, and what does get through is as it was sent.

    This changes when the gateway cuts super-frames up itself: then the drop must not show.
    """
    settings = gateways.config(workers)
    for port in settings["port"]:
        port["wire_frames"] = False
    gateway = start(settings)
    # Small: of what TCP sends at once only its one-segment retransmissions arrive.
    got, expected = upload(lab.client, VIP, 8000)
    assert got == expected
    wait_until(lambda: gateway.control.drops().get("super_frame", 0) > 0, 2, "a super-frame")


WRK_CLOSE = "wrk.headers['Connection'] = 'close'\n"


@pytest.mark.bulk
@OFFLOADS
@pytest.mark.parametrize("close", [False, True], ids=["keepalive", "close"])
@pytest.mark.parametrize("url", [f"http://{VIP}/", f"http://[{VIP6}]/"], ids=["v4", "v6"])
def test_wrk(gateway, lab, url, close):
    script = lab.directory / "close.lua"
    script.write_text(WRK_CLOSE)
    report = wrk(lab, url, 2, *(["-s", script] if close else []))
    assert "Socket errors" not in report and "Non-2xx" not in report, report
    rate = float(next(line for line in report.splitlines() if "Requests/sec" in line).split()[1])
    assert rate > 500


def wrk(lab, url, seconds, *options):
    return lab.client.run("wrk", "-t1", "-c32", f"-d{seconds}s", "--timeout", "3", *options, url,
                          timeout=seconds + 20).stdout


@pytest.mark.bulk
@paired
def test_conformance_K7_datagrams_at_a_steady_rate_all_come_back(gateway, lab, vip):
    """A resolver's traffic: 20,000 queries, 64 in flight; none lost, none late."""
    with lab.client.socket(family_of(vip), socket.SOCK_DGRAM, timeout=2) as client:
        client.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)
        client.connect((vip, 9000))
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


@pytest.mark.bulk
@paired
def test_conformance_K7_dnsperf_loses_no_query(gateway, lab, vip):
    queries = lab.directory / "queries"
    queries.write_text("".join(f"host{n}.example {'A' if n % 2 else 'AAAA'}\n" for n in range(1000)))
    report = lab.client.run("dnsperf", "-s", vip, "-d", queries, "-l", 2, "-c", 8, "-q", 64, "-t", 2).stdout
    shown = {key.strip(): value.split()[0] for key, _, value in
             (line.partition(":") for line in report.splitlines()) if value.strip()}
    assert shown["Queries lost"] == "0" and shown["Response codes"] == "NOERROR", report
    assert int(shown["Queries completed"]) > 1000, report


def kernel_counts(lab):
    """Frames that the kernel passed to and took from each port of the gateway."""
    counts = {}
    for link in json.loads(lab.gateway.run("ip", "-j", "-s", "link").stdout):
        if link["ifname"].startswith("gw-"):
            counts[link["ifname"][3:]] = (link["stats64"]["rx"]["packets"], link["stats64"]["tx"]["packets"])
    return counts


@pytest.mark.daemon
@pytest.mark.bulk
def test_the_gateway_counts_what_the_kernel_counts(gateway, lab):
    """The books balance by construction; here they are compared with somebody else's."""
    def moved(since, now):
        return {name: tuple(b - a for a, b in zip(since[name], now[name])) for name in since}

    def ours():
        gateway.control.settled_workers()
        return {p["name"]: (p["rx_packets"], p["tx_packets"]) for p in gateway.control.get("/v1/ports")}

    kernel, own = kernel_counts(lab), ours()
    assert wrk(lab, f"http://{VIP}/", 1)
    assert download(lab.client, VIP6, 8 * MEGABYTE)
    # What is still on its way when one of the two is read arrives within a moment; nothing else may differ.
    wait_until(lambda: moved(kernel, kernel_counts(lab)) == moved(own, ours()), 3,
               lambda: f"kernel {moved(kernel, kernel_counts(lab))}, gateway {moved(own, ours())}")
    assert moved(own, ours())["wan"][0] > 1000
