"""The same gateway on every kind of DPDK device a machine without NICs can offer."""

import contextlib
import os
import socket
import subprocess

import pytest
import test_transfers as transfers
from scapy.layers.inet import fragment
from scapy.packet import Raw

from rig import gateway as gateways
from rig.frames import TCP, UDP
from rig.gateway import end_gateway
from rig.invariants import check_accounting
from rig.lab import LIPS, LIPS6, VIP, VIP6
from rig.netns import stop, wait_until
from rig.wire import Wire, drops_after

pytestmark = [pytest.mark.daemon, pytest.mark.usefixtures("spoil")]


def pcap(lab, workers):
    return tuple(f"net_pcap{n},rx_iface_in={i},tx_iface={i}" for n, i in enumerate(("gw-wan", "gw-lan")))


def xdp(lab, workers):
    return tuple(f"net_af_xdp{n},iface={i}" for n, i in enumerate(("gw-wan", "gw-lan")))


def af_packet(lab, workers):
    return tuple(gateways.af_packet(n, i, workers) for n, i in enumerate(("gw-wan", "gw-lan")))


def tap(lab, workers):
    return "net_tap0,iface=tap-wan", "net_tap1,iface=tap-lan"


@contextlib.contextmanager
def bridged(lab):
    """TAPs that the gateway has made, joined with the lab's links."""
    gateway = lab.gateway
    try:
        for number, side in enumerate(("wan", "lan")):
            # A bridge keeps frames to the MAC of one of its interfaces for its own host. The gateway has the MAC that
            # the TAP was made with: the interface gets another one.
            gateway.run("ip", "link", "set", "dev", f"tap-{side}", "address", f"02:00:00:00:0f:0{number}")
            gateway.run("ip", "link", "add", f"br-{side}", "type", "bridge", "forward_delay", 0, "mcast_snooping", 0)
            for interface in (f"gw-{side}", f"tap-{side}"):
                gateway.run("ip", "link", "set", "dev", interface, "master", f"br-{side}", "up")
            gateway.run("ip", "link", "set", "dev", f"br-{side}", "up")
        yield
    finally:
        for side in ("wan", "lan"):
            gateway.run("ip", "link", "delete", f"br-{side}", check=False)


@contextlib.contextmanager
def memif_bridge(lab):
    """Another DPDK process, testpmd, between shared-memory interfaces and the lab's links."""
    sockets = [lab.directory / f"memif-{side}.sock" for side in ("wan", "lan")]
    vdevs = []
    for number, (path, interface) in enumerate(zip(sockets, ("gw-wan", "gw-lan"))):
        vdevs += ["--vdev", f"net_memif{number},role=server,socket={path},socket-abstract=no",
                  "--vdev", f"net_af_packet{number},iface={interface},framecnt=1024,qdisc_bypass=1"]
    log = open(lab.directory / "testpmd.log", "wb")
    process = lab.gateway.start(
        "ip", "netns", "exec", lab.gateway.name, "dpdk-testpmd", "-l", "0,1", "--no-pci", "--no-huge", "-m", "256",
        f"--file-prefix=fn-{os.getpid()}-peer", *vdevs, "--", "--forward-mode=io", "--auto-start",
        "--total-num-mbufs=8192", "--no-mlockall", "--portlist=0,1,2,3", "--stats-period", "1000",
        stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: all(path.exists() for path in sockets), 15, "testpmd's memif sockets")
        yield tuple(f"net_memif{n},role=client,socket={path},socket-abstract=no" for n, path in enumerate(sockets))
    finally:
        stop(process, 3)


def works(lab):
    """HTTP over both families and a datagram, once each after the neighbours are known."""
    def http():
        try:
            with lab.client.connect(VIP, 80, timeout=1) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return b"200 OK" in connection.recv(4096)
        except OSError:
            return False

    wait_until(http, 10, "HTTP through the gateway")
    for url in (f"http://{VIP}/", f"http://[{VIP6}]/", f"http://{VIP}/big"):
        lab.client.run("curl", "-sSf", "--max-time", 10, "-o", "/dev/null", url)
    with lab.client.socket(socket.AF_INET, socket.SOCK_DGRAM, timeout=2) as client:
        client.connect((VIP, 9000))
        client.send(b"hello")
        assert client.recv(100).split()[1].decode() in LIPS


@pytest.mark.parametrize("devices", [af_packet, pcap, xdp], ids=["af_packet", "pcap", "af_xdp"])
def test_device(start, lab, devices, workers):
    """With two workers `net_pcap` and `net_af_xdp` have one queue: the hand-off ring does what they cannot."""
    start(gateways.config(workers, devices=devices(lab, workers)))
    works(lab)


def test_fewer_queues_than_workers(start, lab):
    """Two workers, one queue per port: the hand-off ring brings every packet home."""
    gateway = start(gateways.config(2, devices=tuple(
        gateways.af_packet(n, i, 1) for n, i in enumerate(("gw-wan", "gw-lan")))))
    works(lab)
    for _ in range(50):
        lab.client.run("curl", "-sSf", "--max-time", 3, "-o", "/dev/null", f"http://{VIP}/")
    workers = gateway.control.workers()
    assert sum(w["handed_in_packets"] for w in workers) > 0
    assert all(w["sessions_created"] > 0 for w in workers), "both own sessions"


def test_device_ring(start, lab):
    """Rings lead nowhere but back: the gateway hears its own announcements and makes nothing of them."""
    gateway = start(gateways.config(1, devices=("net_ring0", "net_ring1")), watch=False)
    wait_until(lambda: gateway.control.counter("rx_packets") > 0, 5, "an announcement that came back")
    ports = {port["name"]: port for port in gateway.control.get("/v1/ports")}
    assert {port["link"]["driver"] for port in ports.values()} == {"net_ring"}
    # DPDK gives a ring the MAC 00:00:00:00:00:00, which no ARP message may name.
    assert set(gateway.control.drops()) <= {"arp_malformed", "arp_not_for_us", "nd_not_for_us"}
    check_accounting(gateway.control)
    gateway.end()


def test_conformance_E1_E3_E4_ipv4_fragments_are_dropped_by_name(start, lab):
    """On AF_XDP: a packet socket's fan-out has the kernel join IPv4 fragments before the gateway sees them."""
    gateway = start(gateways.config(1, devices=xdp(lab, 1)))
    wire = Wire(lab)
    try:
        whole = wire.from_client(id=7) / UDP(sport=1234, dport=7000) / bytes(1024)
        cases = {
            "halves": fragment(whole, 512),
            "halves the other way round": fragment(whole, 512)[::-1],
            "a tiny first one": [wire.from_client(flags="MF", id=8, proto=6)
                                 / Raw(bytes(TCP(sport=1, dport=7000, flags="S"))[:8])],
            "beyond the end": [wire.from_client(frag=8189, id=9) / Raw(b"\0" * 100)],
        }
        for frames in cases.values():
            drops_after(gateway, lambda frames=frames: wire.client.send(*frames), ("ip_fragment", "ipv4_header"),
                        len(frames))
        assert not [p for p in wire.server.drain() if p.src == wire.lan_mac and (TCP in p or UDP in p)]
        wire.open_tcp()
    finally:
        wire.close()


def test_conformance_E1_fragments_that_the_kernel_joined_arrive_whole(start, lab, workers):
    """On net_af_packet the kernel joins IPv4 fragments: the datagram arrives as one, never a part of it."""
    start(gateways.config(workers))
    wire = Wire(lab)
    try:
        for order in (1, -1):
            whole = wire.from_client(id=70 + order) / UDP(sport=1240, dport=7000) / (b"fragment" * 128)
            wire.client.send(*fragment(whole, 512)[::order])
            assert bytes(wire.at_server(UDP)[UDP].payload) == b"fragment" * 128
    finally:
        wire.close()


def with_checksums(settings, offload):
    for port in settings["port"]:
        port["checksum_offload"] = offload
    return settings


@pytest.mark.parametrize("exclusive", [False, True], ids=["shared", "exclusive"])
def test_the_kernel_gets_nothing_of_an_exclusive_port(start, lab, exclusive):
    """Without it, the gateway's host receives every packet too, for its own stack to drop."""
    settings = gateways.config(1)
    for port in settings["port"]:
        port["exclusive"] = exclusive
    start(settings)
    before = lab.gateway.counters("IpInReceives")["IpInReceives"]
    got, expected = transfers.upload(lab.client, VIP, 1 << 20)
    assert got == expected
    seen = lab.gateway.counters("IpInReceives")["IpInReceives"] - before
    assert seen == 0 if exclusive else seen > 700


@pytest.mark.parametrize("workers,offload", [(1, "off"), (2, "auto")], ids=["1worker-off", "2workers-auto"])
def test_conformance_G6_a_tap_with_and_without_checksum_offload(start, lab, workers, offload):
    gateway = start(with_checksums(gateways.config(workers, devices=tap(lab, workers)), offload))
    with bridged(lab):
        works(lab)
        download, expected = transfers.download(lab.client, VIP, 1 << 20)
        assert download == expected
        upload, expected = transfers.upload(lab.client, VIP6, 1 << 20)
        assert upload == expected
        # The TAPs go with the gateway, before the bridges that stand on them.
        gateway.watch.check()
        check_accounting(gateway.control)


def test_conformance_G6_offload_on_and_off_give_the_same_bytes(start, lab):
    """Datagrams of all lengths that matter, both ways; one local port, so that nothing is left to chance."""
    def exchanged(offload):
        services = [service for service in gateways.default_services() if service["name"] in ("raw-udp", "raw-udp6")]
        gateway = start(with_checksums(gateways.config(1, services, "30000", [LIPS[0], LIPS6[0]],
                                                       devices=tap(lab, 1)), offload))
        frames = []
        with bridged(lab):
            for family in (4, 6):
                wire = Wire(lab, family, gateway.macs())
                header = {"id": 77} if family == 4 else {"fl": 77}
                try:
                    for length in (0, 1, 2, 3, 17, 18, 19, 255, 1024, 1371):
                        payload = bytes(range(256)) * 6
                        packet = wire.from_client(**header) / UDP(sport=1234, dport=7000) / payload[:length]
                        wire.client.send(packet)
                        inbound = wire.at_server(UDP, seconds=5)
                        answer = wire.from_server(inbound[wire.ip].src, **header) / UDP(
                            sport=7000, dport=inbound[UDP].sport) / payload[:length]
                        wire.server.send(answer)
                        frames += [bytes(inbound)[12:], bytes(wire.at_client(UDP))[12:]]
                finally:
                    wire.close()
            end_gateway(lab)
        return frames

    assert exchanged("auto") == exchanged("off")


def test_device_memif(start, lab, workers):
    end_gateway(lab)
    with memif_bridge(lab) as devices:
        settings = gateways.config(workers, devices=devices)
        for port in settings["port"]:
            port["queues"] = 1  # as many as the other side has
        gateway = start(settings)
        works(lab)
        gateway.watch.check()
        check_accounting(gateway.control)
        gateway.end()
