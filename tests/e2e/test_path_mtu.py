"""Links of unequal MTU on the two sides of the gateway, with real kernels at both ends."""

import contextlib
import itertools
import re

import pytest
from test_transfers import download, upload

from rig import gateway as gateways
from rig.dimensions import VIPS, paired
from rig.gateway import end_gateway
from rig.invariants import check_accounting
from rig.lab import RIPS6, VIP, VIP6

pytestmark = [pytest.mark.daemon, pytest.mark.bulk]

MEGABYTE = 1 << 20
BLACK_HOLE = """
table inet blackhole {
    chain input {
        type filter hook input priority 0;
        icmp type destination-unreachable counter drop
        icmpv6 type packet-too-big counter drop
    }
}
"""
@contextlib.contextmanager
def links(lab, wan, lan):
    """The links on either side of the gateway carry that much."""
    sides = {wan: [(lab.client, "eth0"), (lab.switch, "client"), (lab.switch, "wan"), (lab.gateway, "gw-wan")],
             lan: [(lab.servers["rs1"], "eth0"), (lab.servers["rs2"], "eth0"), (lab.router, "eth0"),
                   (lab.switch, "rs1"), (lab.switch, "rs2"), (lab.switch, "router"), (lab.switch, "uplink"),
                   (lab.gateway, "gw-lan")]}
    end_gateway(lab)
    try:
        for mtu, interfaces in sides.items():
            for namespace, interface in interfaces:
                namespace.run("ip", "link", "set", "dev", interface, "mtu", mtu)
        yield
    finally:
        end_gateway(lab)
        for namespace, interface in itertools.chain(*sides.values()):
            namespace.run("ip", "link", "set", "dev", interface, "mtu", 1500)


@contextlib.contextmanager
def narrow_hop(lab, mtu):
    """The link between the router and rs3 carries that much. rs3 asks for segments of 1,500 bytes all the same, as a
    host does that is behind a tunnel of which it knows nothing: the client has to be told by the router."""
    server, ends = lab.servers["rs3"], ((lab.router, "eth1"), (lab.servers["rs3"], "eth0"))

    def default(*metrics):
        server.run("ip", "route", "replace", "default", "via", "10.3.0.254", *metrics)
        server.run("ip", "-6", "route", "replace", "default", "via", "2001:db8:3::fe", "dev", "eth0", *metrics)

    try:
        for namespace, interface in ends:
            namespace.run("ip", "link", "set", "dev", interface, "mtu", mtu)
        default("advmss", 1500 - 60)
        yield
    finally:
        for namespace, interface in ends:
            namespace.run("ip", "link", "set", "dev", interface, "mtu", 1500)
        default()
        # What was learned of the path.
        for family in ("-4", "-6"):
            lab.client.run("ip", family, "route", "flush", "cache")


def settings(workers, wan, lan):
    def device(number, interface, mtu):
        if mtu <= 1500:
            return gateways.af_packet(number, interface, workers)
        # net_af_packet takes no larger frames.
        return f"net_pcap{number},rx_iface_in={interface},tx_iface={interface}"

    made = gateways.config(workers, devices=(device(0, "gw-wan", wan), device(1, "gw-lan", lan)))
    for port, mtu in zip(made["port"], (wan, lan)):
        port["mtu"] = mtu
    return made


def far(workers):
    """The real server behind the router alone."""
    return gateways.config(workers, [gateways.service("far", f"{VIP}:9000", 9000, ("rs3",)),
                                     gateways.service("far6", f"[{VIP6}]:9000", 9000, ("rs3",), RIPS6)])


def both_ways(lab, vip, size):
    for way in (upload, download):
        got, expected = way(lab.client, vip, size)
        assert got == expected


def told(namespace):
    """ICMP and ICMPv6 errors that a host got about packets that were too big, before any filter."""
    return sum(namespace.counters("IcmpInDestUnreachs", "Icmp6InPktTooBigs").values())


@VIPS
@pytest.mark.parametrize("mtus", [(9000, 1500), (1500, 1280), (1280, 1500)], ids=lambda mtus: f"{mtus[0]}-{mtus[1]}")
def test_conformance_J6_unequal_links_of_the_gateway(start, lab, workers, mtus, vip):
    """Neither end sends what the gateway could not pass on: the MSS is lowered to what fits."""
    with links(lab, *mtus):
        gateway = start(settings(workers, *mtus))
        before = [told(end) for end in (lab.client, *lab.servers.values())]
        both_ways(lab, vip, 2 * MEGABYTE)
        assert [told(end) for end in (lab.client, *lab.servers.values())] == before
        gateway.watch.check()
        check_accounting(gateway.control)


@VIPS
@pytest.mark.parametrize("mtu", [1400, 1280])
def test_conformance_J4_J6_path_mtu_discovery_over_a_narrow_hop(start, lab, workers, mtu, vip):
    start(far(workers))
    with narrow_hop(lab, mtu):
        before = told(lab.client)
        both_ways(lab, vip, 2 * MEGABYTE)
        assert told(lab.client) > before, "the sender of what did not fit was told"


@paired
def test_conformance_J7_a_path_on_which_icmp_is_lost_is_probed(start, lab, workers, vip):
    start(far(workers))
    try:
        lab.client.sysctl("net.ipv4.tcp_mtu_probing", 1)
        lab.client.nft(BLACK_HOLE)
        with narrow_hop(lab, 1400):
            both_ways(lab, vip, 10 * MEGABYTE)
            listed = lab.client.run("nft", "list", "table", "inet", "blackhole").stdout
            assert re.search(r"counter packets [1-9]", listed), "what the router told was lost"
    finally:
        lab.client.sysctl("net.ipv4.tcp_mtu_probing", 0)
        lab.client.run("nft", "delete", "table", "inet", "blackhole", check=False)
